"""The checks of notebook 12: a right answer passes, each known slip fails at a case that names it."""

import pytest
import torch

from nasedu import check
from nasedu.space import small

SKIP = small.OPS.index("skip_connect")


def price(loss, alpha, step, slip=""):
    a = alpha if slip == "in place" else alpha.clone()
    a.requires_grad_()
    (g,) = torch.autograd.grad(loss(a), a, create_graph=True)
    slope = (g * step).sum()
    (hv,) = torch.autograd.grad(slope, a)
    bend = (hv * step).sum()
    return (slope * (slip != "no slope") + bend * (1.0 if slip == "no half" else 0.5)).item()


def patience(eigenvalues, factor, patience, slip=""):
    smallest, epoch_of_it, above = float("inf"), 0, 0
    for epoch, value in enumerate(eigenvalues, start=0 if slip == "from zero" else 1):
        high = value >= factor * smallest if slip == "at the factor" else value > factor * smallest
        above = above + 1 if high else above if slip == "not in a row" else 0
        if above == patience:
            return epoch if slip == "where it stops" else epoch_of_it
        if value < smallest:
            smallest, epoch_of_it = value, epoch
    return len(eigenvalues)


def limited(matrix, most, slip=""):
    best = matrix.argmax(dim=1).tolist()
    others = matrix.clone()
    others[:, SKIP] = -1.0
    lead = matrix[:, SKIP] if slip == "by weight" else matrix[:, SKIP] - others.max(dim=1).values
    skips = sorted((row for row, op in enumerate(best) if op == SKIP), key=lambda row: -lead[row])
    for row in skips[most:]:
        best[row] = 0 if slip == "none instead" else int(others[row].argmax())
    return [small.OPS[op] for op in best]


def test_right_answers_pass(capsys):
    assert check.price_of_a_step(price) and check.patience(patience) and check.limited_skips(limited)
    assert "✗" not in (out := capsys.readouterr().out) and out.count("✓") == 5 + 9 + 8


@pytest.mark.parametrize(
    "exercise, answer, slip, said",
    [
        ("price_of_a_step", price, "no half", "at its bottom"),
        ("price_of_a_step", price, "no slope", "up the slope"),
        ("price_of_a_step", price, "in place", "left as it was"),
        ("patience", patience, "from zero", "three epochs in a row"),
        ("patience", patience, "where it stops", "three epochs in a row"),
        ("patience", patience, "at the factor", "just at the factor"),
        ("patience", patience, "not in a row", "starts the count again"),
        ("limited_skips", limited, "by weight", "the third row's skip leads least"),
        ("limited_skips", limited, "none instead", "the third row's skip leads least"),
    ],
)
def test_slips_fail_and_are_told(exercise, answer, slip, said, capsys):
    assert not getattr(check, exercise)(lambda *a: answer(*a, slip=slip))
    assert said in (out := capsys.readouterr().out).split("✗")[1] and "expected" in out


def test_unsolved_is_told_and_raises_nothing(capsys):
    for one in (check.price_of_a_step, check.patience, check.limited_skips):
        assert not one(lambda *a: ...)
    assert capsys.readouterr().out.count("not solved yet") == 3
