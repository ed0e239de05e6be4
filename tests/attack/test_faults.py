"""Whatever is written when the disk fails: it is told by name, and the file of before is whole."""

import json
import os
from dataclasses import replace

import pytest
import torch
from faults import KINDS, failing
from models import small_darts
from rule import is_told

import nasedu.files
from nasedu import Genotype, History, draw_cell
from nasedu.data import download
from nasedu.show import alpha_heatmap, learning_curves, page
from nasedu.study import record, truth
from nasedu.study.recipe import Recipe
from nasedu.study.record import Record, conduct

ARCH = {"normal": torch.full((5, 8), 0.125), "reduce": torch.full((5, 8), 0.125)}
GENOTYPE = Genotype.derive(ARCH)
HISTORY = History([{"epoch": 1, "train_loss": 1.0, "train_acc1": 0.1, "valid_loss": 1.0, "valid_acc1": 0.2}])
RECIPE = Recipe(pixels=8, images=8, channels=2, layers=0, epochs=1, batch_size=4)
RECORD = Record("squares", RECIPE, "no data", "make squares")


def darts(checkpoint=None):
    return small_darts(2, 32, num_epochs=2, checkpoint=checkpoint, checkpoint_every=1)


def of_a_run(path):
    search = page.Search("DARTS", "so it goes", GENOTYPE, ARCH, HISTORY, {"Time": "1 s"})
    judged = [page.Judged(name, GENOTYPE, (0.3,), (0.2, 0.4), 100) for name in ("DARTS", "blind 1")]
    page.write(path, "A page", {"Data": "none"}, ["it is so"], judged, [search])


def a_download(path):
    path.with_name("source").write_bytes(b"x" * 1000)
    url, md5 = f"file://{path.with_name('source')}", download.md5_of(path.with_name("source"))
    return lambda: download.fetch([url], path, md5, tries=1, wait=0.0)


WRITERS = {
    "checkpoint": darts().save,
    "record": RECORD.save,
    "study": lambda path: conduct(replace(RECORD, name="new"), path, [], dict, progress=False),
    "truth table": lambda path: truth.load("truth_small").save(path),
    "history": HISTORY.save,
    "genotype": GENOTYPE.save,
    "text": lambda path: nasedu.files.save_text(path, "x" * 100_000),
    "a place that is tried": lambda path: nasedu.files.try_place(path, 10),
    **{f"plot.{kind}": alpha_heatmap(ARCH).save for kind in ("png", "svg", "pdf")},
    **{f"cell.{kind}": draw_cell(GENOTYPE, "normal").save for kind in ("svg", "pdf", "png", "dot")},
    "curves.png": learning_curves(HISTORY).save,
    "download": lambda path: a_download(path)(),
}
"""What writes a file, by a name that the file can have."""


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("source", "download.part")
    }


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_old_file_is_whole_and_the_error_names_it(tmp_path, kind, name):
    path, write, struck = tmp_path / name, WRITERS[name], 0
    for at, old in [(1, True)] if "." in name else [(1, True), (1, False), (2, True)]:
        for file in tmp_path.iterdir():
            file.unlink()
        if old and name != "study":  # which goes on from an old file
            path.write_bytes(b"old")
        before = content(tmp_path)
        error = None
        with failing(kind, path, at) as fault:
            try:
                write(path)
            except Exception as caught:
                error = caught
        if fault.struck:
            struck += 1
            assert error is not None and is_told(error), f"{at}: {error!r}"
            assert name in str(error) and (name == "download" or "give " in str(error)), error
            # The second sync is of the folder: the new file is there, but may not be after a power cut.
            assert content(tmp_path) == before or (kind, at) == ("fsync", 2)
        else:
            assert error is None and not [n for n in os.listdir(tmp_path) if n.endswith(".part")]
    never = (kind, name) in (("replace", "a place that is tried"), ("fsync", "download"))
    assert bool(struck) != never


@pytest.mark.parametrize("kind", ["full", "replace"])
def test_the_page_of_a_run(tmp_path, kind):
    of_a_run(tmp_path / "whole")
    whole = content(tmp_path / "whole")
    assert len(whole) > 8
    for at in (1, 4):
        out = tmp_path / f"out{at}"
        with failing(kind, out, at) as fault:
            try:
                of_a_run(out)
            except Exception as error:
                assert fault.struck and is_told(error) and str(out) in str(error), repr(error)
            else:
                assert not fault.struck
        if not fault.struck:
            continue
        # What is there is whole: as it should be, every file of it.
        assert all(whole[name] == data for name, data in content(out).items() if name != "index.html")
        assert "index.html" not in content(out)


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_whose_disk_fails_is_told_and_goes_on_from_what_it_saved(tmp_path, kind):
    wanted = darts().fit()
    for at in (1, 4):
        path = tmp_path / f"{at}.pt"
        with failing(kind, path, at) as fault:
            try:
                darts(path).fit()
            except Exception as error:
                assert fault.struck and is_told(error) and f"cannot write {path}: " in str(error), repr(error)
            else:
                assert not fault.struck
        assert [name for name in os.listdir(tmp_path) if not name.endswith(".pt")] == []
        assert darts(path).fit() == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_whose_disk_fails_keeps_the_rows_that_it_has(tmp_path, kind):
    keys = [{"method": "a", "seed": seed} for seed in range(4)]
    for at in (2, 4):
        path = tmp_path / f"{at}.json"
        with failing(kind, path, at) as fault:
            try:
                conduct(RECORD, path, keys, lambda key: {"square": key["seed"] ** 2}, progress=False)
            except Exception as error:
                assert fault.struck and is_told(error) and str(path) in str(error), repr(error)
        if path.exists():
            assert all(json.dumps(row) for row in record.load(path))
        made = conduct(RECORD, path, keys, lambda key: {"square": key["seed"] ** 2}, progress=False)
        assert [row["square"] for row in made] == [0, 1, 4, 9]
        assert sorted(os.listdir(tmp_path))[-1] == f"{at}.json"
