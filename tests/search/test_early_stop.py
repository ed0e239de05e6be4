"""Eigenvalues of the Hessian in alpha against the dense matrix, and the rule that stops a search by them."""

import pytest
import torch
from torch import nn
from torch.func import hessian

from nasedu.search.darts import Softmax
from nasedu.search.early_stop import hessian_vector, largest_eigenvalue, stop_epoch
from nasedu.space.choice import LayerChoice


class Smooth(nn.Module):
    """Two rows of smooth candidates, one label of its own, batch norm or not; 3 channels of 6x6 pixels."""

    def __init__(self, norm: bool):
        super().__init__()

        def candidates():
            convolution = nn.Sequential(nn.SiLU(), nn.Conv2d(3, 3, 3, padding=1))
            if norm:
                convolution.append(nn.BatchNorm2d(3, affine=False))
            pool = nn.AvgPool2d(3, stride=1, padding=1)
            return {"conv": convolution, "pool": pool, "skip": nn.Identity()}

        self.first, self.second = (LayerChoice(candidates(), "edge", row) for row in range(2))
        self.act = LayerChoice({"silu": nn.SiLU(), "tanh": nn.Tanh()}, "act")
        self.head = nn.Linear(3, 4)

    def forward(self, x, arch):
        x = self.act(self.second(self.first(x, arch), arch), arch)
        return self.head(x.mean((2, 3)))


def problem(norm: bool):
    """A loss of alpha = {"edge": (2, 3), "act": (1, 2)}, alpha, and the dense Hessian (8, 8)."""
    torch.manual_seed(0)
    model = Smooth(norm).double()
    relaxation = Softmax().of(model)
    x, y = torch.randn(12, 3, 6, 6, dtype=torch.float64), torch.arange(12) % 4
    alpha = {label: torch.randn(shape, dtype=torch.float64) for label, shape in relaxation.shapes.items()}

    def loss(alpha):
        return nn.functional.cross_entropy(model(x, relaxation.arch(alpha)), y)

    def of_flat(v):
        parts = v.split([tensor.numel() for tensor in alpha.values()])
        return loss({k: part.reshape(alpha[k].shape) for k, part in zip(alpha, parts, strict=True)})

    # By its shape, not through `batch_statistics`: torch.func can't write running averages.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
            module.num_batches_tracked = None
    return loss, alpha, hessian(of_flat)(torch.cat([tensor.flatten() for tensor in alpha.values()]))


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
def test_products_and_the_largest_eigenvalue_are_the_dense_hessians(norm):
    loss, alpha, dense = problem(norm)
    assert (
        dense.shape == (8, 8) and torch.linalg.matrix_rank(dense, rtol=1e-9) == 5
    )  # a softmax loses 1 a row
    product = hessian_vector(loss, alpha)
    columns = torch.stack([product(e) for e in torch.eye(8, dtype=torch.float64)], dim=1)
    assert (columns - dense).abs().max() <= 1e-9 * dense.abs().max()
    wanted = torch.linalg.eigvalsh(dense)[-1].item()
    assert largest_eigenvalue(loss, alpha) == pytest.approx(wanted, rel=1e-9)
    assert largest_eigenvalue(loss, alpha, steps=8, seed=1) == pytest.approx(wanted, rel=1e-9)


def test_alpha_is_left_alone():
    loss, alpha, _ = problem(False)
    alpha = {label: tensor.requires_grad_() for label, tensor in alpha.items()}
    before = {label: tensor.detach().clone() for label, tensor in alpha.items()}
    largest_eigenvalue(loss, alpha)
    assert all(tensor.grad is None and torch.equal(tensor, before[k]) for k, tensor in alpha.items())


