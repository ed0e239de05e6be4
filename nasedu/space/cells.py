"""Cells: a small directed acyclic graph of feature maps, stacked to make a network.

A cell has two inputs, the outputs of the two cells before it, and `n_nodes` nodes. A node is the sum over its
incoming edges; the cell's output is the concatenation of its nodes (DARTS, arXiv:1806.09055, section 2.1).
"""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasedu.space.choice import Arch, LayerChoice
from nasedu.space.genotype import Genotype, edges
from nasedu.space.ops import PRIMITIVES, FactorizedReduce, Zero, make_op, relu_conv_bn


class MixedEdge(LayerChoice):
    """An edge that holds all operations: their sum, each times its weight in row `row` of `arch[label]`.

    `ops` are names of operations (see `make_op`), on `channels` channels. `node` is the node that the edge
    goes into; None: the edge stands alone. DARTS, arXiv:1806.09055, eq. 2.
    """

    def __init__(
        self,
        ops: Sequence[str],
        channels: int,
        label: str,
        row: int = 0,
        node: int | None = None,
        stride: int = 1,
        search: bool = True,
    ):
        super().__init__({name: make_op(name, channels, stride, search) for name in ops}, label, row, node)


class PartialEdge(nn.Module):
    """Partial channels (PC-DARTS): C/K channels go through the `LayerChoice`, the others pass by.

    Then channels are shuffled, so that the next edge sees others.

    `choice` is built for C/K channels. At stride 2 those that pass by are halved by a 2x2 maximum. They are
    multiplied by the sum of the edge's row: 1 for a softmax, the edge's share with edge normalisation
    (eq. 3), 0 for an edge that is not there. `k=1` computes what the `LayerChoice` alone does.

    Xu, Xie, Zhang, Chen, Qi, Tian, Xiong, ICLR 2020, arXiv:1907.05737, section 3.2. Fewer channels through
    the operations mean less time and memory, and less of an advantage for operations without weights, which
    learn nothing and so are good from the first step on.
    """

    def __init__(self, choice: LayerChoice, k: int, stride: int = 1):
        super().__init__()
        self.choice, self.k, self.stride = choice, k, stride

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """(B, C, H, W) -> (B, C, H/stride, W/stride). Raises ArchError where `LayerChoice.forward` does."""
        return self._with_the_rest(self.choice(self._part(x), arch), x, arch)

    def weighted_sum(self, x: Tensor, arch: Arch) -> Tensor | int:
        """As `forward`, but the number 0 for an edge that is not there."""
        part = self._part(x)
        mixed = self.choice.weighted_sum(part, arch)
        weights = self.choice.weights(arch)
        if not isinstance(mixed, Tensor):
            if self.k == 1 or all(isinstance(weight, float) and weight == 0.0 for weight in weights):
                return 0
            mixed = torch.zeros_like(part[:, :, :: self.stride, :: self.stride])  # "none" was chosen
        return self._with_the_rest(mixed, x, arch)

    def _part(self, x: Tensor) -> Tensor:
        # For k=1 not a slice of x, but x itself, on which `fast_ops.once` remembers what its edges share.
        return x if self.k == 1 else x[:, : x.shape[1] // self.k]

    def _with_the_rest(self, mixed: Tensor, x: Tensor, arch: Arch) -> Tensor:
        if self.k == 1:
            return mixed
        rest = x[:, x.shape[1] // self.k :]
        if self.stride == 2:
            rest = F.max_pool2d(rest, 2)
        # Of the row itself, not of `weights`: a one-hot row (`Sampled`) has a sum without a gradient.
        whole = arch[self.choice.label][self.choice.row].sum()
        return shuffled(torch.cat([mixed, whole * rest], dim=1), self.k)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """(B, C, H, W): channel i of group g becomes channel i x groups + g: the next edge sees others."""
    b, c, h, w = x.shape
    return x.reshape(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w) if groups > 1 else x


def mixed_edge(
    ops: Sequence[str],
    channels: int,
    label: str,
    row: int,
    node: int | None = None,
    stride: int = 1,
    search: bool = True,
    partial: int = 1,
) -> MixedEdge | PartialEdge:
    """A `MixedEdge` of these operations by name, on `channels`/`partial` of the channels (1: all)."""
    if partial < 1 or channels % partial:
        raise ValueError(f"partial={partial} must divide the {channels} channels of an edge")
    edge = MixedEdge(ops, channels // partial, label, row, node, stride, search)
    return edge if partial == 1 else PartialEdge(edge, partial, stride)


def _preprocess(
    c_prev_prev: int, c_prev: int, channels: int, reduction_prev: bool, affine: bool
) -> nn.ModuleList:
    """Bring both inputs to `channels` channels and one size; they differ after a reduction cell."""
    first = FactorizedReduce if reduction_prev else relu_conv_bn
    return nn.ModuleList([first(c_prev_prev, channels, affine), relu_conv_bn(c_prev, channels, affine)])


class Cell(nn.Module):
    """A cell to be searched: on every edge a `MixedEdge` of all operations, labelled "normal" or "reduce".

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
        rows = cast(Iterator[MixedEdge | PartialEdge], iter(self.edges))
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
