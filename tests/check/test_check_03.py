"""The checks of notebook 03: a right answer passes, each known slip fails at a case that names it."""

import copy
from itertools import combinations

import pytest
import torch

from nasedu import LayerChoice, check, n_parameters


def tau(a, b, slip=""):
    pairs = [(a[i] - a[j], b[i] - b[j]) for i, j in combinations(range(len(a)), 2)]
    score = sum((p > 0) - (p < 0) for p in (x * y for x, y in pairs))
    untied = [sum(pair[k] != 0 for pair in pairs) for k in (0, 1)]
    return score / (len(pairs) if slip == "tau-a" else (untied[0] * untied[1]) ** 0.5)


def updates(steps, k, n_ops):
    return 2 * steps / k / n_ops


def child_size(model, arch, slip=""):
    size = n_parameters(model)
    seen = set()
    for point in model.modules():
        if isinstance(point, LayerChoice) and (point.label, point.row) not in seen:
            if slip == "one cell":
                seen.add((point.label, point.row))
            row = arch[point.label][point.row]
            size -= sum(n_parameters(op) for w, op in zip(row, point.layers.values(), strict=True) if w == 0)
    return size


def by_gradient(model, arch, slip=""):
    if slip != "in place":
        model = copy.deepcopy(model)
    model.zero_grad()
    model(torch.randn(2, 3, 8, 8), arch).sum().backward()
    return sum(p.numel() for p in model.parameters() if p.grad is not None)


def test_right_answers_pass(capsys):
    assert check.kendall_tau(tau) and check.expected_updates(updates) and check.child_size(child_size)
    assert "✗" not in (out := capsys.readouterr().out) and out.count("✓") == 13
    assert check.child_size(by_gradient)


def test_tau_without_regard_to_ties_fails_at_the_ties(capsys):
    assert not check.kendall_tau(lambda a, b: tau(a, b, "tau-a"))
    assert "✗ Kendall's tau: the same tie in both lists" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda steps, k, n_ops: steps / k / n_ops, "two inputs, one operation"),
        (lambda steps, k, n_ops: steps / n_ops, "three inputs"),
        (lambda steps, k, n_ops: steps * 2 / k, "two inputs, three operations"),
    ],
)
def test_wrong_numbers_of_updates_fail(wrong, said, capsys):
    assert not check.expected_updates(wrong)
    assert said in (out := capsys.readouterr().out).split("✗")[1] and "expected" in out


def test_a_size_that_counts_only_the_first_cell_of_a_label_fails(capsys):
    assert not check.child_size(lambda *a: child_size(*a, slip="one cell"))
    assert "✗ the size of a child: the weights with a gradient, random child 0" in capsys.readouterr().out


def test_a_size_that_changes_the_model_fails(capsys):
    assert not check.child_size(lambda *a: by_gradient(*a, slip="in place"))
    assert "✗ the size of a child: what it changed" in capsys.readouterr().out


def test_unsolved_is_told_and_raises_nothing(capsys):
    for one in (check.kendall_tau, check.expected_updates, check.child_size):
        assert not one(lambda *a: ...)
    assert capsys.readouterr().out.count("not solved yet") == 3
