"""Checks of notebook 05: the row of an edge, the cell's loop, the weights of an operation, a derived cell."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch

from nasedu.check.contract import Cases, exercise
from nasedu.space.cells import Cell, MixedEdge
from nasedu.space.genotype import PUBLISHED, Genotype, edges
from nasedu.space.network import DerivedCell, n_parameters
from nasedu.space.ops import PRIMITIVES, make_op


@exercise("the row of an edge", hint="the nodes before node j have 2 + 3 + ... + (j - 1) edges together")
def edge_row(answer: Callable) -> Cases:
    """Check exercise 05.1: `answer(source, node)` is the row of that edge in the matrix."""
    yield "the first edge, 0→2", answer(0, 2), 0
    yield "the last edge, 4→5", answer(4, 5), 13
    yield "all 14 edges of a cell of 4 nodes", [answer(*edge) for edge in edges(4)], list(range(14))
    yield "all 44 edges of a cell of 8 nodes", [answer(*edge) for edge in edges(8)], list(range(44))


@exercise("the cell's loop", hint="one row for each state in the list; then the list grows by the node")
def cell_loop(answer: Callable) -> Cases:
    """Check exercise 05.2: `answer(s0, s1, matrix, ops_of)` is the output of a cell of four nodes."""
    one = torch.ones(1, 1, 1, 1)
    keep, drop = [torch.clone, torch.zeros_like], torch.tensor([[1.0, 0.0]])
    got = answer(one, 10 * one, drop.repeat(14, 1), [keep] * 14)
    # every node adds all states before it: 1 + 10, then twice as much each time
    yield "inputs 1 and 10, every edge keeps its input", got.flatten(), torch.tensor([11.0, 22, 44, 88])
    numbered = torch.arange(1.0, 15.0)[:, None] * drop  # row k has weight k + 1
    states = [1.0, 10.0]
    for rows in ((1, 2), (3, 4, 5), (6, 7, 8, 9), (10, 11, 12, 13, 14)):
        states.append(sum(weight * state for weight, state in zip(rows, states, strict=True)))
    got = answer(one, 10 * one, numbered, [keep] * 14)
    yield "each edge takes the row of its own", got.flatten(), torch.tensor(states[2:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cell = Cell(8, 8, 2, reduction=False, reduction_prev=False)
        a, b = torch.randn(2, 2, 8, 6, 6)
        matrix = torch.randn(14, 8).softmax(dim=1)
    ops_of = [list(cast(MixedEdge, edge).layers.values()) for edge in cell.edges]
    got = answer(cell.preprocess[0](a), cell.preprocess[1](b), matrix, ops_of)
    yield "the same as the package's Cell, on feature maps", got, cell(a, b, {"normal": matrix})


@exercise(
    "count the weights",
    hint="k x k filters, one a channel: k*k*C; a 1x1 convolution: C*C; a separable convolution: both, twice",
)
def operation_weights(answer: Callable) -> Cases:
    """Check exercise 05.3: `answer(name, channels, stride)` is the number of weights of that operation."""
    for channels, stride in ((16, 1), (16, 2), (36, 1)):
        for name in PRIMITIVES:
            what = f"{name}, {channels} channels, stride {stride}"
            yield what, answer(name, channels, stride), n_parameters(make_op(name, channels, stride))


# Multipliers in place of operations: the sums tell which operation saw which state.
FACTORS = (2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0)


def _sums(genotype: Genotype) -> list[float]:
    """The nodes of a normal cell in numbers, for inputs 1 and 10 and operations that multiply by FACTORS."""
    states, factors = [1.0, 10.0], iter(FACTORS)
    for pairs in genotype.normal:
        states.append(sum(next(factors) * states[source] for _, source in pairs))
    return states[2:]


@exercise("a derived cell", hint="one list of states; for each node append the sum of its two terms")
def derived_forward(answer: Callable) -> Cases:
    """Check exercise 05.4: `answer(s0, s1, nodes, ops)` is the output of a cell with these pairs."""
    multipliers = [partial(torch.mul, other=factor) for factor in FACTORS]
    one = torch.ones(1, 1, 1, 1)
    for name in ("DARTS_V2", "DARTS_V1"):
        genotype = PUBLISHED[name]
        got = answer(one, 10 * one, genotype.normal, multipliers)
        what = f"{name}, inputs 1 and 10, operations that multiply by 2, 3, 5, 7, ..."
        yield what, got, torch.tensor(_sums(genotype)).reshape(1, 4, 1, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cell = DerivedCell(PUBLISHED["PC_DARTS"], 8, 8, 8, reduction=True, reduction_prev=False)
        s0, s1 = torch.randn(2, 2, 8, 8, 8)
    inputs = cell.preprocess[0](s0), cell.preprocess[1](s1)
    got = answer(*inputs, cell.nodes, list(cell.ops))
    yield "the reduction cell of PC-DARTS, on feature maps", got, cell(s0, s1)
