"""Write every figure of the course as SVG, PDF and PNG, with its words and where it comes from.

    python tools/figures.py [OUT] [NOTEBOOK ...]        OUT is build/figures where not given

Each notebook is run once, in NASEDU_PROFILE (laptop where unset); whatever picture a cell shows is saved, an
explorer as it begins, a stack part by part. OUT/index.html lists them all, OUT/figures.json says the same.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat.v4 import new_code_cell, new_notebook
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]

# Runs in the notebook's kernel, before its first cell: what is shown is saved, too.
SETUP = """
import json as _json
from pathlib import Path as _Path
import nasedu.show as _show

class _Figures:
    folder, stem, cell, found = _Path({folder!r}), {stem!r}, 0, []

    @classmethod
    def keep(cls, shown):
        if isinstance(shown, _show.Explorer):
            shown = shown.picture
        if isinstance(shown, _show.Stack):
            for part in shown.parts:
                cls.keep(part)
            return
        number = sum(one["cell"] == cls.cell for one in cls.found)
        name = f"{{cls.stem}}-{{cls.cell:03d}}-{{number}}"
        for kind in ("svg", "pdf", "png"):
            shown.save(cls.folder / f"{{name}}.{{kind}}")
        cls.found.append({{"name": name, "notebook": cls.stem, "cell": cls.cell, "words": shown.words}})
        (cls.folder / f"{{cls.stem}}.json").write_text(_json.dumps(cls.found), encoding="utf-8")

def _kept(kind):
    plain = kind._repr_mimebundle_
    def shown(self, include=None, exclude=None):
        _Figures.keep(self)
        return plain(self, include, exclude)
    kind._repr_mimebundle_ = shown

for _kind in (_show.Picture, _show.CellDrawing, _show.Stack, _show.Explorer):
    _kept(_kind)
"""


def collect(path: Path, out: Path, timeout: int) -> list[dict[str, Any]]:
    """Run a notebook and save what it shows; the records of its figures, in order."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        new_notebook(cells=list(notebook.cells), metadata=notebook.metadata),
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    setup = SETUP.format(folder=str(out.resolve()), stem=path.stem)
    with client.setup_kernel():
        client.execute_cell(new_code_cell(setup), -1)
        for number, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                client.execute_cell(new_code_cell(f"_Figures.cell = {number}"), -1)
                client.execute_cell(cell, number)
    kept = out / f"{path.stem}.json"
    if not kept.is_file():
        return []
    found = json.loads(kept.read_text(encoding="utf-8"))
    kept.unlink()
    return found


def caption(words: str) -> str:
    """The first sentence of a figure's words."""
    return words.split(". ")[0].rstrip(".") + "."


def index(figures: list[dict[str, Any]], profile: str) -> str:
    """The page that shows all figures, each with its caption, words, source and files."""
    parts = []
    for one in figures:
        kinds = ("svg", "pdf", "png")
        files = ", ".join(f"<a href='{one['name']}.{kind}'>{kind.upper()}</a>" for kind in kinds)
        words = html.escape(one["words"], quote=True)
        parts.append(
            f"<figure id='{one['name']}'>"
            f"<img loading='lazy' src='{one['name']}.svg' alt='{words}'><figcaption>"
            f"<strong>{html.escape(caption(one['words']))}</strong><br>{words}<br>"
            f"notebook {html.escape(one['notebook'])}, cell {one['cell']}; {files}</figcaption></figure>"
        )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>nasedu: figures</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'><style>"
        "body{font:18px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}"
        "figure{margin:0 0 3em}img{max-width:100%;height:auto}figcaption{color:#333}</style></head>"
        f"<body><main><h1>The figures of the course</h1><p>{len(figures)} figures, made in the profile "
        f"{html.escape(profile)}. MIT licence.</p>{''.join(parts)}</main></body></html>\n"
    )


def main() -> None:
    """Collect the figures of the notebooks that the command line names, by default of all."""
    parser = argparse.ArgumentParser(description="Every figure of the course as SVG, PDF and PNG.")
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "build" / "figures")
    parser.add_argument("notebooks", type=Path, nargs="*")
    parser.add_argument("--timeout", type=int, default=900, help="seconds that a cell may take")
    given = parser.parse_args()
    os.environ.setdefault("NASEDU_PROFILE", "laptop")
    given.out.mkdir(parents=True, exist_ok=True)
    figures: list[dict[str, Any]] = []
    started = time.perf_counter()
    for path in tqdm(given.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb")), unit="notebook"):
        try:
            figures += collect(path, given.out, given.timeout)
        except (CellExecutionError, CellTimeoutError) as error:
            sys.exit(f"{path}: a cell failed, so its figures are not whole\n{error}")
    (given.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (given.out / "index.html").write_text(index(figures, os.environ["NASEDU_PROFILE"]), encoding="utf-8")
    minutes = (time.perf_counter() - started) / 60
    print(f"{len(figures)} figures in {minutes:.0f} min: {given.out / 'index.html'}")


if __name__ == "__main__":
    main()
