"""Two networks of cells: `CNN`, the supernet that takes an architecture, and `Network`, a derived one.

Both: a 3x3 convolution as the stem, `n_layers` cells of which the ones at 1/3 and 2/3 halve the map and
double the channels, global average pooling, a linear classifier (DARTS, arXiv:1806.09055, section 3.1 and its
released code).
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nasedu.space.cells import Cell, DerivedCell
from nasedu.space.choice import Arch, check_shapes, choices
from nasedu.space.genotype import Genotype, GenotypeError, edges
from nasedu.space.ops import PRIMITIVES, known


def _stem(in_channels: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out))


def _stack(
    n_layers: int, channels: int, c_stem: int, n_nodes: int, cell: Callable[..., nn.Module]
) -> tuple[nn.ModuleList, list[int]]:
    """The cells, and the number of channels that comes out of each."""
    if n_layers < 3:
        raise ValueError(f"a network wants 3 cells or more, two of them reductions, got n_layers={n_layers}")
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
    (PC-DARTS, see `PartialEdge`).
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
    ):
        super().__init__()
        if input_size < 8 or input_size % 4:
            raise ValueError(
                f"input_size must be a multiple of 4 from 8 up, since it is halved twice, got {input_size}"
            )
        self.input_size, self.in_channels = input_size, in_channels
        self.n_nodes, self.ops = n_nodes, tuple(ops)
        self.stem = _stem(in_channels, stem_multiplier * channels)

        cell = functools.partial(Cell, n_nodes=n_nodes, ops=ops, partial=partial)
        self.cells, widths = _stack(n_layers, channels, stem_multiplier * channels, n_nodes, cell)
        self.classifier = nn.Linear(widths[-1], n_classes)

    def choices(self) -> dict[str, tuple[int, int]]:
        """{"normal": (E, O), "reduce": (E, O)}: the shapes of the matrices that `forward` takes."""
        shape = (len(edges(self.n_nodes)), len(self.ops))
        return {"normal": shape, "reduce": shape}

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """(B, in_channels, input_size, input_size) and an architecture -> logits (B, n_classes)."""
        _check_images(x, self.in_channels, self.input_size)
        check_shapes(self.choices(), arch)
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, arch)
        return self.classifier(s1.mean(dim=(2, 3)))


class Network(nn.Module):
    """A derived cell, stacked, to be trained from scratch. DARTS evaluates with channels=36, n_layers=20.

    In training with `auxiliary` the answer is (logits, auxiliary logits), else the logits (B, n_classes). Set
    `drop_path`, a probability, before each epoch. Raises GenotypeError for an operation nobody registered.
    """

    def __init__(
        self,
        genotype: Genotype,
        channels: int,
        n_classes: int,
        n_layers: int,
        auxiliary: bool = False,
        in_channels: int = 3,
        stem_multiplier: int = 3,
    ):
        super().__init__()
        if set(genotype.cells) != {"normal", "reduce"}:
            raise GenotypeError(
                f"a Network wants the cells 'normal' and 'reduce', got {sorted(genotype.cells)}"
            )
        named = {op for cell in (genotype.normal, genotype.reduce) for pairs in cell for op, _ in pairs}
        if unknown := sorted(named - known()):
            raise GenotypeError(
                f"the genotype has the unknown operations {unknown}; known are {sorted(known())}; "
                "add what is missing with ops.register"
            )
        self.genotype = genotype
        self.drop_path = 0.0
        self.stem = _stem(in_channels, stem_multiplier * channels)

        cell = functools.partial(DerivedCell, genotype)
        self.cells, widths = _stack(n_layers, channels, stem_multiplier * channels, genotype.n_nodes, cell)
        self.auxiliary_at = 2 * n_layers // 3
        self.auxiliary = AuxiliaryHead(widths[self.auxiliary_at], n_classes) if auxiliary else None
        self.classifier = nn.Linear(widths[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(B, in_channels, H, W), H and W multiples of 4 (with `auxiliary` 32) -> logits (B, n_classes)."""
        s0 = s1 = self.stem(x)
        auxiliary_logits = None
        for i, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, self.drop_path)
            if i == self.auxiliary_at and self.auxiliary is not None and self.training:
                auxiliary_logits = self.auxiliary(s1)
        logits = self.classifier(s1.mean(dim=(2, 3)))
        return logits if auxiliary_logits is None else (logits, auxiliary_logits)


class AuxiliaryHead(nn.Module):
    """A second classifier two thirds up, to bring gradients to the lower cells; its loss counts 0.4."""

    def __init__(self, c_in: int, n_classes: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=3, count_include_pad=False),  # 8x8 -> 2x2
            nn.Conv2d(c_in, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),  # 2x2 -> 1x1
            nn.BatchNorm2d(768),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, 8, 8) -> (B, n_classes)."""
        if x.shape[2:] != (8, 8):
            raise ValueError(
                f"the auxiliary head wants 8x8 feature maps (32x32 images), got {x.shape[2]}x{x.shape[3]}; "
                "use auxiliary=False"
            )
        return self.classifier(self.features(x).flatten(1))


def _check_images(x: Tensor, channels: int, size: int) -> None:
    if x.ndim != 4 or tuple(x.shape[1:]) != (channels, size, size):
        raise ValueError(f"wanted images of shape (B, {channels}, {size}, {size}), got {tuple(x.shape)}")


def n_parameters(model: nn.Module) -> int:
    """The number of weights of a model."""
    return sum(p.numel() for p in model.parameters())


def uniform_arch(model: nn.Module) -> dict[str, Tensor]:
    """Every candidate of every decision equally much: what softmax gives for logits of zero."""
    return {label: torch.full(shape, 1.0 / shape[1]) for label, shape in choices(model).items()}
