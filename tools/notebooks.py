"""Build, run and look at the course's notebooks.

python tools/notebooks.py build SRC.py DEST.ipynb   from a jupytext percent file (needs jupytext)
python tools/notebooks.py execute NB.ipynb ...      run in place, in NASEDU_PROFILE (laptop where unset)
python tools/notebooks.py frames NB.ipynb ...       only make the explorers' flip-books anew, by a quick run
python tools/notebooks.py shot NB.ipynb OUT.png     pictures of the page: OUT-00.png, ... (needs Chromium)
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from oneclick import give_install_cell, repository

WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def save(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write the notebook under a temporary name, then rename it, so that no reader sees half of one."""
    nbformat.validate(notebook)
    temporary = path.with_suffix(".ipynb.tmp")
    nbformat.write(notebook, temporary)
    temporary.replace(path)


# ---- build


def slide_type(cell: nbformat.NotebookNode) -> str:
    """Choose a cell's place in the slides: a section starts one, words a subslide, code stays with them."""
    if cell.cell_type == "code":
        return "-"
    return "slide" if re.match(r"##? ", cell.source) else "subslide"


def build(source: Path, destination: Path) -> None:
    """Make a notebook without outputs; a cell's id depends on its text alone, so that diffs stay small."""
    try:
        import jupytext
    except ImportError:
        sys.exit("build needs jupytext, which is no dependency of the course: pip install jupytext")
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        cell.metadata.setdefault("slideshow", {}).setdefault("slide_type", slide_type(cell))
    give_install_cell(notebook, repository())
    save(notebook, destination)


# ---- execute


def is_progress(text: str) -> bool:
    """Tell a progress bar, or the profiler's diary, on stderr from a warning worth reading."""
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip("\x1b[A ")]
    return all(
        re.search(r"\d+%\||\d+it |it/s|s/it|ProfilerHandler\.cpp|DeviceProperties\.cpp", line)
        for line in lines
    )


def clean(cell: nbformat.NotebookNode) -> list[str]:
    """Drop what changes from run to run or needs a kernel to be seen; return complaints about the rest."""
    complaints: list[str] = []
    kept: list[Any] = []
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stderr":
            if is_progress(output.text):
                continue
            complaints.append(f"stderr: {output.text.strip()[:300]}")
        data: dict[str, Any] = output.get("data", {})
        if WIDGET in data:
            del data[WIDGET]
            if not any(kind.startswith("image/") for kind in data):
                continue
        if kept and output.output_type == "stream" == kept[-1].output_type and output.name == kept[-1].name:
            kept[-1].text += output.text
            continue
        kept.append(output)
    cell.outputs = kept
    cell.metadata.pop("execution", None)
    return complaints


def cpu_of_kernels() -> float:
    """CPU seconds of the kernels that have ended."""
    used = os.times()
    return used.children_user + used.children_system


def execute(path: Path, cell_timeout: int) -> None:
    """Run a notebook in its own folder, and keep its outputs only where all of it ran."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    os.environ.setdefault("NASEDU_PROFILE", "laptop")
    # What a cell prints must not depend on the order of a set.
    os.environ["PYTHONHASHSEED"] = "0"
    # Explorers leave all their pictures, so that pages and decks can move them without a kernel.
    os.environ["NASEDU_FRAMES"] = "1"
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=cell_timeout,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    start, used = time.perf_counter(), cpu_of_kernels()
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError) as error:
        sys.exit(f"{path}: not saved\n{error}")
    # Other work on the machine does not count; several threads count once.
    seconds = min(time.perf_counter() - start, cpu_of_kernels() - used)
    for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        for complaint in clean(cell):
            print(f"{path}: code cell {number + 1}: {complaint}")
    # The kernel writes down its own Python version, which says nothing about the course. The time is what
    # tests/test_prose.py compares the header with.
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": KERNEL,
            "language_info": {"name": "python"},
            "nasedu": {"seconds": round(seconds, 1), "profile": os.environ["NASEDU_PROFILE"]},
        }
    )
    save(notebook, path)
    print(f"{path}: {seconds:.0f} s, profile {os.environ['NASEDU_PROFILE']}")


# ---- frames


def frames(path: Path, cell_timeout: int) -> None:
    """Give a notebook's explorers their flip-books by a run in the ci profile, and leave all else as it was.

    A flip-book is kept only where its first picture says the very words that stand in the notebook: then it
    shows the same thing. Where it shows what was measured, in another profile, only `execute` will do.
    """
    from nbclient import NotebookClient

    os.environ |= {"NASEDU_PROFILE": "ci", "NASEDU_FRAMES": "1", "PYTHONHASHSEED": "0"}
    notebook = nbformat.read(path, as_version=4)
    scratch = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.resolve().parent)}}
    NotebookClient(scratch, timeout=cell_timeout, kernel_name="python3", resources=place).execute()
    made = refused = 0
    for cell, ran in zip(notebook.cells, scratch.cells, strict=True):
        for output in ran.get("outputs", []):
            data = output.get("data", {})
            if "nasedu-flip" not in data.get("text/html", ""):
                continue
            kept = next((o for o in cell.outputs if "text/plain" in o.get("data", {})), None)
            if kept is None or kept.data["text/plain"] != data["text/plain"]:
                refused += 1
                continue
            at = cell.outputs.index(kept)
            cell.outputs[at] = nbformat.v4.new_output("display_data", dict(data))
            made += 1
    save(notebook, path)
    print(f"{path}: {made} flip-books, {refused} that only `execute` can make")


# ---- shot


def chromium(folder: str, *arguments: str) -> str:
    """Run a headless Chromium with a profile of its own and return what it printed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        sys.exit("shot needs Chromium: install it, or look at the notebook in JupyterLab")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    )
    flags += " --disable-component-update --disable-sync --hide-scrollbars"
    command = [program, *flags.split(), f"--user-data-dir={folder}/profile", *arguments]
    return subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stdout


