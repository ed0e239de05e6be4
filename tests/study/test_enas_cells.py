"""ENAS's controller learns: the recorded cell searches say so; the study that made them, in seconds."""

import math
from dataclasses import replace
from statistics import mean, stdev

import pytest

from nasedu import get_dataset
from nasedu.study import record
from nasedu.study.protocols import CHANGED, ENAS_CELLS, enas_cells

SHORT = {"child_epochs": 1, "ctrl_steps": 1, "ctrl_steps_aggregate": 2}
TINY = replace(
    ENAS_CELLS, pixels=8, images=64, channels=2, layers=3, epochs=2, batch_size=8, crop_padding=1,
    methods={
        "works": {**ENAS_CELLS.methods["works"], **SHORT, "reward_images": 8},
        "all four": {**ENAS_CELLS.methods["all four"], **SHORT, "child_epochs": 0},
    },
    model={**ENAS_CELLS.model, "n_nodes": 1},
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
    assert kept.recipe == ENAS_CELLS
    assert {row["key"]["method"] for row in kept} <= set(CHANGED)
    assert all(len(row["taught"]) == len(row["untaught"]) == 40 for row in kept)
    assert all(len(row["history"]) == ENAS_CELLS.epochs for row in kept)


@pytest.mark.parametrize("method", ["works", "all four"])
def test_a_run_repeats_itself_and_judges_both_controllers_on_the_same_images(images, method):
    run = enas_cells(TINY, (images, images, images))
    first = run({"method": method, "seed": 3})
    assert first == run({"method": method, "seed": 3})
    assert len(first["taught"]) == len(first["untaught"]) == 40
    assert [line["epoch"] for line in first["history"]] == [1, 2]


def test_a_controller_that_never_moved_draws_the_same_cells(images):
    still = {"works": {**TINY.methods["works"], "child_epochs": 2}}
    row = enas_cells(replace(TINY, methods=still), (images, images, images))({"method": "works", "seed": 3})
    assert row["taught"] == row["untaught"]


def test_the_taught_cells_are_the_taught_controllers(images):
    fast = {"works": {**TINY.methods["works"], "ctrl_lr": 5.0}}
    run = enas_cells(replace(TINY, methods=fast), (images, images, images))
    rows = (run({"method": "works", "seed": seed}) for seed in (3, 4, 5))
    assert any(row["taught"] != row["untaught"] for row in rows)  # in one run all rewards may be the same
