"""Every error of the package is a NaseduError, and still the built-in it was."""

import importlib
import math
import pkgutil

import numpy as np
import pytest
import torch

import nasedu
from nasedu import NaseduError
from nasedu.data import DatasetError
from nasedu.errors import ArgumentError, check_number, check_whole


def own_errors():
    names = [m.name for m in pkgutil.walk_packages(nasedu.__path__, "nasedu.") if "__main__" not in m.name]
    for name in names:
        for value in vars(importlib.import_module(name)).values():
            if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == name:
                yield value


def test_every_error_derives_from_the_one_base_and_from_a_built_in():
    found = set(own_errors()) - {NaseduError}
    assert len(found) >= 9
    for error in found:
        assert issubclass(error, NaseduError), f"{error} must derive from NaseduError"
        assert issubclass(error, ValueError | RuntimeError | OSError), error


def test_a_user_catches_all_with_one_name():
    with pytest.raises(NaseduError):
        nasedu.Genotype.from_json("no genotype")


class Unsayable:
    def __repr__(self):
        raise RuntimeError("no")


def test_what_is_no_whole_number_in_the_range_is_told_by_name():
    odd = [
        0,
        -1,
        11,
        True,
        3.0,
        "5",
        None,
        10**5000,
        math.nan,
        np.float64(3),
        torch.ones(3),
        Unsayable(),
        [3],
    ]
    for value in odd:
        with pytest.raises(ArgumentError, match=r"n is .+; wanted a whole number from 1 to 10$") as caught:
            check_whole("n", value, 1, 10)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [1, 10, np.int64(3), np.uint8(3)])
def test_whole_numbers_of_any_make_are_taken_as_an_int(value):
    assert type(check_whole("n", value, 1, 10)) is int and check_whole("n", value, 1, 10) == value


def test_what_is_no_finite_number_in_the_range_is_told_by_name():
    for value in [-0.1, True, "0.5", None, 1j, math.nan, math.inf, 10**400, -(10**400)]:
        with pytest.raises(DatasetError, match=r"rate is .+; wanted a number from 0 up$"):
            check_number("rate", value, 0, error=DatasetError)
    assert check_number("rate", 3, 0) == 3.0 and check_number("rate", np.float32(0.5), 0, 1) == 0.5
