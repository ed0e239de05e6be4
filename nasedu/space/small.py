"""A space small enough to know all of it: one cell of three edges, five operations, 125 architectures.

It is NAS-Bench-201 (Dong, Yang, ICLR 2020, arXiv:2001.00326) with three nodes in place of four: node 1 is
computed from the input 0, node 2, the output, from both.

    edge    0->1  0->2  1->2          the rows of arch["cell"], a (3, 5) matrix
    ops     none, skip_connect, conv_1x1, conv_3x3, avg_pool_3x3

`SmallCNN` is the supernet for a search and, given a matrix of zeros and ones, the network of one
architecture: the same code finds and judges.
"""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn

from nasedu.errors import short
from nasedu.space.cells import check_images, check_sizes, mixed_edge
from nasedu.space.choice import Arch, ArchError, LayerChoice, check_shapes, check_weights

OPS = ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2))
Names = tuple[str, ...]


def architectures() -> list[Names]:
    """All 125, each as the names of its operations on the edges 0->1, 0->2, 1->2, in the order of OPS."""
    return list(product(OPS, repeat=len(EDGES)))


def matrix(names: Sequence[str]) -> dict[str, Tensor]:
    """The architecture with these operations as {"cell": zeros and ones (3, 5)}. ArchError if it is none."""
    if not isinstance(names, Sequence) or len(names) != len(EDGES) or not all(n in OPS for n in names):
        raise ArchError(f"wanted {len(EDGES)} of the operations {', '.join(OPS)}, got {short(names)}")
    rows = torch.zeros(len(EDGES), len(OPS))
    for row, name in zip(rows, names, strict=True):
        row[OPS.index(name)] = 1.0
    return {"cell": rows}


def names_of(arch: Arch) -> Names:
    """The strongest operation of each edge, as `architectures` writes it."""
    check_shapes({"cell": (len(EDGES), len(OPS))}, arch)
    return tuple(OPS[column] for column in arch["cell"].argmax(dim=1).tolist())


class SmallCell(nn.Module):
    """Node 1 is edge(0->1) of the input; node 2, the output, is edge(0->2) of it plus edge(1->2) of 1."""

    def __init__(self, channels: int, search: bool, partial: int = 1):
        super().__init__()
        self.edges = nn.ModuleList(
            mixed_edge(OPS, channels, "cell", row, search=search, partial=partial)
            for row in range(len(EDGES))
        )

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        into_1, skip_1, out_of_1 = self.edges
        return skip_1(x, arch) + out_of_1(into_1(x, arch), arch)


class SmallCNN(nn.Module):
    """Stem, cell, reduction, cell, reduction, cell, classifier; `channels` double at each reduction.

    A reduction is ReLU, 3x3 convolution of stride 2, batch norm. `search` chooses the operations' form, see
    `ops.make_op`: True for a supernet, False for one architecture trained alone. `partial` = K lets the
    operations see 1/K of the channels (PC-DARTS, see `PartialEdge`).
    """

    def __init__(
        self,
        channels: int = 16,
        n_classes: int = 10,
        in_channels: int = 3,
        search: bool = True,
        partial: int = 1,
    ):
        super().__init__()
        check_sizes(channels=channels, n_classes=n_classes, in_channels=in_channels)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.cells = nn.ModuleList(SmallCell(channels * 2**i, search, partial) for i in range(3))
        self.reductions = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(channels * 2**i, channels * 2 ** (i + 1), 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(channels * 2 ** (i + 1)),
            )
            for i in range(2)
        )
        self.last = nn.Sequential(nn.BatchNorm2d(4 * channels), nn.ReLU())
        self.classifier = nn.Linear(4 * channels, n_classes)

    def choices(self) -> dict[str, tuple[int, int]]:
        """{"cell": (3, 5)}: the shape of the matrix that `forward` takes."""
        return {"cell": (len(EDGES), len(OPS))}

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """(B, in_channels, H, W), any size from 4x4 up, and an architecture -> logits (B, n_classes)."""
        check_images(x, self.stem)
        check_weights(self.choices(), arch, x)
        x = self.cells[0](self.stem(x), arch)
        for reduction, cell in zip(self.reductions, self.cells[1:], strict=True):
            x = cell(reduction(x), arch)
        return self.classifier(self.last(x).mean(dim=(2, 3)))


def parameters_of(names: Sequence[str], channels: int = 16, n_classes: int = 10, in_channels: int = 3) -> int:
    """The number of weights that one architecture trained alone has: those of its own operations only."""
    with torch.device("meta"):  # shapes alone: no weight is drawn, so the caller's random state stays
        model = SmallCNN(channels, n_classes, in_channels, search=False)
    chosen = [edge.layers[names[edge.row]] for edge in model.modules() if isinstance(edge, LayerChoice)]
    parts = [model.stem, model.reductions, model.last, model.classifier, *chosen]
    return sum(weight.numel() for part in parts for weight in part.parameters())
