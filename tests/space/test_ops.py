"""The candidate operations: shapes, padding and dilation against numbers worked out by hand, batch norms."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nasedu.space import fast_ops, ops
from nasedu.space.fast_ops import FactorizedReduce
from nasedu.space.ops import PRIMITIVES, make_op, register

KERNELS = {"sep_conv_3x3": (3, 1), "sep_conv_5x5": (5, 1), "sep_conv_7x7": (7, 1)}
KERNELS |= {"dil_conv_3x3": (3, 2), "dil_conv_5x5": (5, 2)}


@pytest.fixture
def registry(monkeypatch):
    """A copy of the registry, so that what a test registers is gone after it."""
    monkeypatch.setattr(ops, "_REGISTRY", dict(ops._REGISTRY))


def without_batch_norm(op: nn.Module) -> nn.Module:
    """The operation with its batch norms taken out, so that sums can be done by hand."""
    return nn.Sequential(*(layer for layer in op if not isinstance(layer, nn.BatchNorm2d)))


def all_ones(op: nn.Module) -> nn.Module:
    for weight in op.parameters():
        nn.init.ones_(weight)
    return op


def batch_norms(op: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in op.modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_eight_names_are_those_of_darts_in_its_order():
    assert PRIMITIVES == (
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    )
    assert set(PRIMITIVES) <= ops.known()


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", sorted(ops.known()))
def test_every_operation_keeps_the_channels_and_divides_the_size_by_its_stride(name, stride, search):
    x = torch.randn(2, 4, 8, 12)
    y = make_op(name, 4, stride, search)(x)
    assert y.shape == (2, 4, 8 // stride, 12 // stride)
    assert y.dtype == x.dtype and torch.isfinite(y).all()


WEIGHTS = {  # for 4 channels: depthwise 4 x kernel^2, pointwise 4 x 4, twice in a separable convolution
    "sep_conv_3x3": 2 * (4 * 9 + 16),
    "sep_conv_5x5": 2 * (4 * 25 + 16),
    "dil_conv_3x3": 4 * 9 + 16,
    "dil_conv_5x5": 4 * 25 + 16,
}


@pytest.mark.parametrize(("name", "weights"), WEIGHTS.items())
def test_depthwise_and_pointwise_convolutions_have_no_more_weights_than_they_need(name, weights):
    assert sum(p.numel() for p in make_op(name, 4).parameters()) == weights
    affine = 8 if name.startswith("dil") else 16
    assert sum(p.numel() for p in make_op(name, 4, search=False).parameters()) == weights + affine


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", KERNELS)
def test_a_single_pixel_spreads_over_exactly_the_kernel_of_the_convolution(name, stride):
    kernel, dilation = KERNELS[name]
    reach = dilation * (kernel - 1) // 2
    x = torch.zeros(1, 1, 24, 24)
    x[0, 0, 12, 12] = 1.0
    # The depthwise-pointwise pair of a dilated convolution, or the first of the two of a separable one.
    pair = all_ones(without_batch_norm(make_op(name, 1, stride))[:3])
    expected = torch.zeros(24, 24)
    expected[12 - reach : 13 + reach : dilation, 12 - reach : 13 + reach : dilation] = 1.0
    assert torch.equal(pair(x)[0, 0], expected[::stride, ::stride])


@pytest.mark.parametrize("name", [name for name in KERNELS if name.startswith("sep")])
def test_a_separable_convolution_is_two_and_the_stride_is_in_the_first(name):
    kernel, _ = KERNELS[name]
    convolutions = [layer for layer in make_op(name, 4, stride=2) if isinstance(layer, nn.Conv2d)]
    assert [c.stride for c in convolutions] == [(2, 2), (1, 1), (1, 1), (1, 1)]
    assert [c.kernel_size for c in convolutions] == [(kernel, kernel), (1, 1)] * 2
    assert [c.groups for c in convolutions] == [4, 1, 4, 1]
    # All ones on a map of ones: a kernel of ones counts the pixels under it, once and then summed again.
    count = nn.functional.conv2d(
        torch.ones(1, 1, 15, 15), torch.ones(1, 1, kernel, kernel), padding=kernel // 2
    )
    twice = nn.functional.conv2d(count, torch.ones(1, 1, kernel, kernel), padding=kernel // 2)
    op = all_ones(without_batch_norm(make_op(name, 1)))
    assert torch.equal(op(torch.ones(1, 1, 15, 15)), twice)
    assert op(torch.ones(1, 1, 15, 15))[0, 0, 7, 7] == kernel**4


@pytest.mark.parametrize("name", KERNELS)
def test_a_convolution_takes_the_relu_first(name):
    op = all_ones(without_batch_norm(make_op(name, 2)))
    assert torch.equal(op(-torch.rand(1, 2, 6, 6)), torch.zeros(1, 2, 6, 6))


def test_the_average_pool_does_not_count_the_padding():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    pooled = make_op("avg_pool_3x3", 1, search=False)(x)[0, 0]
    assert pooled[0, 0] == (0 + 1 + 4 + 5) / 4  # with the padding counted it would be 10 / 9
    assert pooled[0, 1] == (0 + 1 + 2 + 4 + 5 + 6) / 6
    assert pooled[1, 1] == (0 + 1 + 2 + 4 + 5 + 6 + 8 + 9 + 10) / 9
    assert torch.equal(make_op("avg_pool_3x3", 1, stride=2, search=False)(x)[0, 0], pooled[::2, ::2])


def test_the_max_pool_takes_the_largest_of_nine():
    x = -torch.arange(1.0, 17.0).view(1, 1, 4, 4)  # negative: padding with zeros would win
    pooled = make_op("max_pool_3x3", 1, search=False)(x)[0, 0]
    assert pooled.tolist() == [[-1, -1, -2, -3], [-1, -1, -2, -3], [-5, -5, -6, -7], [-9, -9, -10, -11]]
    assert torch.equal(make_op("max_pool_3x3", 1, stride=2, search=False)(x)[0, 0], pooled[::2, ::2])


def test_none_gives_zeros_and_skip_gives_its_input():
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(make_op("none", 4)(x), torch.zeros(2, 4, 6, 6))
    assert torch.equal(make_op("none", 4, stride=2)(x * float("inf")), torch.zeros(2, 4, 3, 3))
    assert isinstance(make_op("skip_connect", 4), nn.Identity)
    assert isinstance(make_op("skip_connect", 4, stride=2), FactorizedReduce)


def test_factorized_reduce_sees_even_pixels_in_one_half_and_odd_ones_in_the_other():
    reduce = FactorizedReduce(1, 2, affine=False)
    reduce.bn = nn.Identity()
    all_ones(reduce)
    x = torch.arange(1.0, 37.0).view(1, 1, 6, 6)
    y = reduce(x)
    assert torch.equal(y[0, 0], x[0, 0, ::2, ::2])
    assert torch.equal(y[0, 1], x[0, 0, 1::2, 1::2])  # the last row and column are there: no corner is lost
    assert torch.equal(reduce(-x), torch.zeros(1, 2, 3, 3))  # ReLU first


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", PRIMITIVES)
def test_batch_norms_have_scale_and_shift_in_the_derived_network_only(name, stride):
    searched, derived = make_op(name, 4, stride), make_op(name, 4, stride, search=False)
    assert not any(norm.affine for norm in batch_norms(searched))
    assert all(norm.affine for norm in batch_norms(derived))
    expected = {
        "skip_connect": stride - 1,
        "sep_conv_3x3": 2,
        "sep_conv_5x5": 2,
        "dil_conv_3x3": 1,
        "dil_conv_5x5": 1,
    }
    assert len(batch_norms(derived)) == expected.get(name, 0)
    assert len(batch_norms(searched)) == (1 if "pool" in name else expected.get(name, 0))


def test_a_pool_is_normalised_after_it_in_the_search():
    x = torch.randn(8, 4, 6, 6) * 5 + 3
    y = make_op("avg_pool_3x3", 4)(x)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(dim=(0, 2, 3), correction=0), torch.ones(4), atol=1e-3, rtol=0)
    plain = make_op("avg_pool_3x3", 4, search=False)(x)
    torch.testing.assert_close(nn.BatchNorm2d(4, affine=False)(plain), y)


def test_an_operation_of_ones_own_joins_by_name(registry):
    @register("own_1x1")
    def conv(channels, stride, affine):
        return nn.Sequential(
            nn.Conv2d(channels, channels, 1, stride), nn.BatchNorm2d(channels, affine=affine)
        )

    assert "own_1x1" in ops.known()
    assert make_op("own_1x1", 3, 2)(torch.randn(1, 3, 8, 8)).shape == (1, 3, 4, 4)
    assert make_op("own_1x1", 3, search=False)[1].affine and not make_op("own_1x1", 3)[1].affine


@pytest.mark.parametrize("name", ["none", "sep_conv_3x3"])
def test_a_name_is_registered_once(registry, name):
    before = dict(ops._REGISTRY)
    with pytest.raises(ValueError, match=f"{name}.*registered already"):
        register(name)(lambda c, stride, affine: nn.Identity())
    assert before == ops._REGISTRY


def test_an_unknown_name_is_told_with_those_that_are_known():
    with pytest.raises(KeyError, match="unknown operation 'conv_9x9'.*sep_conv_3x3.*nasedu.register"):
        make_op("conv_9x9", 4)


def test_what_cannot_be_halved_is_told():
    with pytest.raises(ValueError, match="even number of channels, got 5"):
        FactorizedReduce(4, 5, affine=False)
    with pytest.raises(ValueError, match="this one is 7x8"):
        FactorizedReduce(4, 4, affine=False)(torch.randn(1, 4, 7, 8))


@pytest.mark.parametrize("size", [8, 12, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_the_fast_dilated_convolution_is_torchs(kernel, stride, size):
    torch.manual_seed(0)
    conv = fast_ops.DilatedConv(6, kernel, stride).double()
    x = torch.randn(2, 6, size, size + (size % 2) * 2, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(x, conv.weight, stride=stride, padding=kernel - 1, dilation=2, groups=6)
    push = torch.randn_like(plain)
    torch.testing.assert_close(conv(x), plain)
    ours = torch.autograd.grad(conv(x), [x, conv.weight], push)
    torch.testing.assert_close(ours, torch.autograd.grad(plain, [x, conv.weight], push))


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_fast_average_pool_is_torchs(stride, size):
    torch.manual_seed(0)
    x = torch.randn(2, 5, size, size, dtype=torch.float64, requires_grad=True)
    plain = F.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False)
    push = torch.randn_like(plain)
    torch.testing.assert_close(fast_ops.AvgPool(stride)(x), plain)
    ours = torch.autograd.grad(fast_ops.AvgPool(stride)(x), x, push)
    torch.testing.assert_close(ours, torch.autograd.grad(plain, x, push))


def test_the_fast_layers_take_a_single_image_as_torchs_do():
    x = torch.randn(4, 8, 8)
    for layer in (fast_ops.DilatedConv(4, 3, 1), fast_ops.AvgPool(2)):
        torch.testing.assert_close(layer(x), layer(x[None])[0])


def test_what_begins_alike_is_computed_once_for_each_state(monkeypatch):
    calls = []
    relu = F.relu
    monkeypatch.setattr(F, "relu", lambda x: calls.append(x) or relu(x))
    state = torch.randn(2, 4, 8, 8) * 1.0
    layers = [make_op(name, 4) for name in ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")]
    for layer in layers:
        layer(state)
    assert sum(x is state for x in calls) == 1
    assert fast_ops.MaxPool(1)(state) is fast_ops.MaxPool(1)(state)
    assert fast_ops.MaxPool(1)(state).shape != fast_ops.MaxPool(2)(state).shape


def test_once_knows_when_a_state_is_not_the_same_any_more():
    leaf = torch.randn(2, 3, 4, 4, requires_grad=True)
    for _ in range(2):  # a node shared by two graphs would be freed by the first
        ops.ReLU()(leaf).sum().backward()
    state = torch.tensor([[-1.0, 2.0]])
    assert ops.ReLU()(state).tolist() == [[0.0, 2.0]]
    state += 3.0
    assert ops.ReLU()(state).tolist() == [[2.0, 5.0]]
    middle = leaf * 1.0
    with torch.no_grad():
        assert not ops.ReLU()(middle).requires_grad
    assert ops.ReLU()(middle).requires_grad


@pytest.mark.parametrize("name", ["avg_pool_3x3", "max_pool_3x3", "sep_conv_3x3", "dil_conv_5x5", "conv_3x3"])
def test_a_tensor_is_freed_though_what_was_computed_of_it_never_saw_a_backward_pass(name):
    # The graph of a pool holds its input; if the input held the pool in turn, nothing would free the two.
    ops = [make_op(name, 4), make_op(name, 4)]
    x = 1 * torch.randn(2, 4, 8, 8, requires_grad=True)
    outputs = [op(x) for op in ops]
    alive = weakref.ref(x)
    del x, outputs
    assert alive() is None


def test_two_edges_out_of_a_state_compute_its_relu_once(monkeypatch):
    calls = []
    monkeypatch.setattr(fast_ops.F, "relu", lambda x: calls.append(x.shape) or torch.relu(x))
    edges = [make_op("sep_conv_3x3", 4), make_op("sep_conv_5x5", 4)]
    x = 1 * torch.randn(2, 4, 8, 8, requires_grad=True)
    outputs = [edge(x) for edge in edges]
    assert len(calls) == 1 + 2 and all(y.requires_grad for y in outputs)  # the state's, and one inside each
