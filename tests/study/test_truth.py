"""The truth table: rows are made again and compared, a file is read whole or refused by name."""

import json
from dataclasses import replace

import pytest
import torch

from nasedu.space import small
from nasedu.study import truth
from nasedu.study.truth import SMALL, TRUTH, Row, Table, TruthError

HEAD = {"date": "2026-11-24", "device": "d", "versions": {"torch": "2"}, "data": "x", "command": "c"}
NAMES = ("conv_3x3", "skip_connect", "none")


def row(names=NAMES, seed=0, **changed):
    fields = {"valid_accuracy": 0.5, "test_accuracy": 0.25, "seconds": 1.5, "parameters": 10}
    return Row(names, seed, **{**fields, "curve": (0.25, 0.5), "losses": (2.0, 1.0), **changed})


def full(seeds=(0, 1)):
    """All 125 rows of each seed; the test accuracy tells which."""
    rows = [
        row(names, seed, test_accuracy=(i + 125 * seed) / 1000)
        for i, names in enumerate(small.architectures())
        for seed in seeds
    ]
    return Table(SMALL, tuple(rows), HEAD)


# ---- the rows that came with the package


@pytest.mark.parametrize(
    "names",
    [
        ("conv_3x3", "conv_3x3", "conv_3x3"),
        ("skip_connect", "conv_1x1", "avg_pool_3x3"),
        ("avg_pool_3x3", "none", "conv_3x3"),
    ],
    ids="|".join,
)
def test_a_row_trained_again_is_the_recorded_one(names):
    torch.set_num_threads(1)
    (recorded,) = [row for row in truth.load_small() if row.names == names]
    torch.manual_seed(1)
    again = truth.train(SMALL, SMALL.datasets("shapes10"), names, 0)
    assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(1)))
    assert again.losses == pytest.approx(recorded.losses, abs=1e-5)
    assert again.curve == pytest.approx(recorded.curve, abs=1.01 / SMALL.valid_images)
    assert again.valid_accuracy == again.curve[-1]
    assert again.test_accuracy == pytest.approx(recorded.test_accuracy, abs=1.01 / SMALL.test_images)
    assert (again.names, again.seed, again.parameters) == (names, 0, recorded.parameters)
    other = truth.train(SMALL, SMALL.datasets("shapes10"), names, 1)
    assert other.losses != again.losses


def test_the_small_table_is_complete():
    table = truth.load_small()
    assert table.recipe == SMALL and table.seeds == [0] and table.missing([0]) == []
    assert [row.names for row in table] == small.architectures()
    for row in table:
        assert row.parameters == small.parameters_of(row.names, SMALL.channels)
        assert len(row.curve) == SMALL.epochs and row.curve[-1] == row.valid_accuracy
    assert "shapes10" in table.provenance["data"] and "truth --small" in table.provenance["command"]
    # Where no edge carries the input on, all architectures are the same classifier of nothing.
    nothing = {row.losses for row in table if row.names[1:] == ("none", "none")}
    assert len(nothing) == 1 and len({row.losses for row in table}) > 80


def test_the_shipped_table_is_complete():
    table = truth.load()
    assert len(table) == 375 and table.seeds == [0, 1, 2] and table.missing(range(3)) == []
    assert table.recipe == TRUTH and "cifar10" in table.provenance["data"]
    for row in table:
        assert 0 <= row.valid_accuracy <= 1 and 0 <= row.test_accuracy <= 1 and row.seconds > 0
        assert len(row.curve) == len(row.losses) == table.recipe.epochs
        assert row.curve[-1] == row.valid_accuracy
        assert row.parameters == small.parameters_of(row.names, table.recipe.channels)
    accuracies = table.mean("test_accuracy")
    assert accuracies[0] == pytest.approx(0.1, abs=0.01), "no operation at all: a guess among ten"
    best = small.architectures()[int(accuracies.argmax())]
    assert accuracies.max() > 0.5 and "conv_3x3" in best


def test_the_parts_of_a_dataset_share_no_image():
    train, valid, test = SMALL.datasets("shapes10")
    assert (len(train), len(valid), len(test)) == (96, 64, 64) and train.images.shape[1:] == (3, 8, 8)
    together = torch.cat([part.images for part in (train, valid, test)]).flatten(1)
    assert len(together.unique(dim=0)) == 96 + 64 + 64


# ---- the table


