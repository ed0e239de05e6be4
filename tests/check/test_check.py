"""The exercise contract: what a check prints and returns for a right, a wrong and an unsolved answer."""

import numpy as np
import pytest
import torch

from nasedu import check
from nasedu.check.contract import Cases, exercise


@exercise("doubling", hint="add x to itself")
def doubling(answer) -> Cases:
    """Check that `answer(x)` is 2 x."""
    yield "of a number", answer(3), 6
    yield "of a tensor", answer(torch.ones(2)), torch.tensor([2.0, 2.0])


def test_a_right_answer_passes_every_case(capsys):
    assert doubling(lambda x: x + x)
    assert capsys.readouterr().out == "✓ doubling: of a number\n✓ doubling: of a tensor\n"


def test_a_wrong_answer_says_what_was_expected_and_what_came(capsys):
    assert not doubling(lambda x: x + 3)
    out = capsys.readouterr().out
    assert out.startswith("✓ doubling: of a number\n✗ doubling: of a tensor\n")
    assert "expected: [2. 2.]" in out and "got:      [4. 4.]" in out
    assert "2 of 2 numbers differ, by up to 2" in out and "hint: add x to itself" in out


def not_implemented(x):
    raise NotImplementedError


@pytest.mark.parametrize("answer", [None, ..., lambda x: None, lambda x: ..., not_implemented])
def test_an_unsolved_exercise_is_told_and_raises_nothing(answer, capsys):
    assert not doubling(answer)
    out = capsys.readouterr().out
    assert out.startswith("not solved yet: doubling") and "✓" not in out


def test_a_case_that_is_not_solved_after_one_that_is(capsys):
    assert not doubling(lambda x: 6 if isinstance(x, int) else None)
    assert capsys.readouterr().out.startswith("✓ doubling: of a number\nnot solved yet: doubling")


def test_a_case_may_use_what_an_unsolved_function_returns(capsys):
    summed = exercise("sum")(lambda answer: iter([("of two", answer(torch.ones(2)).sum(), 2.0)]))
    assert not summed(lambda x: ...)
    assert capsys.readouterr().out.startswith("not solved yet: sum")
    assert summed(lambda x: x)


def test_an_answer_that_is_a_module_stays_one():
    is_linear = exercise("module")(lambda net: iter([("itself", isinstance(net, torch.nn.Linear), True)]))
    assert is_linear(torch.nn.Linear(1, 1))


def test_an_error_in_the_students_code_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        doubling(lambda x: x / 0)


def test_a_check_keeps_its_docstring_and_name():
    assert doubling.__doc__ == "Check that `answer(x)` is 2 x." and doubling.__name__ == "doubling"


SAME = [
    (1.0, 1.0 + 1e-7),
    (1, 1.0),
    (torch.tensor(0.25), 0.25),
    (np.float64(0.25), 0.25),
    (torch.tensor([[2.0]]), 2),
    (np.ones(3), torch.ones(3)),
    ([1.0, 1.0], torch.ones(2)),
    (torch.ones(2, dtype=torch.float64), torch.ones(2)),
    (torch.tensor([float("nan")]), torch.tensor([float("nan")])),
    ("skip_connect", "skip_connect"),
    (True, True),
    ((1, 2), [1, 2]),
    ({"a": torch.ones(2)}, {"a": torch.ones(2)}),
    ([("sep", 0), ("skip", 1)], [("sep", 0), ("skip", 1)]),
    (torch.Size([2, 3]), (2, 3)),
    ({0, 1}, {1, 0}),
]

DIFFERENT = [
    (1.0, 1.001),
    ("1", 1),
    (torch.ones(2), 1.0),
    (float("nan"), 1.0),
    (torch.ones(2, 3), torch.ones(3, 2)),
    (torch.ones(1), torch.ones(2)),
    (torch.tensor([float("nan")]), torch.ones(1)),
    ("six", torch.ones(1)),
    ([1.0, "x"], torch.ones(2)),
    ("skip", "skip_connect"),
    (torch.ones(1), "skip"),
    (False, True),
    ([1, 2, 3], [1, 2]),
    ("ab", ["a", "b"]),
    ({"a": 1}, {"b": 1}),
    (3, {"a": 1}),
    ({"a": torch.ones(2)}, {"a": torch.zeros(2)}),
    ([[1, 2], [3, 5]], [[1, 2], [3, 4]]),
]


@pytest.mark.parametrize(("got", "expected"), SAME)
def test_equal_accepts(got, expected, capsys):
    assert check.equal("thing", got, expected)
    assert capsys.readouterr().out == "✓ thing\n"


@pytest.mark.parametrize(("got", "expected"), DIFFERENT)
def test_equal_refuses_and_shows_both(got, expected, capsys):
    assert not check.equal("thing", got, expected, hint="look again")
    out = capsys.readouterr().out
    assert out.startswith("✗ thing\n") and "expected" in out and "got" in out and "hint: look again" in out


def test_a_difference_inside_a_container_is_located(capsys):
    check.equal("thing", {"normal": [1, 2]}, {"normal": [1, 3]})
    assert "expected['normal'][1]: 3\n  got['normal'][1]:      2" in capsys.readouterr().out


def test_shapes_are_compared_before_values(capsys):
    check.equal("thing", torch.zeros(2, 3), torch.ones(3, 2))
    assert "expected: shape (3, 2)\n  got:      shape (2, 3)" in capsys.readouterr().out


def test_a_large_tensor_is_shown_by_its_first_numbers(capsys):
    check.equal("thing", torch.zeros(8, 8), torch.ones(8, 8))
    out = capsys.readouterr().out
    assert "tensor of shape (8, 8): 1, 1, 1, 1, 1, 1, ..." in out and len(out) < 400


def test_the_tolerance_is_the_exercises(capsys):
    loose = exercise("about", tolerance=0.1)(lambda answer: iter([("six", answer, 6.0)]))
    assert loose(6.3) and not loose(7.0)


def test_a_gradient_carrying_tensor_is_compared(capsys):
    assert check.equal("thing", torch.ones(2, requires_grad=True) * 2, torch.full((2,), 2.0))


def test_every_named_check_says_what_it_checks():
    for name in check.__all__:
        assert getattr(check, name).__doc__, f"check.{name} has no docstring"
