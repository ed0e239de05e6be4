"""Checks of notebook 00: read a cell off its matrix, compute a node, draw a deep cell."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from nasedu.check.contract import Cases, exercise
from nasedu.space.genotype import PUBLISHED, Genotype
from nasedu.space.ops import PRIMITIVES, make_op

Pair = tuple[str, int]


def _sorted(node: Sequence[Pair]) -> list[Pair]:
    # The order of a node's two terms means nothing.
    return sorted(((op, source) for op, source in node), key=lambda pair: (pair[1], pair[0]))


@exercise("read a cell off its matrix", hint="a row is an edge input→node, the column of its 1 the operation")
def read_nodes(node_4: Sequence[Pair], node_5: Sequence[Pair]) -> Cases:
    """Check exercise 00.2: nodes 4 and 5 of the PC-DARTS normal cell, two (operation, input) pairs each."""
    normal = PUBLISHED["PC_DARTS"].normal
    yield "node 4", _sorted(node_4), _sorted(normal[2])
    yield "node 5", _sorted(node_5), _sorted(normal[3])


# A stand-in for each operation: it multiplies, so that a sum tells which operation saw which state.
FACTORS = dict(zip(PRIMITIVES, (0, 2, 3, 1, 5, 7, 11, 13), strict=True))


@exercise(
    "compute a node", hint='two terms: ops["skip_connect"](states[0]) and ops["sep_conv_3x3"](states[1])'
)
def node_three(node_3: Callable) -> Cases:
    """Check exercise 00.1: `node_3(states, ops)` is skip_connect(x_0) + sep_conv_3x3(x_1)."""
    stand_ins = {name: partial(torch.mul, other=factor) for name, factor in FACTORS.items()}
    what = "factors of x_0, x_1, x_2 where skip_connect gives 1 x and sep_conv_3x3 gives 5 x"
    yield what, node_3(list(torch.eye(3)), stand_ins), torch.tensor([1.0, 5.0, 0.0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ops = {name: make_op(name, channels=4) for name in PRIMITIVES}
        states = list(torch.randn(3, 2, 4, 8, 8))
    yield "on feature maps", node_3(states, ops), states[0] + ops["sep_conv_3x3"](states[1])


@exercise("draw the deepest cell", hint="node 3 takes an input 2, node 4 an input 3, node 5 an input 4")
def deep_cell(normal: Sequence[Sequence[Pair]]) -> Cases:
    """Check exercise 00.3: four nodes, node 2 takes both inputs, every other node takes the one before it.

    Raises GenotypeError, which says what is wrong, where it is no cell at all.
    """
    nodes = Genotype(tuple(normal), tuple(normal)).normal  # type: ignore[arg-type]
    yield "number of nodes", len(nodes), 4
    known = set(PRIMITIVES) - {"none"}
    yield "names that are no operation", sorted({op for node in nodes for op, _ in node} - known), []
    yield "inputs of node 2", [source for _, source in nodes[0]], [0, 1]
    for node, pairs in enumerate(nodes[1:], start=3):
        yield f"node {node} takes node {node - 1}", node - 1 in [source for _, source in pairs], True
    path = [
        op for node, pairs in enumerate(nodes, 2) for op, source in pairs if node == 2 or source == node - 1
    ]
    yield "a convolution on a path of four operations", any("conv" in op for op in path), True
