"""ENAS's controller learns: the recorded cell searches say so; the study that made them, in seconds."""

import math
from dataclasses import replace
from statistics import mean, stdev

import pytest

from nasedu import get_dataset
from nasedu.study import record
from nasedu.study.enas_study import KEYS, VARIANTS, EnasProtocol, conducted, enas_cells, recipe

TINY = EnasProtocol(
    pixels=8, images=64, channels=2, layers=3, nodes=1, batch_size=8, child_epochs=1, epochs=2, updates=1,
    samples=2, reward_images=8, judged=3, judged_images=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return get_dataset("shapes10", subset=(64, 16), input_size=8)[0]


def test_over_five_seeds_the_taught_controller_beats_the_untaught_one_on_the_same_images():
    found = record.load("enas_cells").select(method="works")
    gains = [mean(row["taught"]) - mean(row["untaught"]) for row in found]
    assert sorted(row["key"]["seed"] for row in found) == [0, 1, 2, 3, 4]
    half = 2.776 * stdev(gains) / math.sqrt(len(gains))  # Student's t, 95 %, 4 degrees of freedom
    assert mean(gains) - half > 0, gains
    for row in found:
        entropy = [line["entropy"] for line in row["history"]]
        assert entropy[19] == pytest.approx(entropy[0], abs=0.3) and entropy[-1] < 0.6 * entropy[0]


def test_the_record_is_of_the_settings_that_the_study_has():
    kept = record.load("enas_cells")
    assert kept.recipe == recipe(EnasProtocol())
    keys = {(row["key"]["method"], row["key"]["seed"]) for row in kept}
    assert keys <= set(KEYS) and {name for name, _ in keys} <= set(VARIANTS)


@pytest.mark.parametrize("method", ["works", "all four"])
def test_a_run_repeats_itself_and_judges_both_controllers_on_the_same_images(images, method):
    run = enas_cells(TINY, images)
    first = run({"method": method, "seed": 3})
    assert first == run({"method": method, "seed": 3})
    assert len(first["taught"]) == len(first["untaught"]) == TINY.judged
    assert [line["epoch"] for line in first["history"]] == [1, 2]
    untouched = enas_cells(replace(TINY, child_epochs=2), images)({"method": "works", "seed": 3})
    assert untouched["taught"] == untouched["untaught"], "a controller that never moved draws the same cells"


def test_the_study_goes_on_where_it_stopped(images, tmp_path, monkeypatch):
    monkeypatch.setattr("nasedu.study.enas_study.KEYS", [("works", 0), ("works", 1)])
    out = tmp_path / "cells.json"
    made = conducted(TINY, images, str(out), progress=False)
    assert [row["key"]["seed"] for row in made] == [0, 1]
    before = out.read_bytes()
    assert conducted(TINY, images, str(out), progress=False) == made and out.read_bytes() == before
