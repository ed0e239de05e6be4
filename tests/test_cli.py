"""The command line as a person uses it: files written, errors in a line, Ctrl-C without a traceback."""

import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from nasedu import Genotype, History
from nasedu.cli import main


@pytest.fixture
def ci(monkeypatch):
    monkeypatch.setenv("NASEDU_PROFILE", "ci")
    torch.set_num_threads(1)


def test_run_searches_twice_and_writes_everything(tmp_path, capsys, ci):
    assert main(["run", "--data", "shapes10", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "data: shapes10" in said.out and "wrote" in said.out
    assert "DARTS" in said.err and "%" in said.err, "a progress bar"
    page = (tmp_path / "out" / "index.html").read_text()
    for method in ("darts", "enas"):
        folder = tmp_path / "out" / method
        assert Genotype.load(folder / "genotype.json").n_nodes == 4
        assert len(History.load(folder / "history.json")) == 1
        for which in ("normal", "reduce"):
            ElementTree.parse(folder / f"{which}.svg")
            assert (folder / f"{which}.pdf").read_bytes()[:5] == b"%PDF-"
        assert (folder / "alpha.png").read_bytes()[:4] == b"\x89PNG"
    assert page.count("<svg") == 4 and page.count("<img alt=") == 4 and "Read with care" in page
    assert not list((tmp_path / "out").rglob("*.pt")) and not list((tmp_path / "out").rglob("*.part"))


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
        seen += process.stderr.read(1)
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
