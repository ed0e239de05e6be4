"""Records and histories in files, spoiled as a text and as a tree: told, or read so that all can be used."""

import json
import random

import torch
from odd import spoiled, text
from rule import attack, judge

from nasedu import History
from nasedu.study import load
from nasedu.study.recipe import Recipe
from nasedu.study.record import Record


def record():
    recipe = Recipe(
        pixels=8, images=16, channels=2, layers=3, epochs=2, batch_size=4, methods={"DARTS 1st": {}}
    )
    history = [{"epoch": 1, "lr": 0.1, "train_loss": 0.5, "arch": {"normal": [[0.5, 0.5]]}}]
    rows = [
        {"key": {"method": "DARTS 1st", "seed": seed}, "date": "2026-11-24T10:00:00+00:00", "seconds": 1.5,
         "test_accuracy": 0.5, "history": history}
        for seed in (0, 1)
    ]  # fmt: skip
    head = {"date": "2026-11-24T10:00:00+00:00", "device": "a CPU", "versions": {"torch": torch.__version__}}
    return json.loads(Record("name", recipe, "data", "command", **head, rows=tuple(rows)).to_json())


def usable(found):
    """All that a record is asked for; and it is the same when it is written and read again."""
    assert found.provenance.startswith(found.name) and found.minutes >= 0
    assert all(isinstance(seed, int) for seed in found.seeds)
    for row in found:
        assert row in found.select(**{k: v for k, v in row["key"].items() if k.isidentifier()})
    if len(found) == 1 and "history" in found[0]:
        assert repr(found.history)
    assert Record.from_json(found.to_json()) == found


def test_records(tmp_path):
    base = record()

    def one(seed):
        dice = random.Random(seed)
        content = text(spoiled(base, dice, 3), dice)
        (tmp_path / "r.json").write_bytes(content)
        judge("json file", lambda: load(tmp_path / "r.json"), usable, content[:600])

    attack("json file", one, 0.6)


def whole(found):
    text = found.to_json()
    assert "NaN" not in text and "Infinity" not in text
    assert History.from_json(text) == found and repr(found)
    assert len(found.epochs) == len(found) and found.seconds >= 0


def test_histories(tmp_path):
    base = json.loads(
        History([{"epoch": i, "lr": 0.1, "acc": 0.5, "arch": {"a": [[1.0]]}} for i in (1, 2)], 2.0).to_json()
    )

    def one(seed):
        dice = random.Random(seed)
        content = text(spoiled(base, dice, 2), dice)
        (tmp_path / "h.json").write_bytes(content)
        judge("json file", lambda: History.load(tmp_path / "h.json"), whole, content[:600])

    attack("json file", one, 0.4)
