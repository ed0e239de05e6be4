"""The order of numbers in memory: a model computes the same, and what would crash stays in plain order."""

import copy

import torch
from torch import nn

from nasedu.search.memory import channels_last


def order(x: torch.Tensor) -> str:
    """Tell the two apart where a map or kernel of 1x1 is contiguous in either: by the stride of columns."""
    return "plain" if x.stride(3) == 1 else "last"


def test_only_a_strided_pointwise_convolution_of_few_channels_stays_in_plain_order():
    torch.manual_seed(0)
    wide = nn.Conv2d(8, 8, 1, stride=2)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 1, stride=2, bias=False), nn.Conv2d(8, 8, 1), wide
    )
    before, seen = copy.deepcopy(model), []
    weights = list(model.parameters())
    assert channels_last(channels_last(model)) is model
    assert all(a is b for a, b in zip(model.parameters(), weights, strict=True)), "an optimizer holds these"
    assert [order(layer.weight) for layer in model] == ["last", "plain", "last", "last"]
    model[1].register_forward_pre_hook(lambda layer, inputs: seen.extend(map(order, inputs)))
    x = torch.randn(4, 3, 18, 18).contiguous(memory_format=torch.channels_last)
    # The reference computes in plain order throughout: given x as it is, it would be what must not run.
    plain = x.clone(memory_format=torch.contiguous_format)
    torch.testing.assert_close(model(x), before(plain))
    torch.testing.assert_close(model[1](input=model[0](x)), before[1](before[0](plain)))
    assert seen[:1] == ["plain"]
    pairs = ((model, x), (before, plain))
    grads = [torch.autograd.grad(m(given).square().sum(), list(m.parameters())) for m, given in pairs]
    torch.testing.assert_close(*grads)
