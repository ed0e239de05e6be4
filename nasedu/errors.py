"""The base of every error that this package raises on purpose, and the checks of values that it shares."""

import json
import math
import numbers
import reprlib
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


class NaseduError(Exception):
    """What was given can't be used: the message names the value, what was wanted, and what to do.

    `ArchError`, `GenotypeError`, `DatasetError`, `CheckpointError` and the others derive from it, and from
    the built-in they always were: ValueError, RuntimeError, OSError.
    """


class ArgumentError(NaseduError, ValueError):
    """An argument is nothing that can be used."""


def short(value: object) -> str:
    """`value` in a line of a message: its repr, bounded in length and depth; of a tensor type and shape."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    try:
        text = " ".join(_SHORT.repr(value).split())
        return text if len(text) <= 200 else f"{text[:197]}..."
    except Exception:  # an int of 5,000 digits has no repr, and an object may have a broken one
        return f"a {type(value).__name__}"


def _range(least: float, most: float) -> str:
    return f"from {least:,} up" if most == math.inf else f"from {least:,} to {most:,}"


def check_whole(
    name: str, value: Any, least: int, most: float = math.inf, error: type[NaseduError] = ArgumentError
) -> int:
    """`value` as an int. Raises `error` unless it is a whole number (no bool, no 3.0) from `least` to `most`.

    `name` is what the message calls it, such as "batch_size".
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not least <= int(value) <= most:
        raise error(f"{name} is {short(value)}; wanted a whole number {_range(least, most)}")
    return int(value)


def check_number(
    name: str, value: Any, least: float, most: float = math.inf, error: type[NaseduError] = ArgumentError
) -> float:
    """`value` as a float. Raises `error` unless it is a finite number (no bool) from `least` to `most`."""
    try:
        number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an int that no float holds
        number = math.nan
    if not (math.isfinite(number) and least <= number <= most):
        raise error(f"{name} is {short(value)}; wanted a number {_range(least, most)}")
    return number


def check_callable(name: str, value: Any, or_none: bool = False) -> None:
    """Raise ArgumentError unless it can be called, or is None where that means something."""
    if (not callable(value) or isinstance(value, type)) and not (or_none and value is None):
        raise ArgumentError(f"{name} is {short(value)}; wanted a function{', or None' if or_none else ''}")


def check_flag(name: str, value: Any, or_none: bool = False) -> None:
    """Raise ArgumentError unless it is True or False, or None where that means something."""
    if not isinstance(value, bool) and not (or_none and value is None):
        raise ArgumentError(f"{name} is {short(value)}; wanted True or False{', or None' if or_none else ''}")


def parsed(text: str, what: str, error: type[NaseduError]) -> Any:
    """What strict JSON text says: no NaN, and no number that a float can't hold. Raises `error`.

    `what` is what the message calls it, such as "a record".
    """

    def number(text: str) -> float | int:
        value = int(text) if text.lstrip("-").isdigit() and len(text) < 300 else float(text)
        if not math.isfinite(value):
            raise ValueError(f"the number {text:.20}... is not finite")
        return value

    def constant(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    try:
        return json.loads(text, parse_int=number, parse_float=number, parse_constant=constant)
    except RecursionError as nested:
        raise error(f"{what} is JSON text, and this is nested too deeply to be one") from nested
    except (ValueError, TypeError) as broken:
        raise error(f"{what} is JSON text, and this is not: {broken}") from broken
