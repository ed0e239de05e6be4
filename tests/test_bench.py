"""The benchmark: all sides run and are in the table, in the right order. Tiny sizes, no time is asserted."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from nasedu.study.timing import Limits, Work

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "steps.py"
SIZES = {"batch-size": 2, "channels": 2, "layers": 3, "pixels": 8, "rounds": 1, "images": 8}
TINY = [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]
ALL = ("nasedu fast", "nasedu readable", "reference")


@pytest.fixture(scope="module")
def steps():
    spec = importlib.util.spec_from_file_location("steps", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["steps"] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """What looks like the reference: the names that the benchmark wants, of another, tiny network."""
    folder = tmp_path / "peer" / "cnn"
    folder.mkdir(parents=True)
    net = "nn.Sequential(nn.Flatten(), nn.LazyLinear(10))"
    files = {
        "genotypes": "DARTS_V2 = None",
        "utils": "",
        "model": f"from torch import nn\ndef NetworkCIFAR(*a):\n    print('noise')\n    net = {net}\n"
        "    net.register_forward_hook(lambda m, x, y: (y, None))\n    return net",
        "model_search": f"from torch import nn\ndef Network(c, n, layers, loss):\n    return {net}",
        "architect": "class Architect:\n    def __init__(self, net, args): pass\n"
        "    def step(self, x, y, xv, yv, lr, optimizer, unrolled): assert x.cuda() is x",
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder.parent
    for name in files:
        sys.modules.pop(name, None)


def rows(text: str) -> dict[str, list[str]]:
    """Row -> its cells, of all tables in a text; the first row of names is "heads"."""
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]
    found = {"heads": lines[0][1:]}
    for name, *cells in lines[2:]:
        found.setdefault(name, []).extend(cells)
    return found


def test_all_sides_run_and_have_their_rows(steps, checkout, tmp_path, capsys):
    peer = ["--peer", str(checkout), "--out", str(tmp_path / "out"), "--no-memory"]
    steps.main([*TINY, *peer])
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "steps.md").read_text() == printed[:-1] and "noise" not in printed
    table = rows(printed)
    assert table["heads"] == [*ALL, "nasedu fast / nasedu readable", "nasedu fast / reference"]
    for kind in steps.KINDS:
        there = [bool(cell) for cell in table[kind][:5]]
        both = kind in (
            "ENAS child",
            "random",
            steps.EPOCH,
        )  # no such thing in the reference, or not of 8 pixels
        wanted = [True, kind != "derived network", not both]
        assert there == [*wanted, *wanted[1:]], kind
        assert len(table[kind]) == (5 if kind == steps.EPOCH else 9)  # and of a step the roofline
    for name in ("ratios.png", "roofline.png"):
        assert (tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG"
    assert not torch.cuda.is_available() and torch.Tensor.cuda.__name__ == "cuda"  # as it was


def test_the_first_side_is_divided_by_the_others(steps):
    one = {"nasedu fast": [1.0, 1.0, 1.0], "nasedu readable": [2.0, 2.0, 2.0], "reference": [4.0, 4.0, 4.0]}
    memory = {"DARTS 1st": dict(zip(ALL, (30.0, 60.0, 90.0), strict=True))}
    limits = Limits(flops=100e9, bytes=10e9)
    measured = steps.Measured({"DARTS 1st": one}, memory, {"DARTS 1st": Work(20e9, 5e9)}, limits)
    table = rows(steps.table(measured))
    assert table["DARTS 1st"][:3] == [f"{n}000 ms ({n}000 to {n}000)" for n in (1, 2, 4)]
    assert table["DARTS 1st"][3:5] == ["0.50 (0.50 to 0.50)", "0.25 (0.25 to 0.25)"]
    assert table["DARTS 1st"][5:] == ["20.0", "5.00", "500 ms", "50 %"]
    assert table["memory, DARTS 1st"] == ["30 MiB", "60 MiB", "90 MiB", "0.50", "0.33"]


def test_memory_is_that_of_a_process_of_its_own(steps):
    small, large = (
        steps.peak_of([*TINY, "--batch-size", str(batch)], "nasedu fast", "DARTS 1st") for batch in (2, 64)
    )
    assert 0 < small < large


def test_a_side_that_is_not_there_is_an_error(steps, tmp_path, capsys):
    with pytest.raises(SystemExit):
        steps.main(["--peer", str(tmp_path)])
    assert "no checkout of the reference" in capsys.readouterr().err
    if importlib.util.find_spec("nni") is None:
        with pytest.raises(ImportError):
            steps.main([*TINY, "--peer2"])


def test_our_options_reach_our_trainers(steps, monkeypatch):
    seen = []
    monkeypatch.setattr(steps, "build", lambda name, **given: seen.append(given))
    given = argparse.Namespace(
        batch_size=2, channels=4, layers=3, pixels=8, images=8, device="cpu", data="shapes10",
        precision="bf16", cuda_graph=True, compile=False,
    )  # fmt: skip
    steps.Ours(given, fast=True).step("random")
    assert seen[0]["precision"] == "bf16" and seen[0]["cuda_graph"] and "compile" not in seen[0]
    assert seen[0]["model"].cells[0].fast and json.dumps(seen[0]["batch_size"]) == "2"
