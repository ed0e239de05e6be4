"""Every error of the package is a NaseduError, and still the built-in it was."""

import importlib
import pkgutil

import pytest

import nasedu
from nasedu import NaseduError


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
