"""A record is one file: whole, resumable, refused where it belongs to something else or was tampered with."""

import json
import random
from dataclasses import replace

import pytest
import torch

from nasedu import Genotype
from nasedu.files import FileError
from nasedu.study import record, truth
from nasedu.study.recipe import Recipe
from nasedu.study.record import Record, RecordError, conduct, left, load

RECIPE = Recipe(pixels=8, images=8, channels=2, layers=0, epochs=1, batch_size=4)
EMPTY = Record("squares", RECIPE, "no data", "make squares")
KEYS = [{"method": "a", "seed": 0}, {"method": "a", "seed": 1}, {"method": "b", "seed": 0}]


def run(key):
    history = [{"epoch": 1, "train_loss": 0.5}]
    return {"square": (key["seed"] + 3) ** 2, "pair": (1, 2), "history": history}


@pytest.fixture
def squares(tmp_path):
    return conduct(EMPTY, tmp_path / "squares.json", KEYS, run, progress=False)


def test_rows_have_their_key_their_stamp_and_what_they_gave(squares):
    assert [row["key"] for row in squares] == KEYS and squares.seeds == [0, 1]
    assert [row["square"] for row in squares] == [9, 16, 9] and squares[-1]["pair"] == [1, 2]
    assert all(row["seconds"] >= 0 and row["date"] >= squares.date for row in squares)
    assert squares.device and squares.versions["torch"] == torch.__version__


def test_the_file_gives_the_record_back(squares, tmp_path):
    assert load(tmp_path / "squares.json") == squares == Record.from_json(squares.to_json())
    assert len(squares.to_json().splitlines()) == 1 + 3 + 1, "a line for each row"


def test_select_takes_the_rows_of_a_key(squares):
    assert [row["key"]["seed"] for row in squares.select(method="a")] == [0, 1]
    assert squares.select(method="b", seed=0)[0]["square"] == 9
    with pytest.raises(RecordError, match=r"no run with .*'c'.*it has .*\"a\""):
        squares.select(method="c")


def test_the_history_is_of_a_record_of_one_run(squares):
    one = replace(squares, rows=squares.rows[:1])
    assert one.history.column("train_loss") == [0.5] and one.history.seconds == squares[0]["seconds"]
    with pytest.raises(RecordError, match="'squares' has 3 runs"):
        squares.history  # noqa: B018


def test_goes_on_where_it_was_stopped_and_does_nothing_twice(tmp_path):
    done = []

    def interrupted(key):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(key)
        return run(key)

    out = tmp_path / "squares.json"
    with pytest.raises(KeyboardInterrupt):
        conduct(EMPTY, out, KEYS, interrupted, progress=False)
    assert [row["key"] for row in load(out)] == KEYS[:2]
    seen = []
    whole = conduct(EMPTY, out, KEYS, lambda key: seen.append(key) or run(key), progress=False)
    assert seen == KEYS[2:] and [row["key"] for row in whole] == KEYS


@pytest.mark.parametrize(
    "other", [{"name": "cubes"}, {"recipe": replace(RECIPE, lr=0.3)}, {"data": "other images"}]
)
def test_a_record_of_something_else_is_refused_and_the_file_kept(squares, tmp_path, other):
    out = tmp_path / "squares.json"
    before = out.read_bytes()
    with pytest.raises(RecordError, match="use the same arguments, or give another file"):
        conduct(replace(EMPTY, **other), out, KEYS, run, progress=False)
    assert out.read_bytes() == before


def test_a_place_that_cannot_be_written_is_told_before_the_first_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write .*a part of the path is a file.*give another path"):
        conduct(EMPTY, tmp_path / "file" / "x.json", KEYS, pytest.fail, progress=False)


def test_a_second_process_that_makes_the_same_record_is_told(tmp_path):
    def again(key):
        with pytest.raises(FileError, match="squares.json is in use by process"):
            conduct(EMPTY, tmp_path / "squares.json", KEYS, pytest.fail, progress=False)
        return run(key)

    assert len(conduct(EMPTY, tmp_path / "squares.json", KEYS, again, progress=False)) == 3


def test_a_row_of_another_machine_says_so(squares, tmp_path, monkeypatch):
    elsewhere = {**record.stamp(), "device": "an abacus"}
    monkeypatch.setattr(record, "stamp", lambda *_: elsewhere)
    more = conduct(EMPTY, tmp_path / "squares.json", [*KEYS, {"method": "b", "seed": 1}], run, progress=False)
    assert more[-1]["device"] == "an abacus" and "device" not in more[0] and "abacus" in more.provenance


def test_the_bar_says_how_long_is_left():
    rows = [{"key": {"method": m}, "seconds": s} for m, s in (("a", 60), ("a", 180), ("b", 6000))]
    there = replace(EMPTY, rows=tuple(rows))
    assert left(there, [{"method": "a"}] * 3) == "about 6 min left"
    assert left(there, [{"method": "b"}, {"method": "a"}]) == "about 1 h 42 min left"
    assert left(there, [{"method": "new"}]) == "about 35 min left", "as the others on average"
    assert left(EMPTY, [{"method": "a"}]) == "the first"


def test_the_bar_is_drawn(tmp_path, capsys):
    conduct(EMPTY, tmp_path / "x.json", KEYS, run)
    said = capsys.readouterr().err
    assert "squares" in said and "3/3" in said and "left" in said


def test_provenance_says_what_when_where_and_how_again(squares):
    text = squares.provenance
    assert "squares: 3 runs on no data" in text and "epochs 1" in text and "again: make squares" in text
    assert squares.date[:10] in text and squares.device in text and "CPU minutes" in text
    assert str(squares.recipe) in text


