"""Checks of notebook 12: what a step in alpha costs, when to stop, and cells with few skip connections."""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

from nasedu.check.contract import Cases, exercise
from nasedu.space.small import OPS


@exercise("the price of a step", hint="g with create_graph=True; H step is the gradient of (g * step).sum()")
def price_of_a_step(answer: Callable) -> Cases:
    """Check exercise 12.1: `answer(loss, alpha, step)` is g . step + 1/2 step . H step at alpha."""
    ones = torch.ones(2, dtype=torch.float64)
    yield "a parabola at its bottom", answer(lambda a: 4 * (a**2).sum(), 0 * ones, ones), 8.0
    yield "a parabola, up the slope", answer(lambda a: (a**2).sum(), ones, 2 * ones), 16.0
    generator = torch.Generator().manual_seed(0)
    alpha, step = (torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    mix = torch.randn(15, 15, generator=generator, dtype=torch.float64)

    def bent(a: Tensor) -> Tensor:
        return (mix @ a.softmax(dim=1).flatten()).pow(2).sum()

    slope = torch.func.grad(bent)(alpha).flatten() @ step.flatten()
    bend = step.flatten() @ torch.func.jacrev(torch.func.grad(bent))(alpha).reshape(15, 15) @ step.flatten()
    yield "through a softmax, (3, 5)", answer(bent, alpha, step), (slope + bend / 2).item()
    yield "a step twice as long", answer(bent, alpha, 2 * step), (2 * slope + 2 * bend).item()
    yield "alpha is left as it was", alpha.requires_grad, False


def _patience(eigenvalues: Sequence[float], factor: float, patience: int) -> int:
    smallest, epoch_of_it, above = float("inf"), 0, 0
    for epoch, value in enumerate(eigenvalues, start=1):
        above = above + 1 if value > factor * smallest else 0
        if above == patience:
            return epoch_of_it
        if value < smallest:
            smallest, epoch_of_it = value, epoch
    return len(eigenvalues)


@exercise("patience", hint="a counter, set to zero by each epoch that isn't above; epochs count from 1")
def patience(answer: Callable) -> Cases:
    """Check exercise 12.2: `answer(eigenvalues, factor, patience)` is the epoch to take."""
    yield "three epochs in a row", answer([1.0, 3.0, 3.0, 3.0, 3.0], 2.0, 3), 1
    yield "the smallest is not the first", answer([4.0, 1.0, 3.0, 3.0, 3.0], 2.0, 2), 2
    yield "twice is not three times: the last epoch", answer([1.0, 3.0, 3.0], 2.0, 3), 3
    yield "just at the factor is not above it", answer([1.0, 2.0, 2.0, 2.0], 2.0, 3), 4
    yield "a low epoch starts the count again", answer([1.0, 3.0, 3.0, 1.5, 3.0, 3.0], 2.0, 3), 6
    yield "the first time counts", answer([2.0, 5.0, 5.0, 1.0, 1.0, 9.0, 9.0], 2.0, 2), 1
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        walk = (1 + torch.randn(30, generator=generator).abs()).tolist()
        yield f"random numbers, {number}", answer(walk, 1.5, 2 + number), _patience(walk, 1.5, 2 + number)


def _limited(matrix: Tensor, most: int) -> list[str]:
    """Try every choice: the one with the largest sum of weights, of those with few enough skips."""
    few = [names for names in product(OPS, repeat=len(matrix)) if names.count("skip_connect") <= most]
    weight = {name: matrix[:, column].tolist() for column, name in enumerate(OPS)}
    return list(max(few, key=lambda names: sum(weight[name][row] for row, name in enumerate(names))))


@exercise("at most so many skips", hint="keep the skips whose lead over their row's second best is largest")
def limited_skips(answer: Callable) -> Cases:
    """Check exercise 12.3: `answer(matrix, most)` names the operations, with at most `most` skips."""
    rows = torch.tensor(
        [[0.1, 0.45, 0.1, 0.25, 0.1], [0.0, 0.5, 0.05, 0.1, 0.35], [0.0, 0.48, 0.4, 0.07, 0.05]]
    )
    for most, what in (
        (3, "three are allowed"),
        (2, "two: the third row's skip leads least"),
        (1, "one: the first row's leads most, though its weight is the smallest"),
        (0, "none at all"),
    ):
        yield what, list(answer(rows.clone(), most)), _limited(rows, most)
    generator = torch.Generator().manual_seed(0)
    for number in range(4):
        logits = torch.randn(4, 5, generator=generator)
        logits[:, 1] += 1.0
        matrix = logits.softmax(dim=1)
        wanted = _limited(matrix, number % 3)
        yield f"random weights, at most {number % 3}", list(answer(matrix.clone(), number % 3)), wanted
