"""The checks of notebook 11: a right answer passes, each known slip fails at a case that names it."""

from itertools import combinations
from math import comb

import pytest

from nasedu import check


def formula(names, slip=""):
    into, across, onward = names
    paths = [[across], [into, onward]]
    if slip != "none":
        paths = [path for path in paths if "none" not in path]
    if slip != "skip":
        paths = [[op for op in path if op != "skip_connect"] for path in paths]
    if slip == "skips are no path":
        paths = [path for path in paths if path]
    if slip == "order inside":
        paths = [sorted(path) for path in paths]
    if slip == "a set":
        return frozenset(tuple(path) for path in paths)
    return paths if slip == "order" else sorted(paths)


def best(values, k, slip=""):
    values = values if slip == "unsorted" else sorted(values)
    n = len(values)
    if slip == "with replacement":
        return sum(v * ((i + 1) ** k - i**k) / n**k for i, v in enumerate(values))
    return sum(v * comb(i, k - 1) for i, v in enumerate(values)) / comb(n, k)


def p_value(a, b, slip=""):
    runs, n = [*a, *b], len(a)

    def difference(chosen):
        rest = [run for i, run in enumerate(runs) if i not in chosen]
        d = sum(runs[i] for i in chosen) / n - sum(rest) / len(rest)
        return d if slip == "one side" else abs(d)

    real = difference(range(n))
    ways = [difference(chosen) for chosen in combinations(range(len(runs)), n)]
    if slip == "more only":
        return sum(d > real + 1e-12 for d in ways) / len(ways)
    return sum(d >= real - (0 if slip == "rounding" else 1e-12) for d in ways) / len(ways)


def test_right_answers_pass(capsys):
    assert check.same_function(formula)
    assert check.best_without_replacement(best) and check.permutation_test(p_value)
    assert "✗" not in (out := capsys.readouterr().out) and out.count("✓") == 9 + 6 + 7


@pytest.mark.parametrize(
    "slip, said",
    [
        ("none", "an edge that leads nowhere"),
        ("skip", "skip, then convolution"),
        ("skips are no path", "a path of skips is the input"),
        ("order", "a sum does not know its order"),
        ("order inside", "two operations in a row"),
        ("a set", "twice the same path"),
    ],
)
def test_wrong_formulas_fail_at_the_rule_they_miss(slip, said, capsys):
    assert not check.same_function(lambda names: formula(names, slip))
    out = capsys.readouterr().out
    assert said in out.split("✗")[1] and "expected" in out


def test_a_formula_that_passes_the_pairs_but_joins_two_families_fails_at_the_count(capsys):
    def blunt(names):  # does not see pools beside 3x3 convolutions
        made = formula(names)
        return [["conv_3x3"]] if made == [["avg_pool_3x3"], ["conv_3x3"]] else made

    assert not check.same_function(blunt)
    assert "✗ the same function: the number of functions" in capsys.readouterr().out


@pytest.mark.parametrize(
    "slip, said", [("unsorted", "two of 1, 2, 3"), ("with replacement", "two of 1, 2, 3")]
)
def test_a_wrong_best_fails(slip, said, capsys):
    assert not check.best_without_replacement(lambda values, k: best(values, k, slip))
    assert said in (out := capsys.readouterr().out).split("✗")[1] and "expected" in out


def test_a_best_that_sorts_the_list_in_place_is_told(capsys):
    def in_place(values, k):
        values.sort()
        return best(values, k)

    assert not check.best_without_replacement(in_place)
    assert "✗ the best of k, without replacement: the list is left" in capsys.readouterr().out


@pytest.mark.parametrize(
    "slip, said",
    [
        ("one side", "two against two"),
        ("more only", "one against one"),
        ("rounding", "equal differences count"),
    ],
)
def test_wrong_p_values_fail(slip, said, capsys):
    assert not check.permutation_test(lambda a, b: p_value(a, b, slip))
    assert said in (out := capsys.readouterr().out).split("✗")[1] and "expected" in out


def test_unsolved_is_told_and_raises_nothing(capsys):
    for one in (check.same_function, check.best_without_replacement, check.permutation_test):
        assert not one(lambda *a: ...)
    assert capsys.readouterr().out.count("not solved yet") == 3
