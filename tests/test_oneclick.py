"""Colab and Binder: links, and the first cell that installs the package where it is missing."""

import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from oneclick import install_cell, launch_links  # noqa: E402

ADDRESS = "https://github.com/somebody/nasedu"
# The package is not to be found, and installing is only written down.
HIDDEN = """\
import importlib.util, subprocess
importlib.util.find_spec = lambda name: None
subprocess.run = lambda command, check: print("RUN", *command[1:])
"""


def ran(cell: str, before: str = "") -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", before + cell], capture_output=True, text=True, cwd=ROOT)


def test_the_cell_does_nothing_where_the_package_is():
    done = ran(install_cell(ADDRESS))
    assert done.returncode == 0 and done.stdout == done.stderr == ""


def test_the_cell_installs_from_the_address():
    done = ran(install_cell(ADDRESS), HIDDEN)
    assert done.stdout.strip() == f"RUN -m pip install -q nasedu @ git+{ADDRESS}", done.stderr


def test_without_an_address_the_cell_says_what_to_do():
    done = ran(install_cell(None), HIDDEN)
    assert done.returncode == 1 and "make lab" in done.stderr and "RUN" not in done.stdout


def test_links_name_the_notebook():
    links = launch_links(ADDRESS + ".git", "notebooks/solutions/04 a.ipynb")
    assert (
        "https://colab.research.google.com/github/somebody/nasedu/blob/main/notebooks/solutions/04%20a"
        in links
    )
    assert "mybinder.org/v2/gh/somebody/nasedu/main?labpath=notebooks%2Fsolutions%2F04%20a.ipynb" in links
    assert urllib.parse.unquote(links).count("notebooks/solutions/04 a.ipynb") == 2


def test_another_host_is_refused_with_the_value():
    with pytest.raises(ValueError, match="https://example.org/x"):
        launch_links("https://example.org/x", "a.ipynb")
