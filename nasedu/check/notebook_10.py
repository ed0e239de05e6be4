"""Checks of notebook 10: how many runs a claim needs, a bootstrap that draws cells, the Pareto front."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nasedu.check.contract import Cases, exercise
from nasedu.data.datasets import seeded


@exercise(
    "how many runs",
    hint="2 * (inv_cdf(1 - level / 2) + inv_cdf(power))**2 * (variance of a cell's mean) / d**2, rounded up",
)
def runs_needed(answer: Callable[..., int]) -> Cases:
    """Check exercise 10.2: `answer(d, var_search, var_training, s, level, power)` searches, rounded up."""
    yield "one point, variances 0.5 and 0.5: Lehr's 16", answer(1.0, 0.5, 0.5), 16
    yield "half a point costs four times as much", answer(0.5, 0.5, 0.5), 63
    yield "four trainings of each cell", answer(1.0, 0.5, 0.5, 4), 10
    yield "only the search is lucky: more trainings don't help", answer(1.0, 1.0, 0.0, 100), 16
    yield "level 0.01, power 0.9", answer(1.0, 0.5, 0.5, 1, 0.01, 0.9), 30
    yield "a whole number", type(answer(2.0, 0.3, 0.4)), int


@exercise("an interval that knows about cells", hint="a[draw_a].mean(dim=(1, 2)), less the same of b")
def difference_interval(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Sequence[float]]) -> Cases:
    """Check exercise 10.1: `answer(a, b, draw_a, draw_b)` is the cluster bootstrap's interval of 95 %."""
    a, b = (
        torch.tensor([[60.0, 61.0], [64.0, 65.0]]),
        torch.tensor([[60.0, 62.0], [58.0, 60.0], [61.0, 61.0]]),
    )
    low, high = answer(a, b, torch.tensor([[0, 1]] * 5), torch.tensor([[0, 1, 2]] * 5))
    yield "every repetition draws each cell once: low", float(low), 2.1666667
    yield "and high", float(high), 2.1666667
    one, other = torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 1, 2], [2, 2, 2]])
    yield (
        "one cell twice, then the other twice",
        list(map(float, answer(a, b, one, other))),
        [0.25, 3.4166667],
    )
    draws = [torch.randint(n, (400, n), generator=seeded(n)) for n in (2, 3)]
    means = a[draws[0]].mean(dim=(1, 2)) - b[draws[1]].mean(dim=(1, 2))
    ends = torch.quantile(means, torch.tensor([0.025, 0.975])).tolist()
    yield "400 repetitions", list(map(float, answer(a, b, *draws))), ends


@exercise("the front", hint="j beats i if it is <= in cost, >= in accuracy, and < or > in one of them")
def pareto_front(answer: Callable[[Sequence[float], Sequence[float]], Sequence[int]]) -> Cases:
    """Check exercise 10.3: `answer(costs, accuracies)` lists the cells that none beats, cheapest first."""
    yield "dearer and better: both stay", list(answer([1.0, 2.0], [50.0, 60.0])), [0, 1]
    yield "dearer and worse is beaten", list(answer([1.0, 2.0], [60.0, 50.0])), [0]
    yield "in the order of the cost", list(answer([3.0, 1.0, 2.0], [70.0, 50.0, 60.0])), [1, 2, 0]
    yield "the same price, one better", list(answer([1.0, 1.0], [50.0, 60.0])), [1]
    yield "the same accuracy, one cheaper", list(answer([2.0, 1.0], [60.0, 60.0])), [1]
    yield "twins don't beat each other", list(answer([1.0, 1.0, 2.0], [60.0, 60.0, 60.0])), [0, 1]
    yield "five cells", list(answer([0.0, 5.0, 2.0, 2.0, 9.0], [58.0, 61.0, 57.0, 60.0, 61.0])), [0, 3, 1]
