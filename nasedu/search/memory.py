"""The order in which a model's numbers lie in memory: channels last, but where that is not safe."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasedu.space.fast_ops import Pointwise


def channels_last(model: nn.Module) -> nn.Module:
    """Put the model's weights into channels-last memory, which CPUs and GPUs are faster with; return it.

    Not a 1x1 convolution with a stride and fewer than 8 input channels, in which torch 2.14's CPU library
    writes past its memory (`fast_ops.Pointwise` says where): its weights, and what comes into it, are put
    into the plain order. The numbers are the same.
    """
    model.to(memory_format=torch.channels_last)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and _overruns(layer):
            with torch.no_grad():
                # A 1x1 kernel counts as contiguous in either order, so .contiguous() would change nothing.
                layer.weight.data = layer.weight.clone(memory_format=torch.contiguous_format)
            if _plain not in layer._forward_pre_hooks.values():
                layer.register_forward_pre_hook(_plain, with_kwargs=True)
    return model


def _overruns(layer: nn.Conv2d) -> bool:
    return (
        not isinstance(layer, Pointwise)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.in_channels < 8
    )


def _plain(
    layer: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    def plain(x: Tensor) -> Tensor:
        return x.clone(memory_format=torch.contiguous_format)

    return tuple(plain(x) for x in inputs), {name: plain(x) for name, x in named.items()}