def shot(path: Path, out: Path, piece: int = 1600, width: int = 1100) -> list[Path]:
    """Draw the notebook's page and cut it into pictures of `piece` pixels height."""
    from nbconvert import HTMLExporter
    from PIL import Image

    exporter = HTMLExporter(mathjax_url="", require_js_url="", mermaid_js_url="", embed_images=True)
    body, _ = exporter.from_filename(str(path))
    # Scripts fetched from the network would only make Chromium wait.
    body = re.sub(r'<script[^>]*src="https?:[^>]*></script>', "", body)
    body = re.sub(r'<script type="module">.*?</script>', "", body, flags=re.S)
    pictures: list[Path] = []
    with tempfile.TemporaryDirectory(prefix="nasedu-shot-") as folder:
        page = Path(folder) / "page.html"
        probe = "<script>onload = () => document.title = 'height=' + document.body.scrollHeight</script>"
        page.write_text(body + probe, encoding="utf-8")
        size = f"--window-size={width},{piece}"
        found = re.search(
            r"height=(\d+)", chromium(folder, "--dump-dom", size, page.as_uri()).split("<body")[0]
        )
        if found is None:
            sys.exit(f"{path}: Chromium did not tell the page's height")
        height = int(found[1])
        # Chromium draws no more than some 16,000 pixels at once: move the page up and draw again.
        tall = 8 * piece
        for top in range(0, height, tall):
            rows = min(tall, height - top)
            style = f"<style>body {{ position: relative; top: -{top}px }}</style>"
            page.write_text(body + style, encoding="utf-8")
            picture = Path(folder) / "page.png"
            chromium(folder, f"--window-size={width},{rows}", f"--screenshot={picture}", page.as_uri())
            with Image.open(picture) as image:
                for offset in range(0, rows, piece):
                    target = out.with_name(f"{out.stem}-{len(pictures):02d}.png")
                    image.crop((0, offset, width, min(offset + piece, rows))).save(target)
                    pictures.append(target)
    print("\n".join(map(str, pictures)))
    return pictures


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build")
    command.add_argument("source", type=Path)
    command.add_argument("destination", type=Path)
    command = commands.add_parser("execute")
    command.add_argument("notebooks", type=Path, nargs="+")
    command.add_argument("--cell-timeout", type=int, default=600, help="seconds (600)")
    command = commands.add_parser("frames")
    command.add_argument("notebooks", type=Path, nargs="+")
    command.add_argument("--cell-timeout", type=int, default=600, help="seconds (600)")
    command = commands.add_parser("shot")
    command.add_argument("notebook", type=Path)
    command.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "build":
        build(arguments.source, arguments.destination)
    elif arguments.command == "execute":
        for path in arguments.notebooks:
            execute(path, arguments.cell_timeout)
    elif arguments.command == "frames":
        for path in arguments.notebooks:
            frames(path, arguments.cell_timeout)
    else:
        shot(arguments.notebook, arguments.out)


if __name__ == "__main__":
    main()
