"""Tau and its interval against closed forms, counting by hand and simulation."""

import math
from itertools import combinations

import pytest
import torch

from nasedu import check
from nasedu.study.statistics import (
    kendall_tau,
    mean_interval,
    noise_ceiling,
    student,
    student_interval,
    tau_interval,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counted(a: list, b: list) -> float:
    """Tau-b by loops over the pairs."""
    difference = untied_a = untied_b = 0
    for i, j in combinations(range(len(a)), 2):
        product = (a[i] - a[j]) * (b[i] - b[j])
        difference += (product > 0) - (product < 0)
        untied_a += a[i] != a[j]
        untied_b += b[i] != b[j]
    return difference / math.sqrt(untied_a * untied_b)


@pytest.mark.parametrize("values", [3, 1000])
@pytest.mark.parametrize("n", [4, 11, 40])
def test_tau_is_what_counting_gives_with_many_ties_and_with_few(n, values):
    a, b = torch.randint(values, (2, n), generator=seeded(n)).tolist()
    assert kendall_tau(a, b) == pytest.approx(counted(a, b), abs=1e-14)
    assert kendall_tau(torch.tensor(a), [float(x) for x in b]) == kendall_tau(b, a)


def test_tau_has_its_closed_forms():
    order = list(range(9))
    assert kendall_tau(order, [x**3 for x in order]) == 1.0
    assert kendall_tau(order, order[::-1]) == -1.0
    for m in range(1, 9):  # the last thing moved m places forward: m discordant pairs of 36
        moved = order[: 8 - m] + [8] + order[8 - m : 8]
        assert kendall_tau(order, moved) == pytest.approx(1 - 2 * m / 36)
    assert kendall_tau([1, 1, 2], [3, 4, 5]) == pytest.approx(2 / math.sqrt(6))
    assert check.kendall_tau(kendall_tau)


def test_the_interval_is_the_spread_of_tau_over_samples_with_replacement():
    a, b = torch.randint(6, (2, 8), generator=seeded(0)).double()
    picks = torch.randint(8, (500, 8), generator=seeded(3))
    taus = sorted(counted(a[pick].tolist(), b[pick].tolist()) for pick in picks)
    tau, low, high = tau_interval(a, b, repeats=500, seed=3)
    assert tau == kendall_tau(a, b)
    # numpy's and torch's quantile: at the place 0.025 x 499 of the sorted list, counted from 0
    for end, place in ((low, 12.475), (high, 486.525)):
        below = int(place)
        assert end == pytest.approx(taus[below] + (place % 1) * (taus[below + 1] - taus[below]), abs=1e-12)
    narrow = tau_interval(a, b, repeats=500, level=0.5, seed=3)
    assert low < narrow.low < narrow.high < high
    assert tau_interval(a, b) == tau_interval(a, b) != tau_interval(a, b, seed=1)


def test_samples_without_an_order_are_left_out():
    tau, low, high = tau_interval([1, 2, 3], [1, 2, 3])
    assert (tau, low, high) == (1.0, 1.0, 1.0)


def test_the_interval_holds_the_true_tau_about_as_often_as_it_says():
    # Two normal variables of correlation r have tau = 2/pi arcsin(r) (Greiner's relation).
    truth, n, trials, hits = 2 / math.pi * math.asin(0.6), 30, 300, 0
    x = torch.randn(trials, n, generator=seeded(0))
    y = 0.6 * x + 0.8 * torch.randn(trials, n, generator=seeded(1))
    for a, b in zip(x, y, strict=True):
        _, low, high = tau_interval(a, b, repeats=500)
        hits += low <= truth <= high
    assert 0.91 <= hits / trials <= 0.985


def test_the_interval_of_a_mean():
    values = torch.randn(400, generator=seeded(0)).double()
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(values.mean().item())
    error = values.std().item() / 20
    assert (low, high) == (
        pytest.approx(mean - 1.96 * error, abs=0.01),
        pytest.approx(mean + 1.96 * error, abs=0.01),
    )
    assert mean_interval([2.5]) == (2.5, 2.5, 2.5)
    median = mean_interval([1, 2, 10], statistic=lambda samples: samples.median(-1).values)
    assert median.value == 2 and median.low == 1 and median.high == 10


def test_the_noise_ceiling_of_three_seeds_is_one_against_the_mean_of_two():
    values = torch.rand(20, 3, generator=seeded(0)).double() + torch.linspace(0, 1, 20)[:, None]
    a, b, c = values.T
    splits = [(a, (b + c) / 2), (b, (a + c) / 2), (c, (a + b) / 2)]
    assert noise_ceiling(values) == pytest.approx(sum(kendall_tau(*split) for split in splits) / 3)
    assert noise_ceiling(values[:, :2]) == pytest.approx(kendall_tau(a, b))
    four = torch.cat([values, values[:, :1] + 0.1 * values[:, 1:2]], dim=1)
    a, b, c, d = four.T
    splits = [(a + b, c + d), (a + c, b + d), (a + d, b + c)]
    assert noise_ceiling(four) == pytest.approx(sum(kendall_tau(*split) for split in splits) / 3)
    assert noise_ceiling(torch.arange(5.0)[:, None].expand(5, 3)) == 1.0


def test_what_cannot_be_ranked_is_told():
    with pytest.raises(ValueError, match="all 3 values are 0.1: there is no order"):
        kendall_tau([1, 2, 3], [0.1, 0.1, 0.1])
    with pytest.raises(ValueError, match="one length, got 3 and 2"):
        tau_interval([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="2 finite numbers or more.*nan"):
        kendall_tau([1.0, float("nan")], [1.0, 2.0])
    with pytest.raises(ValueError, match="got 95"):
        mean_interval([1, 2], level=95)
    with pytest.raises(ValueError, match=r"two seeds or more, got shape \(5, 1\)"):
        noise_ceiling(torch.zeros(5, 1))


def test_an_interval_from_five_values_is_as_much_too_narrow_as_it_says():
    generator = torch.Generator().manual_seed(0)
    held = [
        interval.low <= 0 <= interval.high
        for seed in range(600)
        for interval in [mean_interval(torch.randn(5, generator=generator), repeats=500, seed=seed)]
    ]
    assert 0.80 < sum(held) / len(held) < 0.89  # 0.85 of normal numbers, where 0.95 is asked for


@pytest.mark.parametrize(
    "df, t", [(1, 12.706), (2, 4.303), (4, 2.776), (8, 2.306), (20, 2.086), (1000, 1.962)]
)
def test_student_is_that_of_the_tables(df, t):
    assert student(df) == pytest.approx(t, abs=1e-3)


def test_students_interval_holds_the_truth_as_often_as_it_says():
    draws = torch.randn(2000, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    half = student(3) * draws.std(dim=1) / 2
    assert 0.935 < (draws.mean(dim=1).abs() <= half).double().mean() < 0.965
    value, low, high = student_interval(draws[0])
    assert value == pytest.approx(float(draws[0].mean()))
    assert (high - low) / 2 == pytest.approx(float(half[0]))
    with pytest.raises(ValueError, match="1 degree of freedom"):
        student(0)
    with pytest.raises(ValueError, match="2 finite numbers"):
        student_interval([1.0])
