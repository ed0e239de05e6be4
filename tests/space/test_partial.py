"""Partial channels: k=1 is the plain mixed edge bit for bit; k=4 is a formula written out by hand."""

import pytest
import torch
from torch import nn

from nasedu import CNN, ArchError, LayerChoice, choices, n_parameters, random_arch, uniform_arch
from nasedu.search.relaxation import gumbel, gumbel_one_hot
from nasedu.space.cells import PartialEdge, mixed_edge, shuffled
from nasedu.space.choice import Sampled
from nasedu.space.ops import PRIMITIVES
from nasedu.space.small import SmallCNN

OPS = ("none", "avg_pool_3x3", "skip_connect", "conv_3x3")


def images(channels: int, size: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, channels, size, size, dtype=torch.float64, generator=generator)


def edge(channels: int, k: int, stride: int = 1, ops=OPS) -> LayerChoice | PartialEdge:
    torch.manual_seed(0)
    return mixed_edge(ops, channels, "e", 0, stride=stride, partial=k).double()


def row(*weights: float, **options) -> dict[str, torch.Tensor]:
    return {"e": torch.tensor([weights], dtype=torch.float64, **options)}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("method", ["forward", "weighted_sum"])
@pytest.mark.parametrize(
    "weights", [(0.1, 0.2, 0.3, 0.4), (0.0, 0.0, 0.0, 1.0), (0.0, 0.7, 0.0, 0.0)], ids=str
)
@pytest.mark.parametrize("differentiated", [False, True])
def test_k_1_is_the_layer_choice_bit_for_bit(stride, method, weights, differentiated):
    results = []
    for wrap in (lambda choice: choice, lambda choice: PartialEdge(choice, 1, stride)):
        choice = edge(4, 1, stride)
        assert isinstance(choice, LayerChoice)
        arch, x = row(*weights, requires_grad=differentiated), images(4).requires_grad_()
        y = getattr(wrap(choice), method)(x, arch)
        (y * torch.arange(y.numel()).reshape(y.shape).cos()).sum().backward()
        grads = [p.grad for p in choice.parameters()]
        results.append([y.detach(), x.grad, arch["e"].grad, *grads])
    for plain, partial in zip(*results, strict=True):
        assert (plain is None and partial is None) or torch.equal(plain, partial)


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_partial_edge_by_hand(k, stride):
    partial, x, arch = edge(8, k, stride), images(8), row(0.1, 0.15, 0.2, 0.05)  # a row that sums to 1/2
    y = partial(x, arch)
    n = 8 // k
    layers = partial.choice.layers
    mixed = sum(w * layers[op](x[:, :n]) for op, w in zip(OPS[1:], (0.15, 0.2, 0.05), strict=True))
    assert y.shape == (3, 8, 6 // stride, 6 // stride)
    for channel in range(8):
        if channel < n:
            wanted = mixed[:, channel]
        else:
            blocks = x[:, channel].reshape(3, 6 // stride, stride, 6 // stride, stride)
            wanted = 0.5 * blocks.amax(dim=(2, 4))
        # Channel i of group g stands at i x k + g.
        group, i = divmod(channel, n)
        torch.testing.assert_close(y[:, i * k + group], wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(partial.weighted_sum(x, arch), y)


def test_the_shuffle_deals_the_groups_out_in_turn():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffled(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert shuffled(x, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]
    assert torch.equal(shuffled(x, 1), x)


@pytest.mark.parametrize("stride", [1, 2])
def test_an_edge_that_is_not_there_gives_nothing(stride):
    partial, x, zeros = edge(8, 4, stride), images(8), row(0, 0, 0, 0)
    nothing = partial.weighted_sum(x, zeros)
    assert isinstance(nothing, int) and nothing == 0
    assert torch.equal(partial(x, zeros), torch.zeros(3, 8, 6 // stride, 6 // stride, dtype=torch.float64))
    with pytest.raises(ArchError, match="row 0 of 'e' is all zeros"):
        edge(8, 4, stride, ops=("skip_connect", "conv_3x3"))(x, row(0, 0))


@pytest.mark.parametrize("stride", [1, 2])
def test_none_stops_its_own_channels_and_lets_the_others_pass(stride):
    partial, x, none = edge(8, 4, stride), images(8), row(1, 0, 0, 0)
    y = partial.weighted_sum(x, none)
    assert torch.equal(y, partial(x, none))
    rest = x[:, 2:] if stride == 1 else nn.functional.max_pool2d(x[:, 2:], 2)
    assert torch.equal(y, shuffled(torch.cat([torch.zeros_like(rest[:, :2]), rest], dim=1), 4))


def test_what_passes_by_gives_a_drawn_row_no_gradient():
    # A one-hot row sums to 1 whatever the logits, so "none" drawn leaves nothing to learn from.
    logits = torch.randn(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits[0, 0] = 9.0
    logits.requires_grad_()
    noise = gumbel((1, 4), torch.Generator().manual_seed(0)).double()
    arch = Sampled(e=gumbel_one_hot(logits, noise, 1.0))
    assert arch["e"].tolist() == [[1, 0, 0, 0]]
    edge(8, 4)(images(8), arch).pow(2).sum().backward()
    assert logits.grad.abs().max() < 1e-12
    # A share does change what passes.
    share = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    edge(8, 4)(images(8), Sampled(e=gumbel_one_hot(logits, noise, 1.0) * share)).pow(2).sum().backward()
    torch.testing.assert_close(share.grad, 2 * 0.5 * images(8)[:, 2:].pow(2).sum())


@pytest.mark.parametrize(
    ("plain", "partial", "size"),
    [
        (CNN(8, 3, 4, 10, 3, 2), CNN(8, 3, 4, 10, 3, 2, partial=2), 8),
        (SmallCNN(4), SmallCNN(4, partial=4), 6),
    ],
    ids=["CNN", "SmallCNN"],
)
def test_supernets_run_with_partial_channels(plain, partial, size):
    assert choices(partial) == choices(plain) and n_parameters(partial) < n_parameters(plain)
    x = torch.randn(4, 3, size, size)
    drawn = random_arch(partial, torch.Generator().manual_seed(0))
    for arch in (uniform_arch(partial), drawn):
        arch = {label: matrix.requires_grad_() for label, matrix in arch.items()}
        logits = partial(x, arch)
        assert logits.shape == (4, 10) and logits.isfinite().all()
        logits.pow(2).sum().backward()
        assert all(matrix.grad.ne(0).any() for matrix in arch.values())


def test_channels_that_do_not_divide_are_told():
    for make in (lambda: CNN(8, 3, 6, 10, 3, partial=4), lambda: SmallCNN(6, partial=4)):
        with pytest.raises(ValueError, match="partial=4 must divide the 6 channels"):
            make()
    with pytest.raises(ValueError, match="partial is 0; wanted a whole number from 1"):
        SmallCNN(4, partial=0)


def test_the_number_of_weights_of_the_operations():
    def of_cell(c: int, reduction: bool) -> int:
        # sep_conv: twice a k x k for each channel and a 1x1; dil_conv: once; the skip at stride 2: a 1x1.
        edge = 2 * (9 * c + c * c) + 2 * (25 * c + c * c) + (9 * c + c * c) + (25 * c + c * c)
        return 14 * edge + (8 * c * c if reduction else 0)  # 8 edges begin at the two inputs

    model = CNN(32, 3, 16, 10, 8, partial=4)
    counted = sum(n_parameters(cell.edges) for cell in model.cells)
    wanted = sum(of_cell(c // 4, i in (2, 5)) for i, c in enumerate((16, 16, 32, 32, 32, 64, 64, 64)))
    assert counted == wanted
    whole = sum(n_parameters(cell.edges) for cell in CNN(32, 3, 16, 10, 8).cells)
    assert n_parameters(model) == 1_930_618 - whole + wanted
    assert tuple(model.ops) == PRIMITIVES
