"""The bound on a notebook as a whole, and its line of seconds: alone, and over processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

CONFTEST = Path(__file__).parent.parent / "conftest.py"


@pytest.mark.parametrize("spread", [[], ["-n", "2", "--dist", "loadfile"]], ids=["alone", "spread"])
def test_a_notebook_past_its_time_fails_and_another_does_not(tmp_path, spread):
    shutil.copy(CONFTEST, tmp_path)
    for name, sources in {"slow": ["import time; time.sleep(5.5)", "1", "2"], "quick": ["1", "2"]}.items():
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", *spread],
        cwd=tmp_path,
        env=os.environ | {"NASEDU_NOTEBOOK_SECONDS": "5"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "slow.ipynb has run for" in done.stdout and "its limit is 5 s" in done.stdout, done.stdout
    assert "3 passed" in done.stdout and done.stdout.count("ERROR slow.ipynb") == 2
    assert "ERROR quick" not in done.stdout
    seconds = {
        line.split()[1]: float(line.split()[0])
        for line in done.stdout.splitlines()
        if "  " in line and line.strip().endswith((".ipynb", "together"))
    }
    assert seconds["slow.ipynb"] > 5.5 and seconds["together"] == pytest.approx(
        sum(seconds.values()) / 2, abs=0.2
    )