def test_a_row_finds_its_place_and_there_is_one_of_each():
    wanted = [(names, seed) for names in small.architectures()[:3] for seed in (0, 1)]
    table = Table(SMALL, ())
    for names, seed in reversed(wanted):
        table = table.with_row(row(names, seed))
    assert [(row.names, row.seed) for row in table] == wanted and len(table) == 6 and table[0].seed == 0
    with pytest.raises(TruthError, match="already"):
        table.with_row(row(*wanted[2]))


def test_what_is_missing_comes_seed_by_seed():
    names = small.architectures()
    table = Table(SMALL, (row(names[0], 0), row(names[2], 1)))
    missing = table.missing([0, 1])
    assert len(missing) == 248 and missing[0] == (names[1], 0) and missing[124] == (names[0], 1)
    assert (names[2], 1) not in missing and (names[2], 0) in missing


def test_columns_and_their_means():
    table = full()
    values = table.values("test_accuracy")
    assert values.shape == (125, 2) and values.dtype == torch.float64
    torch.testing.assert_close(values[:, 1] - values[:, 0], torch.full((125,), 0.125, dtype=torch.float64))
    assert table.mean("test_accuracy")[10].item() == pytest.approx((0.010 + 0.135) / 2)
    assert table.values("curve").shape == (125, 2, 2) and table.mean("curve")[3].tolist() == [0.25, 0.5]
    with pytest.raises(
        TruthError, match=r"1 rows are missing.*'avg_pool_3x3', 'avg_pool_3x3', 'avg_pool_3x3"
    ):
        Table(SMALL, table.rows[:-1]).values("test_accuracy")
    with pytest.raises(TruthError, match="125 rows are missing"):
        Table(SMALL, ()).mean("test_accuracy")


def test_a_row_gives_its_matrix():
    assert row().arch["cell"].nonzero().tolist() == [[0, 3], [1, 1], [2, 0]]


# ---- the file


def test_a_table_goes_through_its_file(tmp_path):
    table = Table(replace(SMALL, lr=0.3), full().rows[:7], HEAD)
    table.save(tmp_path / "new" / "table.json")
    assert truth.load(tmp_path / "new" / "table.json") == table
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["table.json"]
    assert len(table.to_record().to_json().splitlines()) == 1 + 7 + 1, "a line for each row"


def broken(change):
    data = json.loads(Table(SMALL, full((0,)).rows[:3], HEAD).to_record().to_json())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "JSON text"),
        (broken(lambda d: d["recipe"].pop("lr")), "a recipe wants the fields"),
        (broken(lambda d: d["rows"].append(3)), "row 3 wants .*got 3"),
        (broken(lambda d: d["rows"][1]["key"].pop("seed")), "row 1 wants the fields"),
        (broken(lambda d: d["rows"][1].update(more=1)), "row 1 wants the fields"),
        (broken(lambda d: d["rows"][1]["key"].update(names="none")), "row 1: names wants a list"),
        (broken(lambda d: d["rows"][1].update(curve=0.5)), "row 1: curve wants a list"),
        (broken(lambda d: d["rows"][1].update(curve=["a", 0.5])), "row 1: curve wants float, got 'a'"),
        (broken(lambda d: d["rows"][1].update(curve=[0.5])), "row 1.*wanted 2 .*got 1 in curve"),
        (broken(lambda d: d["rows"][1].update(losses=[2.0] * 3)), "row 1.*3 in losses"),
        (broken(lambda d: d["rows"][2].update(test_accuracy=55.0)), "row 2.*share from 0 to 1, got 55"),
        (broken(lambda d: d["rows"][2].update(valid_accuracy=float("nan"))), "NaN is no number"),
        (broken(lambda d: d["rows"][2]["key"].update(names=["x"] * 3)), "row 2, x.x.x.*wanted"),
        (broken(lambda d: d["rows"].append(d["rows"][0])), "none.*none.*none.*twice"),
    ],
)  # fmt: skip
def test_what_is_no_truth_table_is_told(tmp_path, text, message):
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(TruthError, match=f"(?s)broken.json: .*{message}"):
        truth.load(tmp_path / "broken.json")


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for path, message in (
        (tmp_path / "bytes", "bytes: "),
        (tmp_path / "nope", "no record"),
        (tmp_path, "no"),
    ):
        with pytest.raises(TruthError, match=message):
            truth.load(path)
