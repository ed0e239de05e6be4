"""Cells to be searched, and the supernet that is a stack of them.

A cell is a small directed acyclic graph of feature maps. It has two inputs, the outputs of the two cells
before it, and `n_nodes` nodes. A node is the sum over its incoming edges; the cell's output is the
concatenation of its nodes (DARTS, arXiv:1806.09055, section 2.1).

The network: a 3x3 convolution as the stem, `n_layers` cells of which the ones at 1/3 and 2/3 halve the map
and double the channels, global average pooling, a linear classifier (section 3.1 and the released code).
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasedu.errors import ArgumentError, check_flag, check_whole, short
from nasedu.space import fast
from nasedu.space.choice import Arch, LayerChoice, check_weights
from nasedu.space.fast_ops import FactorizedReduce
from nasedu.space.genotype import edges
from nasedu.space.ops import PRIMITIVES, Zero, make_op, relu_conv_bn

# What a network may be asked for at most; above it a slip is likelier than a wish, and memory ends.
MOST = {"n_classes": 10**6, "n_layers": 1_000, "n_nodes": 50, "stem_multiplier": 100, "input_size": 10_000}
CHANNELS = 10_000


def check_sizes(least: int = 1, **sizes: int) -> None:
    """Raise ArgumentError unless all are whole numbers, from `least` up to what is sensible."""
    for name, size in sizes.items():
        check_whole(name, size, least, MOST.get(name, CHANNELS))


def check_input_size(input_size: int) -> None:
    """Raise ArgumentError unless images of this height and width can be halved twice."""
    if check_whole("input_size", input_size, 0, MOST["input_size"]) < 8 or input_size % 4:
        raise ArgumentError(
            f"input_size must be a multiple of 4 from 8 up, since it is halved twice, got {input_size}"
        )


def check_ops(ops: Sequence[str]) -> None:
    """Raise ArgumentError unless they are names of operations, each once, and one that is not "none"."""
    if not isinstance(ops, Sequence) or isinstance(ops, str) or not all(isinstance(op, str) for op in ops):
        raise ArgumentError(f"ops is {short(ops)}; wanted names of operations, such as PRIMITIVES")
    if len(set(ops)) < len(ops) or not set(ops) - {"none"}:
        raise ArgumentError(f"ops is {short(ops)}; wanted each once, and one or more besides 'none'")


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
        check_ops(ops)
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
        if not isinstance(choice, LayerChoice):
            raise ArgumentError(f"choice is {short(choice)}; wanted a LayerChoice")
        self.choice, self.k = choice, check_whole("k", k, 1, CHANNELS)
        self.stride = check_whole("stride", stride, 1, 2)

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """(B, C, H, W) -> (B, C, H/stride, W/stride). Raises ArchError where `LayerChoice.forward` does."""
        return self._with_the_rest(self.choice(self._part(x), arch), x, arch)

    def weighted_sum(self, x: Tensor, arch: Arch) -> Tensor | int:
        """As `forward`, but the number 0 for an edge that is not there."""
        return self.rejoin(self.choice.weighted_sum(self._part(x), arch), x, arch)

    def rejoin(self, mixed: Tensor | int, x: Tensor, arch: Arch) -> Tensor | int:
        """The sum over the operations (0: none is run) and the channels of x that passed by, shuffled."""
        if not isinstance(mixed, Tensor):
            weights = self.choice.weights(arch, x)
            if self.k == 1 or all(isinstance(weight, float) and weight == 0.0 for weight in weights):
                return 0
            mixed = torch.zeros_like(self._part(x)[:, :, :: self.stride, :: self.stride])  # "none" was chosen
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
    if channels % check_whole("partial", partial, 1, CHANNELS):
        raise ArgumentError(f"partial={partial} must divide the {channels} channels of an edge")
    edge = MixedEdge(ops, channels // partial, label, row, node, stride, search)
    return edge if partial == 1 else PartialEdge(edge, partial, stride)


def preprocess_of(
    c_prev_prev: int, c_prev: int, channels: int, reduction_prev: bool, affine: bool
) -> nn.ModuleList:
    """Bring both inputs to `channels` channels and one size; they differ after a reduction cell."""
    first = FactorizedReduce if reduction_prev else relu_conv_bn
    return nn.ModuleList([first(c_prev_prev, channels, affine), relu_conv_bn(c_prev, channels, affine)])


class Cell(nn.Module):
    """A cell to be searched: on every edge a `MixedEdge` of all operations, labelled "normal" or "reduce".

    Row e of `arch[label]` weighs the candidates of edge e, in the order of `genotype.edges(n_nodes)`. A row
    of zeros is an edge that is not there, so this one matrix says both which layer and which inputs. `fast`:
    see `CNN`.
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
        fast: bool | None = None,
    ):
        super().__init__()
        check_sizes(c_prev_prev=c_prev_prev, c_prev=c_prev, channels=channels, n_nodes=n_nodes)
        check_ops(ops)
        for name, flag in (("reduction", reduction), ("reduction_prev", reduction_prev)):
            check_flag(name, flag)
        check_flag("fast", fast, or_none=True)
        self.n_nodes, self.partial, self.fast = n_nodes, partial, fast
        self.label = "reduce" if reduction else "normal"
        self.preprocess = preprocess_of(c_prev_prev, c_prev, channels, reduction_prev, affine=False)
        self.zero = Zero(2 if reduction else 1)
        self.edges = nn.ModuleList()
        for row, (source, node) in enumerate(edges(n_nodes)):
            stride = 2 if reduction and source < 2 else 1
            self.edges.append(mixed_edge(ops, channels, self.label, row, node, stride, partial=partial))

    def forward(self, s0: Tensor, s1: Tensor, arch: Arch) -> Tensor:
        """(B, c_prev_prev, ., .), (B, c_prev, H, W) -> (B, n_nodes x channels, H, W); reduction: H/2, W/2."""
        if self.fast is not False and fast.applies(self, s0, s1, arch):
            return fast.forward(self, s0, s1, arch)
        states = [self.preprocess[0](s0), self.preprocess[1](s1)]
        rows = cast(Iterator[MixedEdge | PartialEdge], iter(self.edges))
        for _ in range(self.n_nodes):
            total = sum(next(rows).weighted_sum(state, arch) for state in states)
            # The sum is the number 0 where the node has no edge at all.
            states.append(total if isinstance(total, Tensor) else self.zero(states[0]))
        return torch.cat(states[2:], dim=1)


