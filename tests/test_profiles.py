"""The table of sizes, and how NASEDU_PROFILE picks a row."""

import dataclasses

import pytest
import torch

from nasedu import profiles
from nasedu.profiles import PROFILES, TABLE, Profile, profile


def test_the_table_has_exactly_the_fields():
    assert ["name", *TABLE] == [field.name for field in dataclasses.fields(Profile)]
    assert tuple(PROFILES) == profiles.NAMES == ("ci", "laptop", "gpu")


@pytest.mark.parametrize("name", ["ci", "laptop"])
def test_the_variable_names_the_row(name, monkeypatch):
    monkeypatch.setenv("NASEDU_PROFILE", name)
    assert profile() is PROFILES[name] and profile().name == name
    assert profile().device == torch.device("cpu")


@pytest.mark.parametrize("unset", [True, False])
@pytest.mark.parametrize(("there", "name"), [(False, "laptop"), (True, "gpu")])
def test_unset_or_empty_it_is_what_the_machine_has(unset, there, name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    if unset:
        monkeypatch.delenv("NASEDU_PROFILE", raising=False)
    else:
        monkeypatch.setenv("NASEDU_PROFILE", "")
    assert profile().name == name


def test_an_unknown_name_is_an_error_that_lists_the_known(monkeypatch):
    monkeypatch.setenv("NASEDU_PROFILE", "Laptop")
    with pytest.raises(ValueError, match="'Laptop'.*ci, laptop, gpu"):
        profile()


def test_gpu_without_a_gpu_is_an_error(monkeypatch):
    monkeypatch.setenv("NASEDU_PROFILE", "gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no CUDA device.*laptop"):
        profile()


def test_ci_needs_no_file_and_no_network():
    assert PROFILES["ci"].dataset == "shapes10"


def test_every_number_is_usable_and_ci_is_the_smallest():
    for field in TABLE:
        values = [getattr(row, field) for row in PROFILES.values()]
        if all(isinstance(value, int) for value in values):
            larger = values[:2] if field == "run_processes" else values  # a GPU is one
            assert values[0] > 0 and larger == sorted(larger), f"{field}: {values}"


def test_a_row_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROFILES["ci"].images = 3  # type: ignore[misc]


def test_a_row_says_its_sizes():
    text = str(PROFILES["laptop"])
    assert (
        text.startswith("profile laptop: dataset auto, 4,000 training images of 16x16") and "on cpu" in text
    )
