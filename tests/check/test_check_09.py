"""The checks of notebook 09: a right answer passes, each known slip fails at a case that names it."""

import math
from statistics import mean

import pytest
from torch.nn import functional as F

from nasedu import check


def child_step(model, sgd, arch, x, y, slip=""):
    loss = F.cross_entropy(model(x, arch), y)
    if slip != "dirty":
        sgd.zero_grad(set_to_none=slip != "zeros")
    loss.backward()
    sgd.step()
    return 0.0 if slip == "loss" else loss.item()


def best_of_n(scores, n):
    ordered = sorted(scores)
    return sum(s * math.comb(i, n - 1) for i, s in enumerate(ordered)) / math.comb(len(ordered), n)


def put_back(scores, n):
    ordered, N = sorted(scores), len(scores)
    return sum(s * (((i + 1) / N) ** n - (i / N) ** n) for i, s in enumerate(ordered))


def sorts_in_place(scores, n):
    scores.sort()
    return best_of_n(scores, n)


def skip_penalty(q, target):
    p = q.sigmoid()
    take, leave = F.logsigmoid(q) - math.log(target), F.logsigmoid(-q) - math.log(1 - target)
    return (p * take + (1 - p) * leave).sum()


def unstable(q, target):
    p = q.sigmoid()
    return (p * (p / target).log() + (1 - p) * ((1 - p) / (1 - target)).log()).sum()


def test_right_answers_pass(capsys):
    assert check.child_step(child_step) and check.best_of_n(best_of_n) and check.skip_penalty(skip_penalty)
    assert "✗" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "slip, said",
    [
        ("zeros", "weights that the child does not use, and that moved"),
        ("dirty", "weights that the child does not use, and that moved"),
        ("loss", "it returns the loss"),
    ],
)
def test_slips_of_the_childs_step_are_named(slip, said, capsys):
    assert not check.child_step(lambda *a: child_step(*a, slip=slip))
    assert f"✗ a child's step: {said}" in capsys.readouterr().out


def test_a_child_that_does_not_learn_is_told(capsys):
    def idle(model, sgd, arch, x, y):
        return F.cross_entropy(model(x, arch), y).item()

    assert not check.child_step(idle)
    assert "✗ a child's step: the weights that the child uses" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong, said",
    [
        (put_back, "all of them have the maximum"),
        (lambda scores, n: max(scores[:n]), "one is the mean"),
        (lambda scores, n: mean(sorted(scores)[-n:]), "one is the mean"),
        (sorts_in_place, "the scores stay in their order"),
    ],
)
def test_wrong_bests_are_named(wrong, said, capsys):
    assert not check.best_of_n(wrong)
    assert f"✗ the best of n: {said}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong, said",
    [
        (unstable, "logits of 200 and -200"),
        (lambda q, t: skip_penalty(q, t) / len(q), "three even coins"),
        (lambda q, t: skip_penalty(q, 1 - t), "at the target it is 0"),
        (lambda q, t: (q.sigmoid() - t).square().sum(), "three even coins"),
    ],
)
def test_wrong_penalties_are_named(wrong, said, capsys):
    assert not check.skip_penalty(wrong)
    assert f"✗ the skip penalty: {said}" in capsys.readouterr().out


def test_unsolved_is_told_and_raises_nothing(capsys):
    for one in (check.child_step, check.best_of_n, check.skip_penalty):
        assert not one(lambda *a: ...)
    assert capsys.readouterr().out.count("not solved yet") == 3
