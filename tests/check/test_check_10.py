"""The checks of notebook 10: a right answer passes, each known slip fails at a case that names it."""

import math
from statistics import NormalDist

import pytest
import torch

from nasedu import check


def runs(d, var_search, var_training, s=1, level=0.05, power=0.8, slip=""):
    z = NormalDist().inv_cdf
    factor = (z(1 - level if slip == "one-sided" else 1 - level / 2) + z(power)) ** 2
    variance = var_search + (var_training if slip == "no s" else var_training / s)
    if slip == "pooled":
        variance = (var_search + var_training) / s
    n = (1 if slip == "one sample" else 2) * factor * variance / (d if slip == "not squared" else d**2)
    return n if slip == "not rounded" else math.ceil(n)


def interval(a, b, draw_a, draw_b, slip=""):
    one, other = a[draw_a], b[draw_b]
    means = one.mean(dim=(1, 2)) - other.mean(dim=(1, 2))
    if slip == "first training":
        means = one[..., 0].mean(dim=1) - other[..., 0].mean(dim=1)
    if slip == "swapped":
        means = -means
    shares = [0.05, 0.95] if slip == "90 %" else [0.025, 0.975]
    low, high = torch.quantile(means, torch.tensor(shares)).tolist()
    return (means.min().item(), means.max().item()) if slip == "range" else (low, high)


def front(costs, accuracies, slip=""):
    def beats(j, i):
        (c, a), (k, b) = (costs[j], accuracies[j]), (costs[i], accuracies[i])
        if slip == "strict":
            return c < k and a > b
        if slip == "weak":
            return j != i and c <= k and a >= b
        return c <= k and a >= b and (c, a) != (k, b)

    best = [i for i in range(len(costs)) if not any(beats(j, i) for j in range(len(costs)))]
    return best if slip == "unsorted" else sorted(best, key=lambda i: costs[i])


def test_right_answers_pass(capsys):
    assert check.runs_needed(runs) and check.difference_interval(interval) and check.pareto_front(front)
    assert "✗" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "slip, said",
    [
        ("one-sided", "one point, variances 0.5 and 0.5"),
        ("one sample", "one point, variances 0.5 and 0.5"),
        ("not squared", "half a point costs four times as much"),
        ("no s", "four trainings of each cell"),
        ("pooled", "four trainings of each cell"),
        ("not rounded", "one point, variances 0.5 and 0.5"),
    ],
)
def test_wrong_numbers_of_runs_are_named(slip, said, capsys):
    assert not check.runs_needed(lambda *a: runs(*a, slip=slip))
    assert f"✗ how many runs: {said}" in capsys.readouterr().out


def test_a_level_or_a_power_that_is_ignored_is_told(capsys):
    assert not check.runs_needed(lambda d, c, t, s=1, level=0.05, power=0.8: runs(d, c, t, s))
    assert "✗ how many runs: level 0.01, power 0.9" in capsys.readouterr().out


@pytest.mark.parametrize(
    "slip, said",
    [
        ("first training", "every repetition draws each cell once"),
        ("swapped", "every repetition draws each cell once"),
        ("90 %", "one cell twice, then the other twice"),
        ("range", "one cell twice, then the other twice"),
    ],
)
def test_wrong_intervals_are_named(slip, said, capsys):
    assert not check.difference_interval(lambda *a: interval(*a, slip=slip))
    assert f"✗ an interval that knows about cells: {said}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "slip, said",
    [
        ("strict", "the same price, one better"),
        ("weak", "twins don't beat each other"),
        ("unsorted", "in the order of the cost"),
    ],
)
def test_wrong_fronts_are_named(slip, said, capsys):
    assert not check.pareto_front(lambda *a: front(*a, slip=slip))
    assert f"✗ the front: {said}" in capsys.readouterr().out


def test_unsolved_is_told_and_raises_nothing(capsys):
    for one in (check.runs_needed, check.difference_interval, check.pareto_front):
        assert not one(lambda *a: ...)
    assert capsys.readouterr().out.count("not solved yet") == 3
