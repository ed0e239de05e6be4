"""One click to a running notebook: links to Colab and Binder, and the cell that installs the package.

Both need an address that the world can reach, `[project.urls] Repository` in pyproject.toml. While it is
unset there are no links, and the cell says what to do.

    launch_links("https://github.com/owner/name", "notebooks/04_the_mixed_edge.ipynb")  Markdown for a page
    install_cell("https://github.com/owner/name")                                      Python for a first cell
    python tools/oneclick.py                        write that cell anew, into every notebook of the course
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import quote

import nbformat

ROOT = Path(__file__).resolve().parents[1]
INSTALL = "install"  # the cell's tag and id


def repository() -> str | None:
    """Read `[project.urls] Repository` from pyproject.toml; None until the project is published."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def slug(repository: str) -> str:
    """Read `owner/name` from a GitHub address; both services know only those by so short a name."""
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", repository)
    if found is None:
        raise ValueError(
            f"[project.urls] Repository is {repository!r}; Colab and Binder want https://github.com/owner/name"
        )
    return found[1]


def launch_links(repository: str, notebook: str, branch: str = "main") -> str:
    """Make the two links of a page, for the notebook at a path in the repository."""
    name, path = slug(repository), quote(notebook)
    colab = f"https://colab.research.google.com/github/{name}/blob/{branch}/{path}"
    binder = f"https://mybinder.org/v2/gh/{name}/{branch}?labpath={quote(notebook, safe='')}"
    return (
        f'<p class="launch"><a href="{colab}">Open in Colab</a> <a href="{binder}">Open in Binder</a></p>\n'
    )


def install_cell(repository: str | None) -> str:
    """Write the first cell of a notebook: it installs the package where it is missing, or says what to do."""
    address = "" if repository is None else f"https://github.com/{slug(repository)}"
    return f'''\
# Where the course's package is missing (on Colab, say), this installs it.
import importlib.util

if importlib.util.find_spec("nasedu") is None:
    address = "{address}"
    if not address:
        raise SystemExit(
            "The package nasedu is not here. In the project's folder type `make lab`, or install the folder: "
            "pip install --editable PATH_OF_THE_PROJECT"
        )
    import subprocess
    import sys

    subprocess.run([sys.executable, "-m", "pip", "install", "-q", f"nasedu @ git+{{address}}"], check=True)
'''


def installs(cell: nbformat.NotebookNode) -> bool:
    """Tell the cell that installs the package, which is no part of the lesson."""
    return INSTALL in cell.metadata.get("tags", [])


def give_install_cell(notebook: nbformat.NotebookNode, address: str | None) -> None:
    """Put the cell before the first code cell, folded; a cell that is there already is replaced.

    Pages and decks leave it out. `tools/notebooks.py execute` does not run it, so it has no number.
    """
    cells = [cell for cell in notebook.cells if not installs(cell)]
    cell = nbformat.v4.new_code_cell(install_cell(address).rstrip(), id=INSTALL)
    cell.metadata = nbformat.from_dict(
        {
            "jupyter": {"source_hidden": True},
            "slideshow": {"slide_type": "skip"},
            "tags": [INSTALL, "remove-cell", "skip-execution"],
        }
    )
    first = next(i for i, one in enumerate(cells) if one.cell_type == "code")
    notebook.cells = [*cells[:first], cell, *cells[first:]]


def main() -> None:
    """Write the cell into every notebook."""
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        give_install_cell(notebook, repository())
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
