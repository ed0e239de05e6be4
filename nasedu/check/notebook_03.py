"""Checks of notebook 03: agreement of two rankings, and who trains and carries which weights."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nasedu.check.contract import Cases, exercise
from nasedu.space.cells import CNN
from nasedu.space.choice import random_arch
from nasedu.space.network import n_parameters


@exercise("Kendall's tau", hint="(concordant - discordant) / sqrt(pairs untied in a * pairs untied in b)")
def kendall_tau(answer: Callable[[Sequence[float], Sequence[float]], float]) -> Cases:
    """Check exercise 03.2: `answer(a, b)` is Kendall's tau-b of two lists of numbers."""
    yield "the same order gives 1", answer([1.0, 2.0, 5.0, 9.0], [3.0, 4.0, 5.0, 6.0]), 1.0
    yield "the reverse gives -1", answer([1.0, 2.0, 5.0], [6.0, 5.0, 4.0]), -1.0
    yield "one of six pairs in another order", answer([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 3.0, 4.0]), 2 / 3
    yield "the same tie in both lists does no harm", answer([1.0, 1.0, 2.0], [3.0, 3.0, 4.0]), 1.0
    yield "a tie in one list only", answer([1.0, 1.0, 2.0], [3.0, 4.0, 5.0]), 2 / 6**0.5


@exercise("expected updates", hint="steps * P(the edge is one of two out of k) * P(it has this operation)")
def expected_updates(answer: Callable[[int, int, int], float]) -> Cases:
    """Check exercise 03.3: `answer(steps, k, n_ops)` is how often uniform draws train one operation."""
    yield "two inputs, one operation: every step", answer(100, 2, 1), 100.0
    yield "two inputs, three operations: a third", answer(90, 2, 3), 30.0
    yield "three inputs, three operations: two ninths", answer(90, 3, 3), 20.0
    yield "the last node of a DARTS cell, 50 epochs of 390 steps", answer(19_500, 5, 7), 19_500 * 2 / 35


@exercise("the size of a child", hint="what lies outside the LayerChoices, and what is chosen inside")
def child_size(answer: Callable[[Any, dict[str, Tensor]], int]) -> Cases:
    """Check exercise 03.1: `answer(model, arch)` counts the weights that take part in a child."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CNN(8, 3, 2, 4, 3, n_nodes=2)
        x = torch.randn(4, 3, 8, 8)
    before = copy.deepcopy(model.state_dict())
    every = {label: torch.ones(shape) for label, shape in model.choices().items()}
    yield "a child with all of them", answer(model, every), n_parameters(model)
    for seed in range(2):
        arch = random_arch(model, torch.Generator().manual_seed(seed))
        yield (
            f"the weights with a gradient, random child {seed}",
            answer(model, arch),
            _trained(model, x, arch),
        )
    after = model.state_dict()
    yield "what it changed", [name for name in after if not torch.equal(after[name], before[name])], []


def _trained(model: CNN, x: Tensor, arch: dict[str, Tensor]) -> int:
    # The definition itself: a weight takes part if a backward pass reaches it.
    twin = copy.deepcopy(model)
    twin.zero_grad()
    twin(x, arch).sum().backward()
    return sum(p.numel() for p in twin.parameters() if p.grad is not None)
