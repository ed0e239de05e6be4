"""Checks of notebook 07: derive a node, write a genotype's matrix, measure a margin and the gap."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from nasedu.check.contract import Cases, exercise
from nasedu.space.genotype import PUBLISHED, Genotype
from nasedu.space.ops import PRIMITIVES

SEP3, SEP5, SKIP, MAX = (
    PRIMITIVES.index(name) for name in ("sep_conv_3x3", "sep_conv_5x5", "skip_connect", "max_pool_3x3")
)


def _rows(*weights: Mapping[int, float]) -> Tensor:
    """Rows of weights (len(weights), 8): what is given, and 0.01 elsewhere."""
    matrix = torch.full((len(weights), len(PRIMITIVES)), 0.01)
    for row, given in zip(matrix, weights, strict=True):
        for column, weight in given.items():
            row[column] = weight
    return matrix


def _by_input(pairs: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted(((op, int(source)) for op, source in pairs), key=lambda pair: (pair[1], pair[0]))


def _derived(rows: Tensor) -> list[tuple[str, int]]:
    """The last node of a cell whose last rows are these."""
    n_nodes = len(rows) - 1
    before = torch.full((n_nodes * (n_nodes + 3) // 2 - len(rows), len(PRIMITIVES)), 0.1)
    matrix = torch.cat([before, rows])
    return list(Genotype.derive({"normal": matrix, "reduce": matrix}).normal[-1])


@exercise(
    "derive a node",
    hint='column 0 is "none" and has no vote; an edge is as strong as the largest of the other seven',
)
def derive_node(answer: Callable) -> Cases:
    """Check exercise 07.1: `answer(rows)` is the two (operation, input) pairs that the DARTS rule keeps."""
    rows = _rows({SEP3: 0.5}, {SKIP: 0.2}, {MAX: 0.4})
    yield "three edges, plain to see", _by_input(answer(rows)), [("sep_conv_3x3", 0), ("max_pool_3x3", 2)]
    rows = _rows({0: 0.9, SKIP: 0.02}, {0: 0.1, SEP5: 0.3}, {0: 0.5, MAX: 0.2})
    wanted = [("sep_conv_5x5", 1), ("max_pool_3x3", 2)]
    yield 'where "none" is the strongest of all', _by_input(answer(rows)), wanted
    rows = _rows({SEP3: 0.4, SEP5: 0.39}, {SKIP: 0.2}, {SKIP: 0.1})
    wanted = [("sep_conv_3x3", 0), ("skip_connect", 1)]
    yield "two inputs, not twice the best", _by_input(answer(rows)), wanted
    generator = torch.Generator().manual_seed(0)
    for edges in (2, 3, 4, 5):
        rows = torch.randn(edges, len(PRIMITIVES), generator=generator).softmax(dim=1)
        yield f"{edges} edges with random weights", _by_input(answer(rows)), _derived(rows)


@exercise("from genotype to matrix", hint="the row is that of the edge (input, node); count the pairs: += 1")
def genotype_matrix(answer: Callable) -> Cases:
    """Check exercise 07.2: `answer(nodes)` is the (14, 8) matrix of a cell's (op, input) pairs."""
    for name in ("DARTS_V2", "PC_DARTS"):
        genotype = PUBLISHED[name]
        yield f"{name}, normal cell", answer(genotype.normal), genotype.arch()["normal"]
        yield f"{name}, reduction cell", answer(genotype.reduce), genotype.arch()["reduce"]
    twice = (("sep_conv_3x3", 1), ("sep_conv_3x3", 1))
    nodes = (twice, *PUBLISHED["DARTS_V1"].normal[1:])
    expected = Genotype(nodes, nodes).arch()["normal"]
    yield "a node that takes one pair twice, as ENAS may: a 2", answer(nodes), expected


@exercise(
    "the margin of a node",
    hint="for both kept edges: best minus second best operation; and second minus third strongest edge",
)
def node_margin(answer: Callable) -> Cases:
    """Check exercise 07.4: `answer(rows)` is the smallest lead among the decisions at a node."""
    rows = _rows({SEP3: 0.5, SKIP: 0.3}, {MAX: 0.4, SKIP: 0.25})
    yield "two edges: only operations compete", answer(rows), 0.15
    rows = _rows({SEP3: 0.5, SKIP: 0.3}, {MAX: 0.4, SKIP: 0.2}, {SEP5: 0.37, SKIP: 0.36})
    yield "the third edge comes close", answer(rows), 0.03
    rows = _rows({0: 0.45, SEP3: 0.5}, {0: 0.39, MAX: 0.4}, {SEP5: 0.2})
    yield '"none" is no rival', answer(rows), 0.2
    rows = _rows({SEP3: 0.1}, {MAX: 0.4, SKIP: 0.38}, {SEP5: 0.3, SKIP: 0.1})
    yield "the kept edges need not be the first two", answer(rows), 0.02


@exercise(
    "the discretisation gap", hint="the same model twice: with `arch`, and with Genotype.derive(arch).arch()"
)
def gap(answer: Callable) -> Cases:
    """Check exercise 07.3: `answer(model, arch, x, y)`: accuracy with `arch`, minus that when cut."""
    generator = torch.Generator().manual_seed(0)
    arch = {label: torch.randn(14, 8, generator=generator).softmax(dim=1) for label in ("normal", "reduce")}
    cut = Genotype.derive(arch).arch()
    y = torch.arange(8) % 4

    def stand_in(hits: int, hits_when_cut: int) -> Callable:
        # A model that is right on so many of the 8 images, and on none with any other architecture.
        def model(x: Tensor, given: Mapping[str, Tensor]) -> Tensor:
            def same(other: Mapping[str, Tensor]) -> bool:
                return all(torch.equal(given[label].float(), other[label]) for label in other)

            right = hits if same(arch) else hits_when_cut if same(cut) else 0
            said = torch.where(torch.arange(8) < right, y, (y + 1) % 4)
            return torch.nn.functional.one_hot(said, 4).float()

        return model

    x = torch.zeros(8, 3, 8, 8)
    yield "6 of 8 images right, and 2 of 8 when cut", answer(stand_in(6, 2), arch, x, y), 0.5
    yield "the same when cut: no gap", answer(stand_in(5, 5), arch, x, y), 0.0
    yield "better when cut: a negative gap", answer(stand_in(3, 7), arch, x, y), -0.5
