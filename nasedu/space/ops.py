"""The candidate operations of a cell, by name.

Every operation maps a feature map of shape (B, C, H, W) to (B, C, H/stride, W/stride), so that any of them
fits on any edge. The names and their order are those of DARTS (Liu, Simonyan, Yang 2019, arXiv:1806.09055,
section 3.1).

An operation exists in two forms. In the *search*, its batch norms have no scale and shift (a scale would let
a large weight undo a small alpha) and a pool is followed by a batch norm, so that all candidates arrive in
the sum at the same size. In the *derived* network batch norms are affine and a pool is just a pool.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nasedu.errors import NaseduError, check_whole, short
from nasedu.space.fast_ops import AvgPool, DilatedConv, FactorizedReduce, MaxPool, Pointwise, ReLU

PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


class OpError(NaseduError, KeyError, ValueError):
    """No operation has this name, or it can't be registered; the message says what to do."""

    __str__ = Exception.__str__  # a KeyError's is in quotes


Factory = Callable[[int, int, bool], nn.Module]
_REGISTRY: dict[str, Factory] = {}


def register(name: str) -> Callable[[Factory], Factory]:
    """Register `factory(channels, stride, affine) -> module` as `name`. Raises OpError for a name twice."""
    if not isinstance(name, str) or not name or "." in name:
        raise OpError(f"an operation's name is a text without a dot, got {short(name)}; choose another one")

    def add(factory: Factory) -> Factory:
        if name in _REGISTRY:
            raise OpError(f"operation {name!r} is registered already; choose another name")
        _REGISTRY[name] = factory
        return factory

    return add


def known() -> frozenset[str]:
    """The names of all registered operations."""
    return frozenset(_REGISTRY)


def make_op(name: str, channels: int, stride: int = 1, search: bool = True) -> nn.Module:
    """Build the operation `name` for feature maps with `channels` channels.

    `search=True` gives the supernet's form (batch norm without affine, batch norm after a pool),
    `search=False` the derived network's. Raises OpError (a KeyError) for an unknown name.
    """
    if not isinstance(name, str) or name not in _REGISTRY:
        raise OpError(
            f"unknown operation {short(name)}; known are {', '.join(sorted(_REGISTRY))}; "
            "add one with nasedu.register"
        )
    check_whole("channels", channels, 1, 2**31)
    op = _REGISTRY[name](channels, check_whole("stride", stride, 1, 2), not search)
    if search and "pool" in name:
        return nn.Sequential(op, nn.BatchNorm2d(channels, affine=False))
    return op


class Zero(nn.Module):
    """The operation `none`: zeros of the shape that the other operations give.

    Of any x at stride 1, such as tokens (B, T, C); of feature maps (B, C, H/stride, W/stride).
    """

    def __init__(self, stride: int = 1):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """x -> zeros."""
        return torch.zeros_like(x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride])


def relu_conv_bn(c_in: int, c_out: int, affine: bool) -> nn.Sequential:
    """ReLU, 1x1 convolution, batch norm: brings a cell's input to the cell's own number of channels."""
    return nn.Sequential(
        nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out, affine=affine)
    )


def _then_pointwise(depthwise: nn.Module, c: int, affine: bool) -> list[nn.Module]:
    """ReLU, a convolution of each channel alone, a 1x1 convolution that mixes channels, batch norm."""
    return [ReLU(), depthwise, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c, affine=affine)]


def _sep_conv(kernel: int) -> Factory:
    def make(c: int, stride: int, affine: bool) -> nn.Module:
        # Twice, as in DARTS and NASNet; the stride is in the first.
        depthwise = [nn.Conv2d(c, c, kernel, s, kernel // 2, groups=c, bias=False) for s in (stride, 1)]
        return nn.Sequential(*(layer for one in depthwise for layer in _then_pointwise(one, c, affine)))

    return make


def _dil_conv(kernel: int) -> Factory:
    return lambda c, stride, affine: nn.Sequential(
        *_then_pointwise(DilatedConv(c, kernel, stride), c, affine)
    )


def _conv(kernel: int) -> Factory:
    def make(c: int, stride: int, affine: bool) -> nn.Module:
        layer = Pointwise if kernel == 1 else nn.Conv2d
        convolution = layer(c, c, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(ReLU(), convolution, nn.BatchNorm2d(c, affine=affine))

    return make


register("none")(lambda c, stride, affine: Zero(stride))
register("max_pool_3x3")(lambda c, stride, affine: MaxPool(stride))
register("avg_pool_3x3")(lambda c, stride, affine: AvgPool(stride))
register("skip_connect")(
    lambda c, stride, affine: nn.Identity() if stride == 1 else FactorizedReduce(c, c, affine)
)
register("sep_conv_3x3")(_sep_conv(3))
register("sep_conv_5x5")(_sep_conv(5))
register("sep_conv_7x7")(_sep_conv(7))
register("dil_conv_3x3")(_dil_conv(3))
register("dil_conv_5x5")(_dil_conv(5))
register("conv_1x1")(_conv(1))
register("conv_3x3")(_conv(3))
register("conv_5x5")(_conv(5))
