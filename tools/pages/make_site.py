"""Build the course's site: every notebook as a page, from the outputs that are stored in it; nothing is run.

    python tools/pages/make_site.py [OUT]        OUT is build/site where not given

Sphinx with myst-nb and the furo theme. This file prepares the pages (pictures become files with their words
as alternative text, answers are folded away), writes the package's reference, and calls Sphinx. Everything
a page needs lies in OUT: it reads from a folder, without a network and without a server.
"""

from __future__ import annotations

import argparse
import base64
import html
import importlib.util
import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

sys.path.insert(0, str(ROOT))

import explorers  # noqa: E402
from oneclick import installs, launch_links, repository  # noqa: E402

FLIP = "nasedu-flip"  # the class of an explorer's pictures, in an output of its own
ANSWER_TAGS = {"solution", "answer"}
IMAGES = {"image/svg+xml": "svg", "image/png": "png"}


# ---- notebooks


def text_of(value: str | list[str]) -> str:
    """Join what a notebook may store as lines."""
    return value if isinstance(value, str) else "".join(value)


def size_of(output: dict[str, Any], svg: str | None) -> tuple[int, int] | None:
    """Width and height on a page in pixels, from the output's metadata or from the drawing itself."""
    for meta in output.get("metadata", {}).values():
        if isinstance(meta, dict) and "width" in meta and "height" in meta:
            return int(meta["width"]), int(meta["height"])
    if svg and (found := re.search(r'viewBox="[\d.-]+ [\d.-]+ ([\d.]+) ([\d.]+)"', svg)):
        return round(float(found[1])), round(float(found[2]))
    return None


def picture(output: dict[str, Any], stem: str, pictures: Path, up: str) -> str | None:
    """Write an output's picture as a file; return the element that shows it, or None where it has none."""
    data = output.get("data", {})
    kind = next((kind for kind in IMAGES if kind in data), None)
    if kind is None:
        return None
    content, words = text_of(data[kind]), text_of(data.get("text/plain", "")).strip()
    if not words:
        raise SystemExit(f"{stem}: a picture without words; let its object's repr say what is seen")
    name = f"{stem}.{IMAGES[kind]}"
    (pictures / name).write_bytes(content.encode() if kind.endswith("xml") else base64.b64decode(content))
    size = size_of(output, content if kind.endswith("xml") else None)
    measures = f' width="{size[0]}" height="{size[1]}"' if size else ""
    broad = ' class="broad"' if size and size[0] > 660 else ""
    alt = html.escape(" ".join(words.split()), quote=True)
    return (
        f'<a class="picture" href="{up}{name}" aria-label="Enlarge: {alt}">'
        f'<img src="{up}{name}" alt="{alt}"{measures}{broad} loading="lazy"></a>'
    )


def fold(cell: nbformat.NotebookNode, prompt: str) -> None:
    """Fold a cell's code away behind a line that says what it is."""
    tags = cell.metadata.setdefault("tags", [])
    if "hide-input" not in tags:
        tags.append("hide-input")
    cell.metadata["mystnb"] = {"code_prompt_show": prompt, "code_prompt_hide": "Fold it away"}


def page(path: Path, pictures: Path, address: str | None) -> nbformat.NotebookNode:
    """Make the page of one notebook: the same cells, with outputs that a browser shows as they are meant."""
    notebook = nbformat.read(path, as_version=4)
    solved = path.parent.name == "solutions"
    up = "../pictures/" if solved else "pictures/"
    first = True
    notebook.cells = [cell for cell in notebook.cells if not installs(cell)]
    for cell in notebook.cells[1:]:  # a second title would be a page of its own in the list of pages
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            cell.source = f"#{cell.source}"
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tags = set(cell.metadata.get("tags", []))
        if tags & ANSWER_TAGS or (solved and not first and not cell.source.startswith("check.")):
            fold(cell, "Show the answer")
        elif cell.metadata.get("jupyter", {}).get("source_hidden") or "hide-input" in tags:
            fold(cell, "Show the code")
        first = False
        for number, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            if FLIP in text_of(data.get("text/html", "")):
                output.data = {"text/html": text_of(data["text/html"])}
                continue
            stem = f"{'s' if solved else ''}{path.stem[:2]}-{cell.id}-{number}"
            element = picture(output, stem, pictures, up)
            if element is not None:
                output.data, output.metadata = {"text/html": element}, {}
    top = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    relative = path.resolve().relative_to(ROOT).as_posix()
    head, _, rest = top.source.partition("\n")
    top.source = f"{head}\n\n{launch_links(address, relative)}\n{rest}" if address else top.source
    notebook.metadata["mystnb"] = {"execution_mode": "off"}
    return notebook


def title(notebook: nbformat.NotebookNode) -> str:
    """Read the notebook's title, its first heading."""
    for cell in notebook.cells:
        if found := re.search(r"(?m)^# (.+)$", cell.source if cell.cell_type == "markdown" else ""):
            return found[1].strip()
    raise SystemExit("a notebook has no title: begin it with '# NN · ...'")


def question(notebook: nbformat.NotebookNode) -> str:
    """Read the first paragraph after the title, one sentence or two of why."""
    return " ".join(notebook.cells[0].source.split("\n\n")[1].split())


# ---- the reference