def test_provenance_fits_on_a_slide_and_its_command_can_be_copied():
    for name in ("darts_cifar10", "enas_cells", "many_seeds"):
        kept = load(name)
        assert max(map(len, kept.provenance.splitlines())) <= 88
        assert kept.command == kept.provenance.split("again: ")[1].replace(" \\\n    ", " ")
        assert " ".join(kept.provenance.split()).startswith(f"{name}: {len(kept)} run")


# ---- what is no record


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: "no json",
        lambda data: "[" * 100_000,
        lambda data: '{"a":' * 100_000,
        lambda data: json.dumps([1]),
        lambda data: json.dumps({**data, "format": "other"}),
        lambda data: json.dumps({**data, "version": 2}),
        lambda data: json.dumps({**data, "more": 1}),
        lambda data: json.dumps({**data, "recipe": {}}),
        lambda data: json.dumps({**data, "recipe": {**data["recipe"], "epochs": "1"}}),
        lambda data: json.dumps({**data, "rows": [{"key": {}}]}),
        lambda data: json.dumps({**data, "rows": 7}),
        lambda data: json.dumps({**data, "date": "yesterday"}),
        lambda data: json.dumps({**data, "date": None}),
        lambda data: json.dumps({**data, "versions": {"torch": 2}}),
        lambda data: json.dumps({**data, "clock": "sun"}),
        lambda data: json.dumps({**data, "rows": [data["rows"][0]] * 2}),
        *(
            lambda data, change=change: json.dumps({**data, "rows": [{**data["rows"][0], **change}]})
            for change in (
                {"seconds": -1},
                {"seconds": None},
                {"seconds": True},
                {"seconds": 10**400},
                {"seconds": float("nan")},
                {"seconds": float("inf")},
                {"key": []},
                {"key": {"seed": "0"}},
                {"key": {"seed": None}},
                {"key": {"method": {}}},
                {"history": {}},
                {"history": [1]},
                {"history": [{"loss": 1}]},
                {"date": 5},
                {"device": 5},
            )
        ),
        *(
            lambda data, drop=drop: json.dumps({k: v for k, v in data.items() if k != drop})
            for drop in ("recipe", "rows", "device", "command", "format")
        ),
    ],
)
def test_a_file_that_is_no_record_is_refused(squares, spoil):
    with pytest.raises(RecordError):
        Record.from_json(spoil(json.loads(squares.to_json())))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\x80"])
def test_a_file_that_is_no_text_is_told_by_name(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(RecordError, match="x.json: "):
        load(tmp_path / "x.json")


def places(data, path=()):
    """Every place in a JSON value, as a path of keys."""
    yield path
    if isinstance(data, dict | list):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield from places(data[key], (*path, key))


ODD = (None, True, -1, 10**30, 1.5, "", "x", [], [[]], {}, {"seed": []}, float("nan"))


@pytest.mark.parametrize("seed", range(4))
def test_a_mutated_record_is_refused_or_can_be_used(squares, seed):
    # A thousand mutations; of those that are accepted nothing may crash later.
    dice, kept = random.Random(seed), json.loads(squares.to_json())
    told = used = 0
    for _ in range(250):
        data = json.loads(json.dumps(kept))
        path = dice.choice([p for p in places(data) if p])
        at = data
        for key in path[:-1]:
            at = at[key]
        if dice.random() < 0.3:
            del at[path[-1]]
        else:
            at[path[-1]] = dice.choice(ODD)
        try:
            found = Record.from_json(json.dumps(data))
        except RecordError:
            told += 1
            continue
        used += 1
        assert found.provenance and found.seeds is not None and found.minutes >= 0
        assert Record.from_json(found.to_json()) == found
        for row in found:
            found.select(**row["key"])
            assert left(found, [row["key"]])
    assert told > 50 and used > 20


# ---- the records that came with the package


@pytest.mark.parametrize("name", record.shipped())
def test_every_shipped_record_is_of_real_images_and_says_how_it_was_made(name):
    found = load(name)
    assert found.name == name and len(found) and found.minutes > 0 and found.device and found.date
    assert found.command.startswith("python -m nasedu ")
    assert ("cifar" in found.data) == (name != "truth_small")


@pytest.mark.parametrize("name", ["darts_cifar10", "enas_cifar10"])
def test_every_recorded_search_is_complete(name):
    found = load(name)
    (row,), recipe, epochs = found.rows, found.recipe, found.history.epochs
    assert recipe.images >= 10_000 and recipe.epochs >= 10 and recipe.channels >= 8 and recipe.layers >= 5
    assert len(epochs) == recipe.epochs_of(row["key"]["method"])
    assert epochs[-1]["train_acc1"] > epochs[0]["train_acc1"] > 0.1, "it learned"
    genotypes = [Genotype.from_dict(each) for each in row["genotypes"]]
    if row["key"]["method"] == "DARTS 1st":
        derived = [Genotype.derive({k: torch.tensor(m) for k, m in line["arch"].items()}) for line in epochs]
        assert derived == genotypes, "the genotypes are those of the matrices"
        assert {"supernet_acc1", "derived_acc1"} <= set(epochs[0])


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(RecordError, match="no record 'nothing'; there are .*small_space.*or give a file"):
        load("nothing")


def test_a_truth_table_is_a_record():
    table, found = truth.load(), load("truth")
    assert len(found) == len(table) == 375
    assert table.to_record() == found
