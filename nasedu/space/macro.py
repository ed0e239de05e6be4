"""The macro space of ENAS: a chain of layers, and between any two of them a connection that may be there.

Pham, Guan, Zoph, Le, Dean, arXiv:1802.03268, section 2.3, and the released code. Layer l does one operation
on the output of layer l-1, adds the outputs of those earlier layers it is connected to (the paper
concatenates, the released code adds), and normalises. After one third and two thirds of the chain the maps
are halved.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nasedu.space.cells import check_images, check_input_size, check_ops, check_sizes
from nasedu.space.choice import Arch, ArchError, InputChoice, LayerChoice, check_arch, check_weights, choices
from nasedu.space.fast_ops import FactorizedReduce
from nasedu.space.ops import make_op

MACRO_OPS = ("conv_3x3", "conv_5x5", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
"""The six operations of ENAS's macro search."""


class MacroLayer(nn.Module):
    """Layer number l of the chain: row l of "op", and from layer 1 on "skip_l" of shape (1, l)."""

    def __init__(self, number: int, channels: int, ops: Sequence[str]):
        super().__init__()
        self.op = LayerChoice({name: make_op(name, channels) for name in ops}, "op", number)
        self.skip = InputChoice(number, None, f"skip_{number}") if number else None
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, earlier: Sequence[Tensor], arch: Arch) -> Tensor:
        """x and every tensor of `earlier`: (B, C, H, W); the answer, too."""
        y = self.op(x, arch)
        return self.bn(y if self.skip is None else y + self.skip(earlier, arch))


class _Halving(nn.ModuleList):
    """Halves each of n feature maps and keeps the number of channels; for n = 0, does nothing."""

    def __init__(self, channels: int, n: int):
        super().__init__(FactorizedReduce(channels, channels, affine=True) for _ in range(n))

    def forward(self, states: list[Tensor]) -> list[Tensor]:
        if not len(self):
            return states
        return [reduce(state) for reduce, state in zip(self, states, strict=True)]


class MacroCNN(nn.Module):
    """The supernet of the macro space; the defaults are ENAS's: 12 layers of 36 channels, 6 operations.

    `arch` has "op" (n_layers, operations), one operation for each layer, and for each layer l from 1 on
    "skip_l" (1, l), any of the layers before it. `input_size` is the images' height and width, a multiple
    of 4.
    """

    def __init__(
        self,
        input_size: int = 32,
        in_channels: int = 3,
        channels: int = 36,
        n_classes: int = 10,
        n_layers: int = 12,
        ops: Sequence[str] = MACRO_OPS,
    ):
        super().__init__()
        check_sizes(3, n_layers=n_layers)  # it halves its maps twice
        check_sizes(in_channels=in_channels, channels=channels, n_classes=n_classes)
        check_input_size(input_size)
        check_ops(ops)
        self.input_size = input_size
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.layers = nn.ModuleList(MacroLayer(i, channels, ops) for i in range(n_layers))
        halved = (n_layers // 3 - 1, 2 * (n_layers // 3) - 1)  # after these layers, as in the released code
        self.names = tuple(ops)
        self.halvings = nn.ModuleList(
            _Halving(channels, i + 1 if i in halved else 0) for i in range(n_layers)
        )
        self.classifier = nn.Linear(channels, n_classes)

    def choices(self) -> dict[str, tuple[int, int]]:
        """The shapes of the matrices that `forward` takes."""
        return choices(self)

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """(B, in_channels, input_size, input_size) and an architecture -> logits (B, n_classes)."""
        check_images(x, self.stem, self.input_size)
        check_weights(self.choices(), arch, x)
        x = self.stem(x)
        states: list[Tensor] = []
        for layer, halve in zip(self.layers, self.halvings, strict=True):
            states = halve([*states, layer(x, states, arch)])
            x = states[-1]
        return self.classifier(x.mean(dim=(2, 3)))

    def chain(self, arch: Arch) -> tuple[list[str], list[tuple[int, int]]]:
        """A discrete `arch` as `draw_chain` takes it: operations of the layers, skips (source, target)."""
        check_arch(self.choices(), arch)
        if not bool((arch["op"].count_nonzero(dim=1) == 1).all()):
            raise ArchError(
                f"each row of 'op' must choose one operation, got {arch['op'].tolist()}; discretise it"
            )
        layers = [self.names[i] for i in arch["op"].argmax(dim=1).tolist()]
        targets = range(1, len(self.layers))
        return layers, [(j, i) for i in targets for j in torch.nonzero(arch[f"skip_{i}"][0])[:, 0].tolist()]
