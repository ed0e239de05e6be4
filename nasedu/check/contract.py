"""What an exercise's check is: cases of (what, got, expected), told to the student in words.

A new check is a generator of such cases. It calls the student's function itself, on inputs it chooses:

    @exercise("the mixed edge", hint="sum over the operations: weight times output")
    def mixed_op(answer: Callable) -> Cases:
        \"\"\"Check exercise 04.1: `answer(x, ops, weights)` is the sum of weight times op(x).\"\"\"
        x = torch.ones(2, 3)
        double, zero = lambda x: 2 * x, torch.zeros_like
        yield "a one-hot row gives that operation alone", answer(x, [double, zero], [1.0, 0.0]), 2 * x
        yield "equal weights give the mean", answer(x, [double, zero], [0.5, 0.5]), x

It prints a line for each case and stops at the first that fails. An exercise that is not solved yet (the
answer is `None` or `...`, or raises NotImplementedError) is told so and raises nothing, so that a notebook
runs through. Any other error in the student's code is raised as it is: its traceback is what helps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any

import numpy as np
import torch

Cases = Iterator[tuple[str, Any, Any]]


def exercise(title: str, hint: str = "", tolerance: float = 1e-5) -> Callable:
    """Turn a generator of (what, got, expected) into a check that prints, and returns whether all passed.

    `tolerance` is absolute and relative, for every number the cases compare.
    """

    def decorate(cases: Callable[..., Cases]) -> Callable[..., bool]:
        @functools.wraps(cases)
        def check(*answers: Any) -> bool:
            if any(map(_is_empty, answers)):
                return _unsolved(title)
            try:
                for what, got, expected in cases(*map(_must_answer, answers)):
                    if not equal(f"{title}: {what}", got, expected, hint, tolerance):
                        return False
            except NotImplementedError:
                return _unsolved(title)
            return True

        return check

    return decorate


def equal(title: str, got: Any, expected: Any, hint: str = "", tolerance: float = 1e-5) -> bool:
    """Print whether `got` is `expected`, with both where it is not, and return it.

    Compares numbers, tensors and arrays up to `tolerance` (absolute and relative), sequences and mappings
    item by item, and anything else by `==`.
    """
    if _is_empty(got):
        return _unsolved(title)
    difference = _difference(got, expected, tolerance)
    if not difference:
        print(f"✓ {title}")
        return True
    print(f"✗ {title}\n{difference}" + (f"\n  hint: {hint}" if hint else ""))
    return False


def _must_answer(answer: Any) -> Any:
    # A case may use what the student's function returns before it is compared: `answer(x).sum()`.
    if not isinstance(answer, FunctionType):
        return answer

    @functools.wraps(answer)
    def called(*args: Any, **kwargs: Any) -> Any:
        result = answer(*args, **kwargs)
        if _is_empty(result):
            raise NotImplementedError(f"{answer.__name__} returned {result}")
        return result

    return called


def _unsolved(title: str) -> bool:
    print(f"not solved yet: {title}. Write your answer in the cell above, run it, then run this cell again.")
    return False


def _is_empty(answer: Any) -> bool:
    return answer is None or answer is ...


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _difference(got: Any, expected: Any, tolerance: float, where: str = "") -> str:
    """Say in words how `got` differs from `expected`; an empty string where it does not."""
    said = f"  expected{where}: {_show(expected)}\n  got{where}:      {_show(got)}"
    if _is_array(expected):
        return _array_difference(got, expected, tolerance, where)
    if _is_number(expected):
        # To a student a tensor of one element is a number.
        number = got.item() if _is_array(got) and math.prod(got.shape) == 1 else got
        close = _is_number(number) and math.isclose(number, expected, rel_tol=tolerance, abs_tol=tolerance)
        return "" if close else said
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping) or set(got) != set(expected):
            return said
        parts = ((key, got[key], expected[key]) for key in expected)
    elif isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(got, Sequence) or isinstance(got, str) or len(got) != len(expected):
            return said
        parts = ((i, g, e) for i, (g, e) in enumerate(zip(got, expected, strict=True)))
    else:
        return "" if not _is_array(got) and bool(got == expected) else said
    return next(filter(None, (_difference(g, e, tolerance, f"{where}[{k!r}]") for k, g, e in parts)), "")


def _array_difference(got: Any, expected: Any, tolerance: float, where: str) -> str:
    wanted = torch.as_tensor(expected).detach().cpu()
    try:
        came = torch.as_tensor(got).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        return f"  expected{where}: a tensor of shape {tuple(wanted.shape)}\n  got{where}:      {_show(got)}"
    if came.shape != wanted.shape:
        return f"  expected{where}: shape {tuple(wanted.shape)}\n  got{where}:      shape {tuple(came.shape)}"
    came, wanted = came.double(), wanted.double()
    close = torch.isclose(came, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
    if close.all():
        return ""
    return (
        f"  expected{where}: {_show(wanted)}\n  got{where}:      {_show(came)}\n"
        f"  {int((~close).sum())} of {close.numel()} numbers differ, "
        f"by up to {(came - wanted).abs().max().item():.3g}"
    )


def _show(value: Any, limit: int = 300) -> str:
    if isinstance(value, torch.Tensor):
        if value.numel() > 32:
            flat = ", ".join(f"{number:.4g}" for number in value.flatten()[:6].tolist())
            return f"tensor of shape {tuple(value.shape)}: {flat}, ..."
        return str(value.detach().cpu().numpy()).replace("\n", "\n            ")
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + " ..."
