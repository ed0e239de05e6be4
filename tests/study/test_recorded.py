"""Recorded runs: whole, complete, of real images, and refused when they are something else."""

import json

import pytest
import torch

from nasedu import Genotype, History
from nasedu.study import recorded
from nasedu.study.recorded import Recorded, RecordedError

MATRIX = {label: [[1 / 8] * 8] * 14 for label in ("normal", "reduce")}


def example(**changed):
    epochs = [{"epoch": 1, "lr": 0.025, "train_loss": 2.0, "arch": MATRIX}]
    fields = {
        "name": "example",
        "method": "DARTS",
        "command": "python -m nasedu record darts",
        "dataset": {"source": "CIFAR-10", "train": 100, "valid": 10},
        "config": {"epochs": 1, "seed": 0},
        "minutes": 1.5,
        "history": History(epochs, 90.0),
        "genotypes": (Genotype.derive({k: torch.tensor(m) for k, m in MATRIX.items()}),),
        "results": {"derived_acc1": 0.3},
        **recorded.stamp(torch.device("cpu")),
    }
    return Recorded(**{**fields, **changed})


def test_a_run_goes_through_its_file(tmp_path):
    run = example()
    run.save(tmp_path / "example.json")
    again = recorded.load(tmp_path / "example.json")
    assert again == run and again.history.seconds == 90.0
    assert (
        "100 training images" in run.provenance and "again: python -m nasedu record darts" in run.provenance
    )


def test_what_is_no_recorded_run_is_said(tmp_path):
    whole = json.loads(example().to_json())
    for broken in (
        "",
        "{}",
        "[]",
        "null",
        *(json.dumps({k: v for k, v in whole.items() if k != drop}) for drop in whole),
    ):
        (tmp_path / "broken.json").write_text(broken)
        with pytest.raises(RecordedError):
            recorded.load(tmp_path / "broken.json")
    with pytest.raises(RecordedError, match="no recorded run 'nope'; there are"):
        recorded.load("nope")


@pytest.mark.parametrize("name", recorded.names())
def test_every_recorded_run_of_the_package_is_complete(name):
    run = recorded.load(name)
    assert run.name == name and run.method in ("DARTS", "ENAS")
    assert run.dataset["train"] >= 10_000 and "cifar" in run.dataset["source"].lower()
    assert run.config["epochs"] >= 10 and run.config["channels"] >= 8 and run.config["layers"] >= 5
    assert len(run.history) == run.config["epochs"] and run.minutes > 0
    assert run.history.epochs[-1]["train_acc1"] > run.history.epochs[0]["train_acc1"] > 0.1, "it learned"
    if run.method == "DARTS":
        derived = [
            Genotype.derive({k: torch.tensor(m) for k, m in line["arch"].items()})
            for line in run.history.epochs
        ]
        assert tuple(derived) == run.genotypes, "the genotypes are those of the matrices"
        assert {"supernet_acc1", "derived_acc1"} <= set(run.history.epochs[0])


def test_the_package_has_a_darts_and_an_enas_run():
    assert {"darts_cifar10", "enas_cifar10"} <= set(recorded.names())
