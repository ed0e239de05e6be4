"""Partial channels: a mixed edge that computes with 1/K of its channels and lets the rest pass by.

Xu, Xie, Zhang, Chen, Qi, Tian, Xiong, ICLR 2020, arXiv:1907.05737 (PC-DARTS), section 3.2. Fewer channels
through the operations mean less time and memory, and less of an advantage for operations without weights,
which learn nothing and so are good from the first step on.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasedu.choice import Arch, LayerChoice
from nasedu.ops import make_op


class PartialEdge(nn.Module):
    """The first C/K channels go through the `LayerChoice`, the others pass by; then channels are shuffled.

    `choice` is built for C/K channels. At stride 2 those that pass by are halved by a 2x2 maximum. They are
    multiplied by the sum of the edge's row: 1 for a softmax, the edge's share with edge normalisation
    (eq. 3), 0 for an edge that is not there. `k=1` computes what the `LayerChoice` alone does.
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
        # For k=1 not a slice of x, but x itself, on which `ops.once` remembers what its edges share.
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
) -> LayerChoice | PartialEdge:
    """A `LayerChoice` of these operations by name, on `channels`/`partial` of the channels (1: all)."""
    if partial < 1 or channels % partial:
        raise ValueError(f"partial={partial} must divide the {channels} channels of an edge")
    candidates = {name: make_op(name, channels // partial, stride, search) for name in ops}
    choice = LayerChoice(candidates, label, row, node)
    return choice if partial == 1 else PartialEdge(choice, partial, stride)
