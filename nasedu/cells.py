"""Cells: a small directed acyclic graph of feature maps, stacked to make a network.

A cell has two inputs, the outputs of the two cells before it, and `n_nodes` nodes. A node is the sum over its
incoming edges; the cell's output is the concatenation of its nodes (DARTS, arXiv:1806.09055, section 2.1).
"""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from nasedu.choice import Arch, LayerChoice
from nasedu.genotype import Genotype, edges
from nasedu.ops import PRIMITIVES, FactorizedReduce, Zero, make_op, relu_conv_bn
from nasedu.partial import PartialEdge, mixed_edge


def _preprocess(
    c_prev_prev: int, c_prev: int, channels: int, reduction_prev: bool, affine: bool
) -> nn.ModuleList:
    """Bring both inputs to `channels` channels and one size; they differ after a reduction cell."""
    first = FactorizedReduce if reduction_prev else relu_conv_bn
    return nn.ModuleList([first(c_prev_prev, channels, affine), relu_conv_bn(c_prev, channels, affine)])


class Cell(nn.Module):
    """A cell to be searched: on every edge a `LayerChoice` of all operations, labelled "normal" or "reduce".

    Row e of `arch[label]` weighs the candidates of edge e, in the order of `genotype.edges(n_nodes)`. A row
    of zeros is an edge that is not there, so this one matrix says both which layer and which inputs.
    """

    def __init__(
        self,
        c_prev_prev: int,
        c_prev: int,
        channels: int,
        reduction: bool,
        reduction_prev: bool,
        n_nodes: int = 4,
        ops: Sequence[str] = PRIMITIVES,
        partial: int = 1,
    ):
        super().__init__()
        self.n_nodes = n_nodes
        self.label = "reduce" if reduction else "normal"
        self.preprocess = _preprocess(c_prev_prev, c_prev, channels, reduction_prev, affine=False)
        self.zero = Zero(2 if reduction else 1)
        self.edges = nn.ModuleList()
        for row, (source, node) in enumerate(edges(n_nodes)):
            stride = 2 if reduction and source < 2 else 1
            self.edges.append(mixed_edge(ops, channels, self.label, row, node, stride, partial=partial))

    def forward(self, s0: Tensor, s1: Tensor, arch: Arch) -> Tensor:
        """(B, c_prev_prev, ., .), (B, c_prev, H, W) -> (B, n_nodes x channels, H, W); reduction: H/2, W/2."""
        states = [self.preprocess[0](s0), self.preprocess[1](s1)]
        rows = cast(Iterator[LayerChoice | PartialEdge], iter(self.edges))
        for _ in range(self.n_nodes):
            total = sum(next(rows).weighted_sum(state, arch) for state in states)
            # The sum is the number 0 where the node has no edge at all.
            states.append(total if isinstance(total, Tensor) else self.zero(states[0]))
        return torch.cat(states[2:], dim=1)


class DerivedCell(nn.Module):
    """A cell of fixed operations, two for each node, with affine batch norms; to be trained from scratch."""

    def __init__(
        self,
        genotype: Genotype,
        c_prev_prev: int,
        c_prev: int,
        channels: int,
        reduction: bool,
        reduction_prev: bool,
    ):
        super().__init__()
        self.preprocess = _preprocess(c_prev_prev, c_prev, channels, reduction_prev, affine=True)
        self.nodes = genotype.reduce if reduction else genotype.normal
        self.ops = nn.ModuleList(
            make_op(op, channels, 2 if reduction and source < 2 else 1, search=False)
            for pairs in self.nodes
            for op, source in pairs
        )

    def forward(self, s0: Tensor, s1: Tensor, drop_path: float = 0.0) -> Tensor:
        """As `Cell.forward`; in training paths, but no identity, are dropped with probability `drop_path`."""
        states, ops = [self.preprocess[0](s0), self.preprocess[1](s1)], iter(self.ops)
        for pairs in self.nodes:
            paths = []
            for (_, source), op in zip(pairs, ops, strict=False):
                path = op(states[source])
                if self.training and drop_path > 0.0 and not isinstance(op, nn.Identity):
                    path = drop(path, drop_path)
                paths.append(path)
            states.append(paths[0] + paths[1])
        return torch.cat(states[2:], dim=1)


def drop(x: Tensor, probability: float) -> Tensor:
    """Drop path: zero each image of (B, C, H, W) with `probability`, and scale the rest to keep the mean.

    Larsson, Maire, Shakhnarovich 2017 (FractalNet, arXiv:1605.07648), in the form DARTS uses.
    """
    if not 0.0 <= probability < 1.0:
        raise ValueError(f"drop path wants a probability from 0 up to, not including, 1, got {probability}")
    keep = 1.0 - probability
    mask = torch.empty(x.shape[0], 1, 1, 1, device=x.device, dtype=x.dtype).bernoulli_(keep)
    return x * mask / keep
