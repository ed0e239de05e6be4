"""From logits to matrices: shares of edges, Gumbel draws, and the straight-through gradient."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nasedu import CNN, InputChoice, LayerChoice, choices
from nasedu.search.darts import Softmax
from nasedu.search.relaxation import EDGES, EdgeShares, Gumbel, edge_shares, gumbel, gumbel_one_hot
from nasedu.space.choice import Sampled
from nasedu.space.genotype import edges
from nasedu.space.small import SmallCNN


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return gumbel(shape, torch.Generator().manual_seed(seed))


# edge_shares


def test_shares_by_hand():
    shares = edge_shares(torch.tensor([0.0, math.log(3.0), 5.0, 0.0]), [2, 2, 3, 4])
    assert shares.tolist() == pytest.approx([0.25, 0.75, 1.0, 1.0])
    # Edges into one node need not stand side by side.
    shares = edge_shares(torch.tensor([0.0, 7.0, math.log(3.0), 7.0, math.log(4.0)]), [5, 9, 5, 9, 5])
    assert shares.tolist() == pytest.approx([1 / 8, 0.5, 3 / 8, 0.5, 4 / 8])


def test_the_shares_of_a_node_sum_to_one_whatever_the_logits():
    nodes = [node for _, node in edges(4)]
    logits = 30 * torch.randn(14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = edge_shares(logits, nodes)
    for node in (2, 3, 4, 5):
        mine = [i for i, n in enumerate(nodes) if n == node]
        assert shares[mine].sum().item() == pytest.approx(1.0, rel=1e-12)
        torch.testing.assert_close(shares[mine], logits[mine].softmax(0))


def test_the_gradient_of_shares():
    logits = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: edge_shares(x, [3, 2, 3, 3, 2]), logits)
    # The other node's logits do nothing.
    (gradient,) = torch.autograd.grad(edge_shares(logits, [3, 2, 3, 3, 2])[0], logits)
    assert gradient[[1, 4]].tolist() == [0.0, 0.0] and gradient[[0, 2, 3]].ne(0).all()


def test_one_node_for_each_edge():
    with pytest.raises(ValueError, match="3 edges, but 2 nodes"):
        edge_shares(torch.zeros(3), [2, 2])


# Gumbel


def chi_square(draws: torch.Tensor, p: torch.Tensor) -> float:
    counts = draws.bincount(minlength=len(p)).double()
    expected = p.double() * len(draws)
    return ((counts - expected) ** 2 / expected).sum().item()


def test_the_argmax_of_logits_plus_noise_is_a_draw_from_the_softmax():
    logits = torch.tensor([1.0, 0.0, -1.0, 0.5, 0.5])
    draws = (logits + noise(100_000, 5)).argmax(dim=1)
    # 4 degrees of freedom: 18.5 is passed once in 1,000 seeds.
    assert chi_square(draws, logits.softmax(0)) < 18.5
    for temperature in (0.1, 10.0):  # a temperature changes the gradient, not what is drawn
        drawn = gumbel_one_hot(logits.expand(100_000, 5), noise(100_000, 5), temperature)
        assert chi_square(drawn.argmax(dim=1), logits.softmax(0)) < 18.5


def test_gumbel_noise_has_the_mean_and_variance_of_a_gumbel_and_its_own_generator():
    n = noise(1000, 100)
    assert n.shape == (1000, 100) and n.isfinite().all()
    assert n.mean().item() == pytest.approx(0.5772, abs=0.02)  # Euler's constant; deviation 0.004
    assert n.var().item() == pytest.approx(math.pi**2 / 6, abs=0.05)
    before = torch.random.get_rng_state()
    assert torch.equal(noise(3, 4), noise(3, 4)) and not torch.equal(noise(3, 4), noise(3, 4, seed=1))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0, 10.0])
def test_forward_is_exactly_one_hot(temperature):
    logits = torch.randn(200, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
    drawn = gumbel_one_hot(logits, noise(200, 8), temperature)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert drawn.sum(dim=1).tolist() == [1.0] * 200
    assert torch.equal(drawn.argmax(1), (logits.log_softmax(-1) + noise(200, 8)).argmax(1))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 10.0])
def test_backward_is_the_gradient_of_torchs_gumbel_softmax(temperature):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(6, 5, generator=generator, dtype=torch.float64).requires_grad_()
    factors = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    torch.manual_seed(7)
    theirs = F.gumbel_softmax(logits, tau=temperature, hard=True)
    torch.manual_seed(7)  # torch draws -log(Exponential) of this shape, from its global generator
    same = -torch.empty_like(logits).exponential_().log()
    ours = gumbel_one_hot(logits, same, temperature)
    assert torch.equal(theirs.round().detach(), ours.detach())
    (wanted,) = torch.autograd.grad((theirs * factors).sum(), logits)
    (got,) = torch.autograd.grad((ours * factors).sum(), logits)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-14)
    assert got.abs().max() > 1e-3
    soft = ((logits + same) / temperature).softmax(-1)
    (of_soft,) = torch.autograd.grad((soft * factors).sum(), logits)
    torch.testing.assert_close(got, of_soft, rtol=1e-12, atol=1e-14)


# The relaxations


class Mixed(nn.Module):
    """A label of each kind; needs no forward."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(LayerChoice([nn.Identity()] * 3, "op", row) for row in range(2))
        self.one, self.any = InputChoice(4, 1, "one"), InputChoice(4, None, "any")


