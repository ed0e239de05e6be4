"""The derived network: the cells that a search has found, stacked, to be trained from scratch.

The stack is that of the supernet (`cells.CNN`); here every operation is fixed and batch norms are affine.
"""

import functools

import torch
from torch import Tensor, nn

from nasedu.errors import ArgumentError, check_flag, short
from nasedu.space.cells import check_images, check_sizes, preprocess_of, stack_of, stem_of
from nasedu.space.choice import choices
from nasedu.space.genotype import Genotype, GenotypeError
from nasedu.space.ops import known, make_op


def check_genotype(genotype: Genotype) -> None:
    """Raise GenotypeError unless it has the two cells of a network, of registered operations."""
    if not isinstance(genotype, Genotype):
        raise GenotypeError(
            f"a Network is built of a Genotype, got {short(genotype)}; see Genotype.from_dict"
        )
    if set(genotype.cells) != {"normal", "reduce"}:
        raise GenotypeError(f"a Network wants the cells 'normal' and 'reduce', got {sorted(genotype.cells)}")
    named = {op for cell in (genotype.normal, genotype.reduce) for pairs in cell for op, _ in pairs}
    if unknown := sorted(named - known()):
        raise GenotypeError(
            f"the genotype has the unknown operations {unknown}; known are {sorted(known())}; "
            "add what is missing with nasedu.register"
        )


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
        check_sizes(c_prev_prev=c_prev_prev, c_prev=c_prev, channels=channels)
        check_genotype(genotype)
        for name, flag in (("reduction", reduction), ("reduction_prev", reduction_prev)):
            check_flag(name, flag)
        self.preprocess = preprocess_of(c_prev_prev, c_prev, channels, reduction_prev, affine=True)
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
        raise ArgumentError(
            f"drop path wants a probability from 0 up to, not including, 1, got {probability}"
        )
    keep = 1.0 - probability
    mask = torch.empty(x.shape[0], 1, 1, 1, device=x.device, dtype=x.dtype).bernoulli_(keep)
    return x * mask / keep


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
        check_genotype(genotype)
        check_flag("auxiliary", auxiliary)
        check_sizes(
            channels=channels, n_classes=n_classes, in_channels=in_channels, stem_multiplier=stem_multiplier
        )
        self.genotype = genotype
        self.drop_path = 0.0
        self.stem = stem_of(in_channels, stem_multiplier * channels)

        cell = functools.partial(DerivedCell, genotype)
        self.cells, widths = stack_of(n_layers, channels, stem_multiplier * channels, genotype.n_nodes, cell)
        self.auxiliary_at = 2 * n_layers // 3
        self.auxiliary = AuxiliaryHead(widths[self.auxiliary_at], n_classes) if auxiliary else None
        self.classifier = nn.Linear(widths[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(B, in_channels, H, W), H and W multiples of 4 (with `auxiliary` 32) -> logits (B, n_classes)."""
        check_images(x, self.stem)
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
            raise ArgumentError(
                f"the auxiliary head wants 8x8 feature maps (32x32 images), got {x.shape[2]}x{x.shape[3]}; "
                "use auxiliary=False"
            )
        return self.classifier(self.features(x).flatten(1))


def n_parameters(model: nn.Module) -> int:
    """The number of weights of a model."""
    return sum(p.numel() for p in model.parameters())


def uniform_arch(model: nn.Module) -> dict[str, Tensor]:
    """Every candidate of every decision equally much: what softmax gives for logits of zero."""
    return {label: torch.full(shape, 1.0 / shape[1]) for label, shape in choices(model).items()}
