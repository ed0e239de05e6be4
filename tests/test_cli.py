"""The command line as a person uses it: files written, errors in a line, Ctrl-C without a traceback."""

import dataclasses
import errno
import html
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nasedu import Genotype, cli, run
from nasedu.cli import main
from nasedu.profiles import PROFILES
from nasedu.study.record import load
from nasedu.study.statistics import binomial_interval


@pytest.fixture
def ci(monkeypatch):
    monkeypatch.setenv("NASEDU_PROFILE", "ci")
    torch.set_num_threads(1)


@pytest.fixture
def small(monkeypatch, ci):
    """`make run` in ten seconds: 8 pixels, two channels, three cells."""
    sizes = {
        "run_images": 40,
        "test_images": 20,
        "image_size": 8,
        "channels": 2,
        "layers": 3,
        "batch_size": 8,
    }
    made = dataclasses.replace(PROFILES["ci"], **sizes, run_seeds=2)
    monkeypatch.setattr(cli, "profile", lambda: made)
    return made


def test_run_searches_twice_trains_four_cells_and_shows_them(tmp_path, capsys, small):
    out = tmp_path / "out"
    assert main(["run", "--data", "shapes10", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "data: shapes10" in said.out and "wrote" in said.out
    assert "DARTS" in said.err and "%" in said.err, "a progress bar"
    for method in ("darts", "enas"):
        folder = out / method
        assert Genotype.load(folder / "genotype.json").n_nodes == 3
        for which in ("normal", "reduce"):
            ElementTree.parse(folder / f"{which}.svg")
            assert (folder / f"{which}.pdf").read_bytes()[:5] == b"%PDF-"
        assert (folder / "alpha.png").read_bytes()[:4] == b"\x89PNG"
    assert {path.name for path in out.iterdir()} == {"darts", "enas", "index.html", "run.json"}
    record, page = load(out / "run.json"), (out / "index.html").read_text()
    cells = ("DARTS", "ENAS", "blind 1", "blind 2")
    assert [row["key"] for row in record] == [
        *({"search": name, "seed": 0} for name in cells[:2]),
        *({"cell": cell, "seed": seed} for seed in (0, 1) for cell in cells),
    ]
    for name in cells:
        values = [row["test_accuracy"] for row in record.select(cell=name)]
        low, high = binomial_interval(sum(values) / 2, 20)[1:]
        row = page[page.index(f"<tr><th>{name}</th><td>{sum(values) / 2:.1%}</td>") :]
        assert f"<td>{low:.1%} to {high:.1%}</td>" in row[:300]
    assert page.count("<svg") == 1 + 2 * 4 and page.count("<img alt=") == 4
    assert "name='viewport'" in page and "<main>" in page and "lang='en'" in page
    for line in said.out.splitlines():
        if "points" in line:
            assert html.escape(line) in page


def test_the_searches_of_the_same_seed_find_the_same_cells(tmp_path, small):
    for out in ("a", "b"):
        assert main(["run", "--data", "shapes10", "--out", str(tmp_path / out), "--seed", "3"]) == 0
    a, b = (load(tmp_path / out / "run.json") for out in ("a", "b"))
    free = ("seconds", "date")
    assert [{k: v for k, v in row.items() if k not in free} for row in a] == [
        {k: v for k, v in row.items() if k not in free} for row in b
    ]


def test_the_verdict_is_computed():
    def judged(darts, blind, n=10_000):
        values = {"DARTS": darts, "ENAS": [0.5, 0.5], "blind 1": blind, "blind 2": [v + 0.02 for v in blind]}
        return run.verdict(values, n, "DARTS")

    inside = judged([0.52, 0.50], [0.50, 0.49])
    assert inside.startswith("DARTS's cell is 0.5 points above the mean of the blind ones")
    assert inside.endswith("inside the noise.")
    clear = judged([0.60, 0.61], [0.50, 0.49])
    assert (
        "10.0 points above" in clear and "more than noise" in clear and "2.0 points from each other" in clear
    )
    assert "inside the noise" in judged([0.60, 0.61], [0.50, 0.49], n=20), "twenty images say little"
    assert "9.0 points below" in judged([0.40, 0.42], [0.50, 0.48])
    # By hand: the variances are 2e-4, 0, 5e-5 and 5e-5, their mean 7.5e-5 above 0.5 * 0.5 / 10,000.
    assert f"{100 * 2.776 * (7.5e-5 * (1 / 2 + 1 / 4)) ** 0.5:.1f}" in inside


def pictures(folder, numbers, sizes=(20, 12)):
    dice = np.random.default_rng(0)
    for split, n in numbers.items():
        for label in ("<script>alert(1)</script>".replace("/", "_"), "b"):
            (folder / split / label).mkdir(parents=True)
            for i in range(n // 2):
                pixels = dice.integers(0, 256, (sizes[1], sizes[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")
    return folder


def test_a_folder_of_ones_own_with_fewer_images_than_the_profile_takes(tmp_path, capsys, small, monkeypatch):
    monkeypatch.setattr(cli, "profile", lambda: dataclasses.replace(small, run_images=4000, test_images=1000))
    folder = pictures(tmp_path / "my 'own' $HOME & \"pictures\" <script>", {"train": 30, "test": 12})
    assert main(["run", "--data", str(folder), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "30 training images of 2 classes" in page and "12 test images" in page
    assert "up to 4,000 training and 1,000 test images; there were 30 and 12" in page
    assert "<script" not in page and "&lt;script&gt;" in page


def test_without_a_test_folder_a_fifth_is_held_out_and_said(tmp_path, capsys, small):
    folder = pictures(tmp_path / "mine", {"train": 60})
    assert main(["run", "--data", str(folder), "--out", str(tmp_path / "out")]) == 0
    said = "12 images of train/ held out, since there is no test/"
    assert said in capsys.readouterr().out and said in (tmp_path / "out" / "index.html").read_text()
    assert "40 + 12 images" in load(tmp_path / "out" / "run.json").data


@pytest.mark.parametrize("numbers", [{"train": 18, "test": 12}, {"train": 30, "test": 8}])
def test_too_few_images_are_told(tmp_path, capsys, small, numbers):
    folder = pictures(tmp_path / "few", numbers)
    assert main(["run", "--data", str(folder), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "wanted 20 and 10 or more" in said and f"{numbers['train']} training" in said


@pytest.mark.parametrize("typed", ["my pictures", "it's", 'a "b"', "$HOME", "$(HOME)x", "a;b", "-x", "a&b"])
def test_make_run_takes_data_as_it_is_typed(tmp_path, typed):
    (tmp_path / ".run").write_text("")
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "python"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    makefile = Path(__file__).parent.parent / "Makefile"
    done = subprocess.run(
        ["make", "-s", "-f", makefile, "-o", tmp_path / ".run", "run", f"VENV={tmp_path}", f"DATA={typed}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["-m", "nasedu", "run", f"--data={typed}", "--out=build"], done.stderr


@pytest.mark.parametrize(
    "data, message",
    [("nowhere", "no dataset and no folder 'nowhere'"), ("empty", "train/")],
)
def test_bad_data_is_one_line_and_exit_code_2(tmp_path, capsys, ci, monkeypatch, data, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["run", "--data", data, "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("nasedu: ") and message in err and "Traceback" not in err


def test_ctrl_c_leaves_a_checkpoint_and_the_same_command_goes_on(tmp_path):
    command = [sys.executable, "-m", "nasedu", "run", "--data", "shapes10", "--out", "out"]
    environment = {
        "NASEDU_PROFILE": "ci",
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        "HOME": str(tmp_path),
    }
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    # The bar is drawn once the first search has begun; before, Ctrl-C would only meet the imports.
    seen = ""
    while "DARTS" not in seen:
        assert (more := process.stderr.read(1)), f"it ended before the search began: {seen}"
        seen += more
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in seen + err
    assert "interrupted at epoch 1" in out and "to go on: the same command again" in out
    assert (tmp_path / "out" / "darts.checkpoint.pt").exists()
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0 and "resuming" in done.stdout
    assert (
        json.loads((tmp_path / "out" / "darts" / "genotype.json").read_text())["format"] == "nasedu-genotype"
    )


IN_TWO = """
import dataclasses, os
from nasedu import cli
from nasedu.profiles import PROFILES

sizes = {"run_images": 40, "test_images": 20, "image_size": 8, "channels": 2, "batch_size": 8}
if __name__ == "__main__":
    os.cpu_count = lambda: 2
    sizes |= {"run_epochs": EPOCHS, "run_enas_epochs": EPOCHS + 1, "run_processes": PROCESSES}
    made = dataclasses.replace(PROFILES["ci"], **sizes)
    cli.profile = lambda: made
    raise SystemExit(cli.main(["run", "--data", "shapes10", "--out", "out"]))
"""


def in_two(folder, epochs, processes=2):
    """The command in a process that may start another one; both begin as a person's would."""
    folder.mkdir(exist_ok=True)
    (folder / "command.py").write_text(
        IN_TWO.replace("EPOCHS", str(epochs)).replace("PROCESSES", str(processes))
    )
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "command.py"], cwd=folder, env=environment, text=True, **pipes)


def test_two_processes_give_what_one_gives(tmp_path):
    rows = []
    for processes in (1, 2):
        out, err = (process := in_two(tmp_path / str(processes), 1, processes)).communicate(timeout=200)
        assert process.returncode == 0, out + err
        made = load(tmp_path / str(processes) / "out" / "run.json")
        rows.append([{k: v for k, v in row.items() if k not in ("seconds", "date")} for row in made])
    assert rows[0] == rows[1] and len(rows[0]) == 6


@pytest.mark.parametrize("what", ["Ctrl-C", "the child killed", "both killed"])
def test_two_processes_that_are_stopped_go_on(tmp_path, what):
    process, out = in_two(tmp_path, 6), tmp_path / "out"
    until = time.monotonic() + 120
    while not all((out / f"{name}.checkpoint.pt").exists() for name in ("darts", "enas")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    task = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not task.exists():
        process.kill()
        pytest.skip("this system does not tell a process's children")
    children = [pid for pid in map(int, task.read_text().split()) if b"spawn_main" in command_of(pid)]
    if what == "Ctrl-C":
        process.send_signal(signal.SIGINT)
    elif what == "both killed":
        process.kill()
    else:
        os.kill(children[0], signal.SIGKILL)
    said, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    if what == "Ctrl-C":
        assert process.returncode == 130 and "to go on: the same command again" in said
        assert said.count("interrupted at epoch") == 2, "both halves saved where they were"
    elif what == "the child killed":
        assert process.returncode == 2 and "ENAS's half ended with code -9" in err
    while any(command_of(pid) for pid in children):  # nobody is left behind
        assert time.monotonic() < until
        time.sleep(0.05)
    if what == "both killed":
        assert not load(out / "enas.part.json").rows, "it ended with its parent"
    if what != "Ctrl-C":
        return  # tests/attack/test_kills.py kills at any moment, and goes on
    again = in_two(tmp_path, 6)
    said, err = again.communicate(timeout=200)
    assert again.returncode == 0 and "resuming" in said, said + err


def command_of(pid):
    """What a process was started as; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


# ---- never a traceback


RECORD = ["record", "darts", "--data", "shapes10", "--out", "x.json"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "--seed", "-1"], "argument --seed: '-1' is no whole number from 0 up"),
        (["run", "--seed", "1" * 400], "is no whole number"),
        (["run", "--threads", "0"], "argument --threads: '0' is no whole number from 1 up"),
        ([*RECORD, "--epochs", "0"], "argument --epochs"),
        ([*RECORD, "--channels", "0"], "argument --channels"),
        ([*RECORD, "--layers", "2"], "argument --layers: '2' is no whole number from 3 up"),
        ([*RECORD, "--batch-size", "0"], "argument --batch-size"),
        ([*RECORD, "--seed", "x"], "argument --seed"),
        (["study", "small_space", "--seeds", "0", "--out", "x.json"], "argument --seeds"),
    ],
)
def test_an_argument_that_nothing_can_be_done_with_is_named(capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "--data", "shapes10", "--out", "/dev/null"], "cannot write /dev/null"),
        (["run", "--data", "shapes10", "--out", "file/in"], "file/in/run.json: a part of the path is a file"),
        (["record", "darts", "--data", "shapes10", "--out", "/dev/null"], "--out /dev/null is no file"),
        (["record", "darts", "--data", "shapes10", "--out", "."], "--out . is no file"),
        (
            ["record", "enas", "--data", "shapes10", "--out", "file/x.json"],
            "x.json: a part of the path",
        ),
        (["truth", "--small", "--out", "."], "--out . is no file"),
        (["truth", "--small", "--out", "file/x.json"], "x.json: a part of the path"),
        (["study", "small_space", "--data", "shapes10", "--out", "/dev/null"], "--out /dev/null is no file"),
        ([*RECORD, "--images", "8"], "8 items give"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_in_a_line_at_the_start(
    tmp_path, capsys, ci, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("nasedu: ") and message in said and said.count("\n") == 1


@pytest.mark.parametrize("name", ["foo", "gpu"])
def test_a_profile_that_is_none_or_cannot_be_is_told(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setenv("NASEDU_PROFILE", name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["run", "--out", str(tmp_path / "out")]) == 2
    assert f"NASEDU_PROFILE is '{name}'" in capsys.readouterr().err


@pytest.mark.parametrize("when", ["start", "later"])
def test_a_disk_that_is_full_is_told(tmp_path, capsys, small, monkeypatch, when):
    real, calls = Path.write_bytes, []

    def full(self, data):
        calls.append(self)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    if when == "start":
        monkeypatch.setattr(Path, "write_bytes", full)
    else:
        monkeypatch.setattr(Path, "write_text", lambda self, *a, **k: full(self, b""))
    assert main(["run", "--data", "shapes10", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("nasedu: cannot write ") and "the disk is full: make room" in said
    assert calls and real


def test_a_run_of_something_else_that_was_interrupted_is_forgotten(tmp_path, capsys, small):
    out = tmp_path / "out"
    out.mkdir()
    (out / "darts.part.json").write_text("[" * 100_000)
    (out / "darts.checkpoint.pt").write_text("of another run")
    assert main(["run", "--data", "shapes10", "--out", str(out)]) == 0
    assert "begun anew" in capsys.readouterr().out


def test_record_makes_a_record_of_one_search_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ["--images", "64", "--pixels", "8", "--epochs", "2", "--channels", "2", "--layers", "3"]
    for method in ("darts", "enas"):
        command = [
            "record",
            method,
            "--data",
            "shapes10",
            *sizes,
            "--batch-size",
            "16",
            "--out",
            f"{method}.json",
        ]
        assert main(command) == 0
        made = load(tmp_path / f"{method}.json")
        assert len(made.history) == 2 and len(made[0]["genotypes"]) == (2 if method == "darts" else 1)
        assert 0 <= made[0]["derived_acc1"] <= 1 and method in made.command
        assert ("supernet_acc1" in made.history.epochs[0]) == (method == "darts")
        before = (tmp_path / f"{method}.json").read_bytes()
        assert main(command) == 0 and (tmp_path / f"{method}.json").read_bytes() == before, "nothing to do"
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}
