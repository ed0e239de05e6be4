"""What holds the project together: one direction of imports, docstrings, files that say the same."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import nasedu

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nasedu"

# The rooms in the one order of design.md: a room imports only from those above it.
ROOMS = [
    "errors",
    "files",
    "processes",
    "profiles",
    "data",
    "space",
    "search",
    "study",
    "show",
    "check",
    "doctor",
    "run",
    "cli",
]

SOURCES = sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room(path: Path) -> str:
    """Name the room that a file is in; a file that lies beside the rooms counts as one."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """Name the modules of this package that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [
                "nasedu." + (f"{node.module}." if node.module else "") + alias.name for alias in node.names
            ]
        else:
            continue
        found |= {part.split(".")[1] for part in names if part.startswith("nasedu.")}
    return found


# ---- the package


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_rooms_import_only_from_those_above(path):
    here = room(path)
    if here in {"__init__", "__main__"}:
        return
    assert here in ROOMS, f"{name(path)} is in a new room: give it its place in ROOMS, {name(Path(__file__))}"
    for used in imports(path) - {here}:
        assert used in ROOMS, (
            f"{name(path)} imports {used} from nasedu itself: import from the room that has it"
        )
        assert ROOMS.index(used) < ROOMS.index(here), f"{here} imports {used}, which comes after it"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_public_name_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{name(path)} does not say what it is"
    scopes: list[ast.Module | ast.ClassDef] = [tree]
    while scopes:
        for node in scopes.pop().body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{name(path)}:{node.lineno}: {node.name} has no docstring"
                if isinstance(node, ast.ClassDef):
                    scopes.append(node)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_formulas_in_docstrings_stand_on_lines_of_their_own(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        for line in (ast.get_docstring(node) or "").splitlines():
            # What is set off by spaces is a display. A keyword argument's = has no space after it.
            signs = re.findall(r"(?<![=<>!])=\s", line) if line.startswith("    ") else []
            assert len(signs) < 2, (
                f"{name(path)}, {getattr(node, 'name', 'module')}: two formulas on one line, as a reflow "
                f"leaves them: {line.strip()!r}"
            )


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_public_functions_have_type_hints(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            missing = [
                a.arg
                for a in node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                if not a.annotation
            ]
            assert not missing, f"{name(path)}:{node.lineno}: {node.name} does not say the type of {missing}"
            assert node.returns, f"{name(path)}:{node.lineno}: {node.name} does not say what it returns"


def test_the_package_is_packaged_whole():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in SOURCES}
    assert folders == set(project["tool"]["setuptools"]["packages"])


# ---- found by typing


def test_tab_shows_the_public_names_and_the_rooms():
    names = dir(nasedu)
    assert {"CNN", "DartsTrainer", "draw_cell", "get_dataset", "hypergrad", *nasedu.ROOMS} <= set(names)
    assert not {name for name in names if name.startswith("_")} - {"__version__"}
    assert not {"Any", "importlib", "NAMES"} & set(names)
    for public in names:
        assert getattr(nasedu, public) is not None
    from nasedu import draw_cell

    assert draw_cell is nasedu.show.draw_cell
    with pytest.raises(AttributeError, match="help"):
        nasedu.nothing_of_this_name  # noqa: B018


def test_help_is_a_map_of_one_screen_that_names_every_public_name():
    page = pydoc.plain(pydoc.render_doc(nasedu))
    assert len(page.splitlines()) <= 60, "with __all__ at run time pydoc prints every class"
    missing = [public for public in dir(nasedu) if not re.search(rf"\b{public}\b", nasedu.__doc__)]
    assert missing == ["__version__"]


@pytest.mark.parametrize("trainer", ["DartsTrainer", "EnasTrainer", "RandomSearch", "StandaloneTrainer"])
def test_a_trainer_lists_what_it_takes_in_its_own_signature(trainer):
    taken = inspect.signature(getattr(nasedu, trainer)).parameters
    assert {"model", "dataset", "num_epochs", "seed", "checkpoint", "callbacks", "progress"} <= set(taken)
    assert all(
        one.kind is not one.VAR_KEYWORD and one.kind is not one.VAR_POSITIONAL for one in taken.values()
    )


def test_import_loads_nothing_heavy():
    code = "import sys, torch; before = set(sys.modules); import nasedu; print(*(set(sys.modules) - before))"
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    loaded = {module.split(".")[0] for module in child.stdout.split()}
    assert "nasedu" in loaded
    heavy = {"torchvision", "matplotlib", "graphviz", "pygraphviz", "ipywidgets", "IPython", "joblib", "dask"}
    assert not loaded & (heavy | {"pandas", "scipy", "pyarrow", "ray"})
    # and no room that draws or studies: each is loaded when it is first touched
    assert not {"nasedu.study", "nasedu.show", "nasedu.check"} & set(child.stdout.split())


# ---- conda and pip


CONDA_NAMES = {"torch": "pytorch", "graphviz": "python-graphviz", "dask[distributed]": "distributed"}
# conda-forge has only 1.x of it, which brings no Graphviz along
ONLY_PIP = {"pygraphviz"}


def bounds(requirements: list[str]) -> dict[str, str]:
    """Split 'name>=bound' into the two."""
    return dict(requirement.replace(" ", "").split(">=") for requirement in requirements)


def test_environment_yml_names_the_same_packages_as_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # It is for students: what `make lab` installs, without the tools of development.
    wanted = bounds(project["dependencies"] + project["optional-dependencies"]["notebooks"])
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge"]
    conda = bounds([line for line in environment["dependencies"] if isinstance(line, str) and line != "pip"])
    (pip,) = (line["pip"] for line in environment["dependencies"] if isinstance(line, dict))
    assert "--editable ." in pip
    assert conda.pop("python") == project["requires-python"].removeprefix(">=")
    assert bounds([line for line in pip if ">=" in line]) == {key: wanted[key] for key in ONLY_PIP}
    assert conda == {CONDA_NAMES.get(k, k): v for k, v in wanted.items() if k not in ONLY_PIP}


# ---- the papers around it


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_commands_a_page_names_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    named = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"(?s)```.*?```|`[^`\n]+`", text))))
    assert named and named <= targets, f"{page} names {named - targets}, which the Makefile does not have"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_files_a_page_links_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (ROOT / target).exists(), f"{page} links to {target}, which is not there"


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = re.search(r"(?m)^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    package = re.search(r'(?m)^__version__ = "(.*)"', (PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    assert package and package[1] == version
    assert citation["version"] == version
    assert changelog and changelog[1] == version


def test_ci_does_only_what_the_readme_tells():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash" and lines[1] == "set -euo pipefail" and lines[-1] == "make test"
