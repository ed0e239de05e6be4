"""Checks of notebook 11: equal functions in the small space, and honest numbers about few runs."""

from collections.abc import Callable, Hashable, Sequence
from itertools import combinations
from typing import Any

from nasedu.check.contract import Cases, exercise
from nasedu.space.small import Names, architectures


def _formula(names: Names) -> tuple:
    into, across, onward = names
    paths = [(across,), (into, onward)]
    return tuple(sorted(tuple(op for op in p if op != "skip_connect") for p in paths if "none" not in p))


@exercise("the same function", hint="a path with `none` is gone, skips are left out, two paths are sorted")
def same_function(answer: Callable[[Names], Any]) -> Cases:
    """Check exercise 11.1: `answer(names)` is equal for two architectures if they are the same function."""

    def same(one: Names, other: Names) -> bool:
        return bool(answer(one) == answer(other))

    none, skip, one, three, pool = "none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3"
    yield "an edge that leads nowhere does not matter", same((one, pool, none), (three, pool, none)), True
    yield "nothing comes out of `none`", same((none, pool, three), (skip, pool, none)), True
    yield "skip, then convolution; convolution, then skip", same((skip, one, three), (three, one, skip)), True
    yield "a sum does not know its order", same((skip, one, three), (skip, three, one)), True
    yield "a path of skips is the input, not zero", same((none, three, none), (skip, three, skip)), False
    yield "two operations in a row have an order", same((one, skip, three), (three, skip, one)), False
    yield "twice the same path is not once", same((skip, pool, pool), (none, pool, none)), False
    mine: dict[Hashable, Names] = {}
    theirs: dict[Hashable, Names] = {}
    for names in architectures():  # the first of each family speaks for it
        first = next((other for other in mine.values() if same(other, names)), None)
        if first is None:
            mine[names] = names
        theirs.setdefault(_formula(names), names)
    yield "the number of functions", len(mine), 60
    yield "the first member of each family", sorted(mine.values()), sorted(theirs.values())


@exercise("the best of k, without replacement", hint="sum of v_i * comb(i - 1, k - 1) / comb(N, k), v sorted")
def best_without_replacement(answer: Callable[[Sequence[float], int], float]) -> Cases:
    """Check exercise 11.3: `answer(values, k)` is the expected largest of k different ones of the list."""
    values = [3.0, 1.0, 2.0]
    yield "k = 1 is the mean", answer(values, 1), 2.0
    yield "two of 1, 2, 3: (2 + 3 + 3) / 3", answer(values, 2), 8 / 3
    yield "all of them: the largest, for sure", answer(values, 3), 3.0
    yield "equal values, in any order", answer([5.0, 0.0, 5.0, 0.0], 2), 5 * (1 - 1 / 6)
    many = [((7 * i) % 12) ** 1.5 for i in range(12)]
    every = [max(chosen) for chosen in combinations(many, 4)]
    yield "four of twelve, all 495 choices tried", answer(many, 4), sum(every) / len(every)
    yield "the list is left as it was", values, [3.0, 1.0, 2.0]


@exercise("the permutation test", hint="share of all choices of len(a) runs whose |mean - mean| is as large")
def permutation_test(answer: Callable[[Sequence[float], Sequence[float]], float]) -> Cases:
    """Check exercise 11.2: `answer(a, b)` is the two-sided p-value of equal means over all ways to deal."""
    yield "one against one: both ways are as far apart", answer([1.0], [2.0]), 1.0
    yield "two against two, apart: 2 of 6 ways", answer([1.0, 2.0], [3.0, 4.0]), 1 / 3
    yield "the same, the other way round", answer([3.0, 4.0], [1.0, 2.0]), 1 / 3
    yield "five against five, apart: 2 of 252", answer([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]), 2 / 252
    yield "two against three, in between", answer([0.0, 5.0], [4.0, 6.0, 7.0]), 3 / 10
    yield "equal differences count, rounded or not", answer([0.7, 0.8, 0.6], [0.7, 0.6, 0.1]), 10 / 20
    yield "no difference at all", answer([0.4, 0.7, 0.1], [0.4, 0.1, 0.7]), 1.0
