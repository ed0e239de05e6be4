"""The checks of notebook 01: a right answer passes, a wrong one is told what was expected."""

import math

import pytest

from nasedu import check


def macro(n_layers, n_ops):
    return n_ops**n_layers * 2 ** (n_layers * (n_layers - 1) // 2)


def draws(q, p):
    return math.ceil(math.log(1 - p) / math.log(1 - q))


def best(results, n):
    size = len(results)
    return sum(v * ((i / size) ** n - ((i - 1) / size) ** n) for i, v in enumerate(sorted(results), start=1))


def distinct(n_ops):
    return n_ops**2 * (n_ops**2 + 1) // 2 + 2 * n_ops**4


RIGHT = [
    (check.macro_space, macro, 3),
    (check.draws_needed, draws, 4),
    (check.best_of, best, 5),
    (check.distinct_cells, distinct, 4),
]


@pytest.mark.parametrize(("ask", "answer", "cases"), RIGHT)
def test_right(ask, answer, cases, capsys):
    assert ask(answer)
    assert capsys.readouterr().out.count("✓") == cases


@pytest.mark.parametrize(("ask", "answer", "cases"), RIGHT)
def test_unsolved(ask, answer, cases, capsys):
    assert not ask(lambda *_: ...)
    assert capsys.readouterr().out.startswith("not solved yet")


@pytest.mark.parametrize(
    ("ask", "wrong", "expected"),
    [
        (check.macro_space, lambda layers, ops: ops**layers, "expected: 64\n  got:      8"),
        (check.macro_space, lambda layers, ops: float(macro(layers, ops)) * (1 + 1e-9), "exactly"),
        (check.draws_needed, lambda q, p: math.floor(math.log(1 - p) / math.log(1 - q)), "expected: 59"),
        (check.draws_needed, lambda q, p: round(p / q), "expected: 59"),
        (check.best_of, lambda results, n: max(results), "expected: 0.412"),
        (check.best_of, lambda results, n: sorted(results)[-len(results) // n :][0], "one draw is the mean"),
        (check.distinct_cells, lambda n_ops: 3 * n_ops**4, "2 operations"),
        (check.distinct_cells, lambda n_ops: 3 * n_ops**4 // 2, "expected: 3"),
    ],
)
def test_wrong(ask, wrong, expected, capsys):
    assert not ask(wrong)
    out = capsys.readouterr().out
    assert "✗" in out and expected in out and "hint" in out


def test_the_seven_operations_of_darts():
    assert distinct(7) == 6027
