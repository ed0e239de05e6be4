"""The rule itself: what counts as told, and what as a finding."""

import json
import time

import pytest
import rule
from rule import inputs, judge

from nasedu import NaseduError


def fresh(monkeypatch):
    monkeypatch.setattr(rule, "tally", type(rule.tally)())


def raises(error):
    def call():
        raise error

    return call


def test_an_error_of_the_package_is_told_and_a_good_result_right(monkeypatch):
    fresh(monkeypatch)
    assert judge("x", raises(NaseduError("got 3, wanted 2, give 2"))) == "told"
    assert judge("x", lambda: 3, right=lambda result: result == 3) == "right"
    assert dict(rule.tally) == {("x", "told"): 1, ("x", "right"): 1}


def wrong():
    raise AssertionError("not what it must be")


@pytest.mark.parametrize(
    "call, right",
    [
        (raises(KeyError("epoch")), None),
        (raises(TypeError("not a number at all, sir")), None),
        (raises(NaseduError("no")), None),  # says nothing
        (lambda: json.loads("["), None),  # a ValueError, but of another's lines
        (raises(ValueError("got 3, wanted 2, give 2")), None),  # of this file's lines
        (raises(SystemExit("one two three four")), None),
        (lambda: 3, lambda result: result == 4),
        (lambda: 3, lambda result: wrong()),
        (lambda: time.sleep(5), None),
    ],
)
def test_all_else_is_a_finding(call, right, monkeypatch):
    fresh(monkeypatch)
    with pytest.raises(AssertionError, match="finding"):
        judge("x", call, right or (lambda result: True), seconds=0.2)
    assert dict(rule.tally) == {("x", "finding"): 1}


def test_the_shares_make_up_the_whole():
    assert sum(len(inputs(kind)) for kind in rule.SHARES) == rule.TOTAL
