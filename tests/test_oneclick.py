"""Colab and Binder: links, and the first cell that installs the package where it is missing."""

import subprocess
import sys
import urllib.parse
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from oneclick import give_install_cell, install_cell, installs, launch_links  # noqa: E402

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


def test_a_notebook_gets_the_cell_once_and_before_its_code():
    text, code = nbformat.v4.new_markdown_cell("# 99"), nbformat.v4.new_code_cell("import torch")
    notebook = nbformat.v4.new_notebook(cells=[text, code])
    for address in (None, ADDRESS):
        give_install_cell(notebook, address)
    nbformat.validate(notebook)
    assert [installs(cell) for cell in notebook.cells] == [False, True, False]
    assert ADDRESS in notebook.cells[1].source


def test_the_cell_of_the_course_tells_a_python_without_the_package_what_to_do(tmp_path):
    notebook = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    # -S: no site-packages, so that nothing is hidden from it but what is really not there
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", cell.source], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "make lab" in done.stderr and "pip install" in done.stderr


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