def modules() -> dict[str, list[str]]:
    """The package's modules by room, `nasedu.space` with `nasedu.space.cells` and so on."""
    rooms: dict[str, list[str]] = {"nasedu": []}
    for path in sorted((ROOT / "nasedu").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__main__" or parts[-1].startswith("notebook_"):
            continue
        room = ".".join(parts[:-1])
        rooms.setdefault(room, [])
        if parts[-1] != "__init__":
            rooms[room].append(".".join(parts))
    return rooms


def write_reference(folder: Path) -> int:
    """Write a page for each room of the package; return how many modules they name."""
    folder.mkdir()
    rooms = modules()
    for room, names in rooms.items():
        lines = [room, "=" * len(room), "", f".. automodule:: {room}", "   :no-members:", ""]
        for name in names:
            lines += [name, "-" * len(name), "", f".. automodule:: {name}", ""]
        (folder / f"{room}.rst").write_text("\n".join(lines) + "\n", encoding="utf-8")
    toc = "\n".join(rooms)
    (folder / "index.md").write_text(
        "# Reference\n\nWhat the package has, room by room, from its docstrings.\n\n"
        f"```{{toctree}}\n:maxdepth: 2\n\n{toc}\n```\n",
        encoding="utf-8",
    )
    return sum(map(len, rooms.values()))


# ---- the rest


def write_glossary(source: Path, target: Path) -> int:
    """Turn `docs/glossary.md`, a list of **word**: meaning, into a glossary that other pages can point to."""
    text = source.read_text(encoding="utf-8")
    head, *entries = re.split(r"(?m)^- \*\*", text)
    body = []
    for entry in entries:
        word, _, meaning = entry.partition("**:")
        body.append(f"{word}\n    {' '.join(meaning.split())}\n")
    target.write_text(head + "```{glossary}\n" + "\n".join(body) + "```\n", encoding="utf-8")
    return len(entries)


def mathjax(target: Path) -> None:
    """Copy MathJax (3.2, from sphinx-mathjax-offline) with its fonts, which lie in a folder beside it."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise SystemExit("MathJax is missing: pip install --editable '.[site]'")
    source = Path(spec.origin).parent / "static" / "mathjax"
    target.mkdir(parents=True)
    shutil.copy(source / "tex-chtml-full.js", target)
    fonts = "output/chtml/fonts/woff-v2"
    shutil.copytree(source / fonts, target / fonts)


def stage(source: Path, address: str | None) -> dict[str, int]:
    """Write everything Sphinx reads to the folder `source`; return counts of what is there."""
    (source / "solutions").mkdir(parents=True)
    pictures = source / "extra" / "pictures"
    pictures.mkdir(parents=True)
    rows, names, solutions = [], [], []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        number, _, name = title(notebook).partition(" · ")
        rows.append(f"| {number} | [{name}]({path.name}) | {question(notebook)} |")
        names.append(path.stem)
        nbformat.write(page(path, pictures, address), source / path.name)
    for path in sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb")):
        solutions.append(path.stem)
        nbformat.write(page(path, pictures, address), source / "solutions" / path.name)
    index = (HERE / "index.md").read_text(encoding="utf-8")
    index = index.replace("ROWS", "\n".join(rows)).replace("NOTEBOOKS", "\n".join(names))
    index = index.replace("LAUNCH", launch_links(address, "notebooks/00_start_here.ipynb") if address else "")
    (source / "index.md").write_text(index, encoding="utf-8")
    toc = "\n".join(solutions)
    (source / "solutions" / "index.md").write_text(
        "# Solutions\n\nThe answers to the exercises, each folded away. Try first: the check below "
        f"an exercise says what it expected and what came.\n\n```{{toctree}}\n:maxdepth: 1\n\n{toc}\n```\n",
        encoding="utf-8",
    )
    explorers.write(source)
    words = write_glossary(ROOT / "docs" / "glossary.md", source / "glossary.md")
    n_modules = write_reference(source / "reference")
    mathjax(source / "static" / "mathjax")
    for name in ("site.css", "site.js", "map.js", "builder.js"):
        shutil.copy(HERE / name, source / "static")
    return {
        "notebooks": len(names),
        "solutions": len(solutions),
        "pictures": len(list(pictures.iterdir())),
        "modules": n_modules,
        "words": words,
    }


def build(out: Path, address: str | None) -> dict[str, Any]:
    """Build the site into the folder `out`, which is replaced; return counts, megabytes and seconds."""
    from sphinx.application import Sphinx

    start = time.perf_counter()
    work = out.with_name(out.name + "-work")
    for folder in (out, work):
        shutil.rmtree(folder, ignore_errors=True)
    counts: dict[str, Any] = stage(work / "source", address)
    source = work / "source"
    folders = {"html_static_path": [str(source / "static")], "html_extra_path": [str(source / "extra")]}
    app = Sphinx(source, HERE, out, work / "doctrees", "html", folders, status=None, freshenv=True)
    app.build()
    if app.statuscode:
        raise SystemExit("Sphinx could not build the site; its messages are above")
    for path in out.rglob("*.html"):
        # furo's headings of the list of pages have no level, which screen readers ask for
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('role="heading"', 'role="heading" aria-level="2"'), encoding="utf-8")
    for leftover in (".buildinfo", "objects.inv"):
        (out / leftover).unlink(missing_ok=True)
    shutil.rmtree(out / "_sources", ignore_errors=True)
    counts["pages"] = len(list(out.rglob("*.html")))
    counts["megabytes"] = round(sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1e6, 1)
    counts["seconds"] = round(time.perf_counter() - start, 1)
    return counts


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "build" / "site")
    parser.add_argument("--repository", default=repository(), help="makes the Colab and Binder links")
    arguments = parser.parse_args()
    counts = build(arguments.out.resolve(), arguments.repository)
    print(json.dumps(counts))
    print(f"open {arguments.out / 'index.html'}")


if __name__ == "__main__":
    main()
