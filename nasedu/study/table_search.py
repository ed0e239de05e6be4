"""Searching the truth table: methods that train nothing, since every answer is there already.

    table = truth.load()
    history = regularised_evolution(table.values("valid_accuracy").tolist(), evaluations=50, seed=0)
    regret(history, table.mean("test_accuracy").tolist())
    curves(regularised_evolution, table, evaluations=100, seeds=100)       # the same for 100 seeds

As in NAS-Bench-201 (arXiv:2001.00326), an evaluation reveals the validation accuracy that *one* training
reached, whose seed is drawn anew each time; a method recommends the best that it has seen. Asking twice for
one architecture costs two evaluations. Plain lists and numbers: for steps this small they beat tensors.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nasedu.search.reinforce import moving_baseline
from nasedu.space.small import EDGES, OPS
from nasedu.study.truth import Table

Valid = Sequence[Sequence[float]]  # (125, seeds): what can be seen
Digits = tuple[int, ...]  # an operation's number for each edge


class Seen(NamedTuple):
    """One evaluation: the architecture's number in `small.architectures()`, and the accuracy it showed."""

    number: int
    accuracy: float


Method = Callable[..., list[Seen]]  # (valid, evaluations, seed, **constants) -> history


def digits_of(number: int) -> Digits:
    """Take an architecture's number apart, into the numbers of its operations: 7 -> (0, 1, 2)."""
    return tuple(number // len(OPS) ** place % len(OPS) for place in reversed(range(len(EDGES))))


def number_of(digits: Sequence[int]) -> int:
    """Put an architecture's number together, the inverse of `digits_of`."""
    return sum(digit * len(OPS) ** place for place, digit in enumerate(reversed(digits)))


def look_up(valid: Valid, number: int, rng: random.Random) -> Seen:
    """Look one architecture up: the accuracy of one of its seeds, drawn at random."""
    return Seen(number, rng.choice(valid[number]))


# ---- three methods


def random_search(valid: Valid, evaluations: int, seed: int = 0) -> list[Seen]:
    """Draw without replacement, which is the better random search; after all 125 a new round begins."""
    rng = random.Random(seed)
    history: list[Seen] = []
    while len(history) < evaluations:
        history += [look_up(valid, number, rng) for number in rng.sample(range(len(valid)), len(valid))]
    return history[:evaluations]


def mutate(number: int, rng: random.Random) -> int:
    """Give one edge, drawn at random, another operation than it has, drawn at random."""
    digits = list(digits_of(number))
    edge = rng.randrange(len(EDGES))
    digits[edge] = rng.choice([op for op in range(len(OPS)) if op != digits[edge]])
    return number_of(digits)


def regularised_evolution(
    valid: Valid, evaluations: int, seed: int = 0, population: int = 10, tournament: int = 3
) -> list[Seen]:
    """Evolve a population in which the oldest dies (Real et al., AAAI 2019, arXiv:1802.01548, algorithm 1).

    It begins with `population` random architectures. Then, each time: draw `tournament` of the living, with
    replacement; mutate the best of them; evaluate the child, and remove the oldest. The constants are those
    that NAS-Bench-201's authors run; Real et al. take 100 and 25, for 20,000 evaluations.
    """
    rng = random.Random(seed)
    living: deque[Seen] = deque(maxlen=population)  # full, it lets its first go when one is appended
    history: list[Seen] = []
    for _ in range(evaluations):
        if len(living) < population:
            child = rng.randrange(len(valid))
        else:
            parent = max(rng.choices(living, k=tournament), key=lambda one: one.accuracy)
            child = mutate(parent.number, rng)
        living.append(look_up(valid, child, rng))
        history.append(living[-1])
    return history


def softmax(logits: Sequence[float]) -> list[float]:
    """exp(logit) over their sum."""
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return [power / sum(powers) for power in powers]


def grad_log_p(policy: Sequence[Sequence[float]], digits: Digits) -> list[list[float]]:
    """The derivative of log p(digits) by the logits (3, 5), from the probabilities: 1[chosen] - p."""
    return [
        [(op == chosen) - p for op, p in enumerate(row)] for row, chosen in zip(policy, digits, strict=True)
    ]


def reinforce(
    valid: Valid, evaluations: int, seed: int = 0, rate: float = 1.0, decay: float = 0.9
) -> list[Seen]:
    """Learn a policy by REINFORCE (Williams 1992): a softmax for each edge, logits (3, 5), first all 0.

    Each evaluation is one sample and one step: logits += rate x (R - b) x grad log p, with the moving
    baseline b of `nasedu.reinforce`. ENAS's controller is an LSTM, so there an edge's choice depends on those
    before it; here edges are independent. Nor is there an entropy bonus, a mean over samples, or Adam.
    """
    rng = random.Random(seed)
    logits = [[0.0] * len(OPS) for _ in EDGES]
    baseline: float | None = None
    history: list[Seen] = []
    for _ in range(evaluations):
        policy = [softmax(row) for row in logits]
        digits = tuple(rng.choices(range(len(OPS)), row)[0] for row in policy)
        history.append(look_up(valid, number_of(digits), rng))
        reward = history[-1].accuracy
        baseline = reward if baseline is None else moving_baseline(baseline, reward, decay)
        for row, slopes in zip(logits, grad_log_p(policy, digits), strict=True):
            row[:] = [a + rate * (reward - baseline) * slope for a, slope in zip(row, slopes, strict=True)]
    return history


# ---- how good are they?


def incumbents(history: Sequence[Seen]) -> list[int]:
    """After each evaluation, the architecture with the best accuracy seen so far (the first, of equals)."""
    best, numbers = history[0], []
    for seen in history:
        best = seen if seen.accuracy > best.accuracy else best
        numbers.append(best.number)
    return numbers


def regret(history: Sequence[Seen], test: Sequence[float]) -> list[float]:
    """After each evaluation, how far the incumbent's mean test accuracy is below the table's best.

    `test` is (125,). It can rise: what looks better in one validation may be worse.
    """
    return [max(test) - test[number] for number in incumbents(history)]


def curves(
    method: Method, table: Table, evaluations: int = 100, seeds: int = 100, **constants: float
) -> Tensor:
    """The regret of a method run with the seeds 0, 1, ...: (seeds, evaluations), as a share of 1."""
    valid, test = table.values("valid_accuracy").tolist(), table.mean("test_accuracy").tolist()
    runs = [regret(method(valid, evaluations, seed, **constants), test) for seed in range(seeds)]
    return torch.tensor(runs, dtype=torch.float64)
