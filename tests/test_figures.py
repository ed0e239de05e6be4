"""`make figures`: what a notebook shows is saved in three formats, with its words and its cell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parent.parent
CELLS = [
    new_markdown_cell("# 99"),
    new_code_cell("from nasedu import PUBLISHED, draw_cell, show\nAXES = {'xlabel': 'x', 'ylabel': 'y'}"),
    new_code_cell("show.lines({'<b>&': [1, 2]}, title='A line', **AXES)"),
    new_code_cell("for _ in range(2):\n    display(show.lines({'b': [1, 2]}, title='Another', **AXES))"),
    new_code_cell(
        "show.explore(lambda n: show.lines({'c': [n, 2]}, title='Moved', **AXES), "
        "n=show.Slider([1, 2], 2, 'n'))"
    ),
    new_code_cell(
        "show.Stack((draw_cell(PUBLISHED['DARTS_V2']), show.lines({'d': [1, 2]}, title='Part', **AXES)))"
    ),
]


def test_every_picture_is_saved_with_words_and_cell(tmp_path):
    path, out = tmp_path / "99_test.ipynb", tmp_path / "out"
    nbformat.write(new_notebook(cells=CELLS), path)
    command = [sys.executable, str(ROOT / "tools" / "figures.py"), str(out), str(path)]
    environment = {**os.environ, "NASEDU_PROFILE": "ci", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    figures = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    assert [(one["cell"], one["words"].split(".")[0]) for one in figures] == [
        (2, "A line"), (3, "Another"), (3, "Another"), (4, "Moved"), (5, "Normal cell"), (5, "Part"),
    ]  # fmt: skip
    page = (out / "index.html").read_text(encoding="utf-8")
    for one in figures:
        starts = {"svg": b"<", "pdf": b"%PDF", "png": b"\x89PNG"}
        for kind, start in starts.items():
            assert (out / f"{one['name']}.{kind}").read_bytes().startswith(start)
        assert f"id='{one['name']}'" in page and f"cell {one['cell']};" in page
    assert "<b>" not in page and "&lt;b&gt;" in page


def test_a_notebook_that_fails_leaves_no_list(tmp_path):
    path, out = tmp_path / "99_test.ipynb", tmp_path / "out"
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), path)
    command = [sys.executable, str(ROOT / "tools" / "figures.py"), str(out), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr and not (out / "figures.json").exists()