def quadratic(spectrum: list[float], seed: int = 0):
    """1/2 a H a for a dense H of this spectrum, at a point that isn't 0."""
    generator = torch.Generator().manual_seed(seed)
    n = len(spectrum)
    q, _ = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))
    h = q @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ q.T
    alpha = {"a": torch.randn(n // 2, dtype=torch.float64, generator=generator)}
    alpha["b"] = torch.randn(n - n // 2, 1, dtype=torch.float64, generator=generator)

    def loss(alpha):
        v = torch.cat([alpha["a"], alpha["b"].flatten()])
        return 0.5 * v @ h @ v

    return loss, alpha


@pytest.mark.parametrize(
    "spectrum",
    [
        [3.0, 3.0, 3.0, 1.0, 1.0, -2.0],  # repeated: Lanczos meets an invariant subspace after 3 steps
        [-5.0, -1.0, -0.5, -0.5],  # the largest is the least negative, not the largest in size
        [-100.0, 2.0, 1.0, 0.0],
        [7.0],
        [2.0, 2.0, 2.0],
        [1e-12, 0.0, 0.0],
    ],
    ids=str,
)
def test_a_quadratic_form_has_the_spectrum_it_was_made_of(spectrum):
    loss, alpha = quadratic(spectrum)
    if len(spectrum) == 1:
        alpha = {"b": alpha["b"], "a": alpha["a"]}  # "a" is empty, and must not be the tensor looked at
    assert largest_eigenvalue(loss, alpha) == pytest.approx(max(spectrum), rel=1e-9)


def test_twenty_steps_find_one_eigenvalue_of_a_hundred_and_more_steps_no_other():
    spectrum = [*torch.linspace(-1, 1, 99).tolist(), 4.0]
    loss, alpha = quadratic(spectrum)
    few, twenty, all_of_them = (largest_eigenvalue(loss, alpha, steps) for steps in (3, 20, 100))
    assert few < 4.0 - 1e-6  # from below: it is the largest on a subspace
    assert twenty == pytest.approx(4.0, rel=1e-9)
    assert all_of_them == pytest.approx(4.0, rel=1e-12)
    assert largest_eigenvalue(loss, alpha, steps=1000) == all_of_them


def test_old_directions_are_not_brought_back():
    # Large eigenvalues are found at once and, by rounding, again and again, unless each new direction is made
    # orthogonal to all before; the small largest one is then not found in as many steps as there are entries.
    spectrum = [*(-(10.0 ** (i / 2)) for i in range(13)), *(i / 10 for i in range(1, 11))]
    loss, alpha = quadratic(spectrum)
    calls = []

    def counted(alpha):
        calls.append(1)
        return loss(alpha)

    assert largest_eigenvalue(counted, alpha, steps=60) == pytest.approx(1.0, rel=1e-8)
    assert calls == [1], "one loss serves all products"


def test_a_loss_that_does_not_bend_has_the_eigenvalue_zero():
    alpha = {"a": torch.randn(2, 3), "b": torch.randn(2)}
    for loss in (
        lambda alpha: alpha["a"].sum() + 3 * alpha["b"][0],
        lambda alpha: alpha["a"].sum(),  # b isn't used at all
        lambda alpha: 2.0 * torch.ones((), requires_grad=True),  # alpha isn't
    ):
        assert largest_eigenvalue(loss, alpha) == 0.0
    # A part that bends beside one that doesn't.
    assert largest_eigenvalue(lambda alpha: alpha["a"].sum() + alpha["b"].pow(2).sum(), alpha) == (
        pytest.approx(2.0, rel=1e-6)
    )
    assert largest_eigenvalue(lambda alpha: -alpha["b"].pow(2).sum(), alpha) == pytest.approx(0.0, abs=1e-6)


# When to stop. After measurement n (from 0) the windows are n-8..n-4 and n-4..n, their middles n-6 and n-2.


def every(eigenvalues, **options):
    """The rule for eigenvalues of every epoch."""
    return stop_epoch(eigenvalues, ev_freq=1, **options)


def test_the_windows_by_hand():
    # Measurement 16 is the first whose earlier window has its middle at epoch 10 (from 0), 11 (from 1).
    flat = [1.0] * 16
    assert every(flat) is None
    # (4 x 1 + 2.51) / 5 = 1.302 > 1.3; (4 + 2.49) / 5 = 1.298 is not.
    assert every([*flat, 2.51]) == 11
    assert every([*flat, 2.49]) is None
    # Numbers that floats hold exactly, at the factor itself: (4 + 3.5) / 5 = 1.5.
    assert every([*flat, 3.5], factor=1.5) is None
    assert every([*flat, 3.5], factor=1.4375) == 11
    # The earlier window has number 8, not 7: with 7 its mean would be other than 1.
    assert every([*[1.0] * 7, 0.0, *[1.0] * 8, 2.49]) is None
    assert every([*[1.0] * 7, 9.0, *[1.0] * 8, 2.51]) == 11
    # Both windows have number 12: the earlier mean is 6 / 5, the later (5 + x) / 5.
    assert every([*[1] * 12, 2, 1, 1, 1, 2.79]) is None  # 7.79 / 6 = 1.2983
    assert every([*[1] * 12, 2, 1, 1, 1, 2.81]) == 11  # 7.81 / 6 = 1.3017


def test_it_stops_at_the_first_epoch_and_later_ones_change_nothing():
    # Number 19 is the first 2: (4 + 2) / 5 = 1.2; number 20 has 7 / 5 = 1.4 over 1 (12..16), middle 14.
    rising = [1.0] * 19 + [2.0] * 10
    assert every(rising[:20]) is None
    assert all(every(rising[:n]) == 15 for n in range(21, 30))
    assert every([*rising, *[0.0] * 20]) == 15
    # Doubling at every epoch stops it at once; the start can be earlier or later.
    doubling = [2.0**i for i in range(40)]
    assert every(doubling) == 11 and every(doubling[:17]) == 11 and every(doubling[:16]) is None
    assert every(doubling, start=11) == 12
    assert every(doubling[:26], start=20) is None
    assert every(doubling[:27], start=20) == 21


def test_measured_every_second_epoch_as_released():
    # recipes.md: from epoch 22 (from 0), measurement 11, on, never earlier; it goes back to epoch 10.
    doubling = [2.0**i for i in range(40)]
    assert stop_epoch(doubling[:11]) is None
    assert stop_epoch(doubling[:12]) == 11
    # Number 12 is too high: the middles are 10 and 6, that is epochs 20 and 12.
    assert stop_epoch([*[1.0] * 12, 2.49]) is None
    assert stop_epoch([*[1.0] * 12, 2.51]) == 13


def test_at_the_start_the_windows_are_shorter():
    # Every tenth epoch: number 1 is epoch 10, and its window 0..3 has the mean 7 / 4; x 1.3: 2.275.
    assert stop_epoch([4, 1, 1, 1, 1, 1, 1, 7.3], ev_freq=10) is None  # (4 + 7.3) / 5 = 2.26
    assert stop_epoch([4, 1, 1, 1, 1, 1, 1, 7.5], ev_freq=10) == 11  # (4 + 7.5) / 5 = 2.3


def test_other_windows():
    assert every([1, 1, 1, 1, 1, 2], window=1, delta=1, start=1) == 5
    # Number 5 is high: 4/3 over 3..5, and 1 over 1..3 (delta 2, middle 2) or over 0..2 (delta 3, middle 1).
    assert every([1, 1, 1, 1, 1, 2, 2], window=3, delta=2, start=1) == 3
    assert every([1, 1, 1, 1, 1, 2, 2], window=3, delta=3, start=1) == 2
    assert every([1, 1, 1, 1, 1, 2, 2], window=3, delta=2, start=3) == 4  # 5/3 over 4..6, 1 over 2..4


@pytest.mark.parametrize(
    "eigenvalues",
    [
        [],
        [1.0],
        [1.0] * 100,
        [1.05**-i for i in range(50)],
        [1.05**i for i in range(50)],  # 1.05^4 = 1.22
        [-1.0 * 2**i for i in range(30)],
        [0.0] * 30,
    ],
    ids=["none", "one", "flat", "falling", "rising slowly", "negative", "zero"],
)
@pytest.mark.parametrize("ev_freq", [1, 2])
def test_it_goes_on(eigenvalues, ev_freq):
    assert stop_epoch(eigenvalues, ev_freq) is None


def test_growth_from_a_mean_that_is_not_positive_is_none():
    assert every([-1.0] * 16 + [100.0]) is None
    # Numbers 0..4 negative: 2..6 have the mean -1/5, 3..7 have 1/5, for number 11, and 1 is more than 1.3/5.
    turning = [-1.0] * 5 + [1.0] * 7
    assert every(turning[:11], start=0) is None
    assert every(turning, start=0) == 6