def stem_of(in_channels: int, c_out: int) -> nn.Sequential:
    """A 3x3 convolution and a batch norm."""
    return nn.Sequential(nn.Conv2d(in_channels, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out))


def stack_of(
    n_layers: int, channels: int, c_stem: int, n_nodes: int, cell: Callable[..., nn.Module]
) -> tuple[nn.ModuleList, list[int]]:
    """The cells, and the number of channels that comes out of each."""
    if check_whole("n_layers", n_layers, 0, MOST["n_layers"]) < 3:
        raise ArgumentError(
            f"a network wants 3 cells or more, two of them reductions, got n_layers={n_layers}"
        )
    c_prev_prev, c_prev, reduction_prev = c_stem, c_stem, False
    cells, widths = nn.ModuleList(), []
    for i in range(n_layers):
        reduction = i in (n_layers // 3, 2 * n_layers // 3)
        if reduction:
            channels *= 2
        cells.append(cell(c_prev_prev, c_prev, channels, reduction, reduction_prev))
        c_prev_prev, c_prev, reduction_prev = c_prev, n_nodes * channels, reduction
        widths.append(c_prev)
    return cells, widths


class CNN(nn.Module):
    """The supernet: every edge of every cell holds all operations, and `arch` says how much of each.

    `CNN(32, 3, 16, 10, 8)`, the search network of DARTS for CIFAR-10, has 1,930,618 weights. `input_size` is
    the images' height and width in pixels, a multiple of 4. `arch` is {"normal": (E, O), "reduce": (E, O)}
    with E edges (14 for 4 nodes) and O operations. With `partial`=K the operations see 1/K of the channels
    (PC-DARTS, see `PartialEdge`). `fast` chooses how cells are computed, not what: True as `space.fast` does,
    False edge by edge, as `Cell.forward` reads; None: fast on a CPU.
    """

    def __init__(
        self,
        input_size: int,
        in_channels: int,
        channels: int,
        n_classes: int,
        n_layers: int,
        n_nodes: int = 4,
        ops: Sequence[str] = PRIMITIVES,
        stem_multiplier: int = 3,
        partial: int = 1,
        fast: bool | None = None,
    ):
        super().__init__()
        check_input_size(input_size)
        check_sizes(
            in_channels=in_channels, channels=channels, n_classes=n_classes, n_nodes=n_nodes,
            stem_multiplier=stem_multiplier,
        )  # fmt: skip
        check_ops(ops)
        self.input_size, self.in_channels = input_size, in_channels
        self.n_nodes, self.ops, self.n_edges = n_nodes, tuple(ops), len(edges(n_nodes))
        self.stem = stem_of(in_channels, stem_multiplier * channels)

        cell = functools.partial(Cell, n_nodes=n_nodes, ops=ops, partial=partial, fast=fast)
        self.cells, widths = stack_of(n_layers, channels, stem_multiplier * channels, n_nodes, cell)
        self.classifier = nn.Linear(widths[-1], n_classes)

    def choices(self) -> dict[str, tuple[int, int]]:
        """{"normal": (E, O), "reduce": (E, O)}: the shapes of the matrices that `forward` takes."""
        return dict.fromkeys(("normal", "reduce"), (self.n_edges, len(self.ops)))

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """(B, in_channels, input_size, input_size) and an architecture -> logits (B, n_classes)."""
        check_images(x, self.stem, self.input_size)
        check_weights(self.choices(), arch, x)
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, arch)
        return self.classifier(s1.mean(dim=(2, 3)))


def check_images(x: Tensor, stem: nn.Sequential, size: int | None = None) -> None:
    """Raise ArgumentError unless x is (B, C, size, size) of the stem's C channels, type and device.

    Without `size` any will do.
    """
    weight = cast(nn.Conv2d, stem[0]).weight
    if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != weight.shape[1] or not len(x):
        raise ArgumentError(f"wanted images of shape (B, {weight.shape[1]}, H, W), got {short(x)}")
    if size is not None and tuple(x.shape[2:]) != (size, size):
        raise ArgumentError(f"wanted images of shape (B, {x.shape[1]}, {size}, {size}), got {short(x)}")
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ArgumentError(
            f"the images are of {x.dtype}, the model of {weight.dtype}; use x.to({weight.dtype}), or "
            f"model.to({x.dtype if x.is_floating_point() else torch.float32})"
        )
    if x.device != weight.device:
        raise ArgumentError(f"the images are on {x.device}, the model on {weight.device}; use x.to(...)")