def seed(n=0):
    return torch.Generator().manual_seed(n)


def test_rows_are_softmaxes_and_open_inputs_have_gates():
    relaxation = Softmax().of(Mixed())
    alpha = {label: torch.randn(shape) for label, shape in choices(Mixed()).items()}
    arch = relaxation.arch(alpha)
    assert not isinstance(arch, Sampled) and set(arch) == {"op", "one", "any"}
    torch.testing.assert_close(arch["op"], alpha["op"].exp() / alpha["op"].exp().sum(1, keepdim=True))
    torch.testing.assert_close(arch["one"], alpha["one"].softmax(1))
    torch.testing.assert_close(arch["any"], 1 / (1 + (-alpha["any"]).exp()))
    drawn = relaxation.draw(alpha, 0.5, seed())
    assert all(torch.equal(drawn[label], arch[label]) for label in arch)


def test_the_start_is_small_and_drawn_from_the_generator_alone():
    plain, shared = (r.of(SmallCNN(4)).start(seed()) for r in (Softmax(), EdgeShares({"cell": [1, 2, 2]})))
    assert {k: tuple(v.shape) for k, v in shared.items()} == {"cell": (3, 5), "cell" + EDGES: (3,)}
    assert torch.equal(plain["cell"], shared["cell"])
    assert all(0 < v.abs().max() < 5e-3 for v in shared.values())


def test_a_drawn_arch_is_one_hot_and_times_the_share_if_there_are_shares():
    alpha = {"cell": torch.randn(3, 5), "cell" + EDGES: torch.tensor([5.0, 0.0, math.log(3.0)])}
    both = EdgeShares({"cell": [1, 2, 2]}, Gumbel(1.0, 0.25)).of(SmallCNN(4))
    alone, shared = (r.draw(alpha, 0.5, seed()) for r in (both.rows, both))
    for arch, sums in ((alone, [1.0, 1.0, 1.0]), (shared, [1.0, 0.25, 0.75])):
        assert isinstance(arch, Sampled)
        assert (arch["cell"] != 0).sum(1).tolist() == [1, 1, 1]
        assert arch["cell"].sum(1).tolist() == pytest.approx(sums)
        drawn = (alpha["cell"].log_softmax(-1) + gumbel((3, 5), seed())).argmax(1)
        assert torch.equal(arch["cell"].argmax(1), drawn)
    torch.testing.assert_close(both.rows.arch(alpha)["cell"], alpha["cell"].softmax(1))
    # The gradient is that of the temperature half-way, 0.625.
    logits = alpha["cell"].clone().requires_grad_()
    price = torch.arange(15.0).reshape(3, 5)
    (got,) = torch.autograd.grad(
        (both.rows.draw({"cell": logits}, 0.5, seed())["cell"] * price).sum(), logits
    )
    wanted = gumbel_one_hot(logits, gumbel((3, 5), seed()), 0.625)
    torch.testing.assert_close(got, torch.autograd.grad((wanted * price).sum(), logits)[0])


def test_open_inputs_are_gates_where_others_are_drawn():
    relaxation = Gumbel().of(Mixed())
    alpha = {label: torch.randn(shape) for label, shape in choices(Mixed()).items()}
    arch = relaxation.draw(alpha, 0.0, seed())
    assert arch["op"].count_nonzero(1).tolist() == [1, 1] and arch["one"].count_nonzero() == 1
    torch.testing.assert_close(arch["any"], alpha["any"].sigmoid())


def test_a_models_own_nodes_are_taken():
    small = CNN(8, 3, 2, 10, 3, 2, ("none", "skip_connect"))
    assert EdgeShares().of(small).node_of == {"normal": [2, 2, 3, 3, 3], "reduce": [2, 2, 3, 3, 3]}
    both = nn.ModuleList([small, LayerChoice([nn.Identity()] * 2, "head")])
    assert set(EdgeShares().of(both).node_of) == {"normal", "reduce"}  # what stands alone has no share


def test_a_relaxation_is_copied_for_a_model():
    mine = EdgeShares({"cell": [1, 2, 2]}, Gumbel())
    one, two = mine.of(SmallCNN(4)), mine.of(SmallCNN(4))
    assert one == two == mine and one.rows is not two.rows and not hasattr(mine, "shapes")


@pytest.mark.parametrize(
    ("model", "asked", "message"),
    [
        (SmallCNN(4), None, r"of 'cell', got \[None, None, None\]; the model has \{'cell': \(3, 5\)\}"),
        (SmallCNN(4), {"cell": [1, 2]}, r"of 'cell', got \[1, 2\]"),
        (SmallCNN(4), {"cell": [1, 2, 2, 2]}, r"got \[1, 2, 2, 2\]"),
        (SmallCNN(4), {"cells": [1, 2, 2]}, r"of 'cells', got \[1, 2, 2\]"),
        (SmallCNN(4), {"cell": [1, 2, None]}, r"got \[1, 2, None\].*node of row 0"),
        (Mixed(), None, r"of 'op', got \[None, None\]"),
    ],
)
def test_edge_shares_without_nodes_are_told(model, asked, message):
    with pytest.raises(ValueError, match=message):
        EdgeShares(asked).of(model)
