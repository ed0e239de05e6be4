"""The notebook tool and the set-up that `make` runs: the parts that need no kernel and no network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

TOOLS = Path(__file__).parent.parent / "tools"
sys.path.insert(0, str(TOOLS))

import notebooks  # noqa: E402


def stream(name: str, text: str) -> nbformat.NotebookNode:
    return nbformat.from_dict({"output_type": "stream", "name": name, "text": text})


def display(**data: str) -> nbformat.NotebookNode:
    kinds = {"widget": notebooks.WIDGET, "png": "image/png", "text": "text/plain"}
    return nbformat.v4.new_output("display_data", data={kinds[key]: value for key, value in data.items()})


def cleaned(*outputs: nbformat.NotebookNode) -> tuple[list[nbformat.NotebookNode], list[str]]:
    cell = nbformat.v4.new_code_cell("x", outputs=list(outputs))
    complaints = notebooks.clean(cell)
    return cell.outputs, complaints


@pytest.mark.parametrize(
    "bar",
    [
        "\r  0%|          | 0/30 [00:00<?, ?it/s]\r100%|███| 30/30 [00:01<00:00, 29.1it/s]\n",
        "12it [00:01, 9.9it/s]",
        "",
    ],
)
def test_a_progress_bar_is_dropped(bar):
    assert cleaned(stream("stderr", bar)) == ([], [])


def test_a_warning_is_kept_and_complained_about():
    outputs, complaints = cleaned(stream("stderr", "UserWarning: look here\n"))
    assert len(outputs) == 1 and "look here" in complaints[0]


def test_a_warning_amid_a_progress_bar_is_not_lost():
    outputs, complaints = cleaned(stream("stderr", "50%|██ | 1/2\nUserWarning: look here\n"))
    assert len(outputs) == 1 and "look here" in complaints[0]


def test_pieces_of_one_stream_become_one_output():
    outputs, _ = cleaned(stream("stdout", "a\n"), stream("stderr", "1%|"), stream("stdout", "b\n"))
    assert [output.text for output in outputs] == ["a\nb\n"]


def test_a_widget_leaves_its_static_picture_only():
    outputs, _ = cleaned(
        display(widget="id", text="HBox()"), display(widget="id", png="...", text="A curve.")
    )
    assert [dict(output.data) for output in outputs] == [{"image/png": "...", "text/plain": "A curve."}]


def test_slides_start_at_sections():
    cell = nbformat.v4.new_markdown_cell
    kinds = [notebooks.slide_type(cell(text)) for text in ("# Title", "## Idea", "### Exercise", "Words.")]
    assert kinds == ["slide", "slide", "subslide", "subslide"]
    assert notebooks.slide_type(nbformat.v4.new_code_cell("x")) == "-"


def test_a_notebook_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.ipynb"
    notebooks.save(nbformat.v4.new_notebook(), path)
    good = path.read_bytes()
    bad = nbformat.v4.new_notebook()
    bad.cells.append(nbformat.v4.new_code_cell("x"))
    bad.cells[0].execution_count = "once"
    with pytest.raises(nbformat.ValidationError):
        notebooks.save(bad, path)
    assert path.read_bytes() == good and list(tmp_path.iterdir()) == [path]


def test_set_up_without_a_new_enough_python_says_so(tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.10 || exit 1\n')
    old.chmod(0o755)
    run = subprocess.run(
        ["/bin/sh", str(TOOLS / "setup.sh"), str(tmp_path / "venv"), "."],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and not (tmp_path / "venv").exists()
    assert "needs Python 3.11 or newer" in run.stderr and "'Python 3.8.10'" in run.stderr


def test_set_up_shows_the_end_of_the_log_where_pip_fails(tmp_path):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text(
        '#!/bin/sh\n[ "$3" = --version ] && exit 0\necho "no space left on device" >&2\nexit 3\n'
    )
    python.chmod(0o755)
    run = subprocess.run(
        ["/bin/sh", str(TOOLS / "setup.sh"), str(venv), "."], env=os.environ, capture_output=True, text=True
    )
    assert run.returncode == 1 and "installation failed" in run.stderr and "no space left" in run.stderr
