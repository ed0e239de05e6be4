"""Layers that are written for the CPU: remembered, or rewritten as another one with the same numbers.

The readable version of each is the torch layer that it inherits from, or stands in its docstring; tests hold
that they agree.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import TensorWeakRef


def once(x: Tensor, name: str, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """`compute(x)`, remembered on `x` itself for as long as `x` lives and stays as it is.

    Every edge out of a state begins with the same ReLU or pool of it: four ReLUs an edge, up to five edges.
    A leaf that wants a gradient is left out: it may be in several graphs, and each needs a node of its own.
    """
    if x.is_leaf and x.requires_grad:
        return compute(x)
    key = (name, x._version, x.requires_grad, torch.is_grad_enabled())
    kept = x.__dict__.setdefault("_nasedu_once", {})
    y = kept[key]() if key in kept else None
    if y is None:
        y = compute(x)
        # With a graph only weakly: the graph of y may hold x, and x would hold y, a circle that nothing frees
        # unless a backward pass comes by. The layers that use y keep it alive until then.
        kept[key] = TensorWeakRef(y) if y.requires_grad else lambda: y
    return y


class ReLU(nn.ReLU):
    """max(x, 0), computed once for each x."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, and the same."""
        return once(x, "relu", F.relu)


class MaxPool(nn.MaxPool2d):
    """The 3x3 maximum, computed once for each x."""

    def __init__(self, stride: int):
        super().__init__(3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/stride, W/stride)."""
        return once(x, f"max_pool {self.stride}", super().forward)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution whose stride is a slice: the numbers of `nn.Conv2d`, and safe on every CPU.

    torch 2.14's CPU library writes past its memory in the weight gradient of a 1x1 convolution of stride 2
    with fewer than 8 input channels in channels-last memory, on CPUs without AVX-512. The pixels that the
    stride would pick are picked before.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride)."""
        down, right = self.stride
        return F.conv2d(x[:, :, ::down, ::right], self.weight, self.bias)


class DilatedConv(nn.Conv2d):
    """A depthwise convolution of dilation 2: the numbers of `nn.Conv2d`, on a CPU in half its time or less.

    Dilation 2 never mixes even and odd rows, nor even and odd columns: the map is four interleaved grids,
    each under an ordinary convolution. CPU libraries are slow at dilation and fast at many channels, so the
    four grids go side by side as channels. `nn.Conv2d.forward` is the readable version; a test holds that
    they agree.
    """

    def __init__(self, channels: int, kernel: int, stride: int):
        super().__init__(
            channels, channels, kernel, stride, kernel - 1, dilation=2, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/stride, W/stride)."""
        if x.device.type != "cpu" or x.ndim != 4 or x.shape[2] % 2 or x.shape[3] % 2:
            return super().forward(x)
        b, c, h, w = x.shape
        padding = self.kernel_size[0] // 2
        if self.stride[0] == 2:  # the outputs are those of the grid of even rows and columns
            return F.conv2d(x[:, :, ::2, ::2], self.weight, padding=padding, groups=c)
        x = x.permute(0, 2, 3, 1).reshape(b, h // 2, 2, w // 2, 2, c)  # channels last, as the memory is
        x = x.transpose(2, 3).reshape(b, h // 2, w // 2, 4 * c).permute(0, 3, 1, 2)
        y = F.conv2d(x, self.weight.repeat(4, 1, 1, 1), padding=padding, groups=4 * c)
        y = y.permute(0, 2, 3, 1).reshape(b, h // 2, w // 2, 2, 2, c).transpose(2, 3)
        return y.reshape(b, h, w, c).permute(0, 3, 1, 2)


class AvgPool(nn.AvgPool2d):
    """The 3x3 mean over the pixels that are there; on a CPU in a third of the time of `nn.AvgPool2d`.

    A sum is a convolution with ones, and CPU libraries are better at convolutions. `nn.AvgPool2d.forward` is
    the readable version; a test holds that they agree.
    """

    def __init__(self, stride: int):
        super().__init__(3, stride, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/stride, W/stride)."""
        return once(x, f"avg_pool {self.stride}", self._mean)

    def _mean(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.ndim != 4:
            return super().forward(x)
        ones, channels = x.new_ones(x.shape[1], 1, 3, 3), x.shape[1]
        total = F.conv2d(x, ones, stride=self.stride, padding=1, groups=channels)
        there = F.conv2d(x.new_ones(1, 1, *x.shape[2:]), ones[:1], stride=self.stride, padding=1)
        return total / there


class FactorizedReduce(nn.Module):
    """Halve height and width: two 1x1 convolutions, each of every second pixel, the second one pixel on.

    So half of the channels see the pixels (0, 0), (0, 2), ..., the other half (1, 1), (1, 3), ...; `c_out`
    must be even. The pixels are picked by slices and not by a stride, for the reason that
    `Pointwise` gives.
    """

    def __init__(self, c_in: int, c_out: int, affine: bool):
        super().__init__()
        if c_out % 2:
            raise ValueError(
                f"FactorizedReduce makes two halves, so it wants an even number of channels, got {c_out}"
            )
        self.relu = ReLU()
        self.conv_1 = nn.Conv2d(c_in, c_out // 2, 1, bias=False)
        self.conv_2 = nn.Conv2d(c_in, c_out // 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) -> (B, c_out, H/2, W/2); H and W must be even."""
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(
                f"a reduction halves the feature map, but this one is {x.shape[2]}x{x.shape[3]}; "
                "choose an input size that can be halved twice, such as 32"
            )
        x = self.relu(x)
        even, odd = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
        return self.bn(torch.cat([self.conv_1(even), self.conv_2(odd)], dim=1))
