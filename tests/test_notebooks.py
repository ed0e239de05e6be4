"""The meta-test: what every notebook of the course must hold, read from the file without running it.

Running them is nbval's part (`make test`), which passes a notebook without outputs; this one does not.
"""

from __future__ import annotations

import ast
import json
import re
import statistics
import sys
from functools import cache
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
sys.path.insert(0, str(FOLDER.parent / "tools"))

import oneclick  # noqa: E402

SERIES = [
    "00_start_here",
    "01_architectures_are_hyperparameters",
    "02_the_bilevel_problem",
    "03_weight_sharing",
    "04_the_mixed_edge",
    "05_cells_and_the_supernet",
    "06_searching_with_darts",
    "07_deriving_a_cell",
    "08_the_enas_controller",
    "09_searching_with_enas",
    "10_was_it_worth_it",
    "11_the_truth_in_a_small_space",
    "12_when_darts_fails",
    "13_making_it_fast",
    "14_from_the_seed",
]
LESSONS = sorted(FOLDER.glob("*.ipynb"))
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))
SLIDES = {"slide", "subslide", "fragment", "skip", "notes", "-"}

each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
each_solution = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
each_notebook = pytest.mark.parametrize(
    "path", LESSONS + SOLUTIONS, ids=lambda path: str(path.relative_to(FOLDER).with_suffix(""))
)


# ---- what the tests look at


@cache
def cells(path: Path) -> list[nbformat.NotebookNode]:
    return nbformat.read(path, as_version=4).cells


def code(path: Path) -> list[nbformat.NotebookNode]:
    """The code cells of the lesson; the one that installs the package is the machinery's."""
    return [cell for cell in cells(path) if cell.cell_type == "code" and not oneclick.installs(cell)]


def words(path: Path) -> list[str]:
    return [cell.source for cell in cells(path) if cell.cell_type == "markdown"]


def tree(source: str) -> ast.Module:
    """Parse a cell; IPython's magics and shell lines become `pass`, which keeps the line numbers."""
    return ast.parse(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source))


def called_checks(path: Path) -> set[str]:
    """Name every `check.something` that a notebook calls."""
    calls = (
        node for cell in code(path) for node in ast.walk(tree(cell.source)) if isinstance(node, ast.Call)
    )
    return {
        call.func.attr
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "check"
    }


def texts(cell: nbformat.NotebookNode) -> str:
    """Everything a code cell printed or shows as text."""
    shown = []
    for output in cell.outputs:
        shown.append(output.get("text", ""))
        shown += [
            str(data) for kind, data in output.get("data", {}).items() if not kind.startswith("image/p")
        ]
    return "\n".join(shown)


def described(output: nbformat.NotebookNode) -> bool:
    """Tell whether a picture comes with words: alt text, or a `text/plain` that is no object's repr."""
    alts = [kind.get("alt", "") for kind in output.metadata.values() if isinstance(kind, dict)]
    alts += [output.metadata.get("alt", ""), output.data.get("text/plain", "")]
    return any(len(re.findall(r"[A-Za-z]{2,}", text)) >= 4 and not text.startswith("<") for text in alts)


# ---- the series


def test_the_series_is_there():
    assert [path.stem for path in LESSONS] == SERIES


def test_every_notebook_has_its_solutions():
    assert [path.name for path in SOLUTIONS] == [path.name for path in LESSONS]


def test_the_readme_lists_exactly_the_notebooks():
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\(notebooks/(\d\d_\w+)\.ipynb\)", readme) == SERIES


def test_nothing_but_notebooks_lies_beside_them():
    beside = [
        p for p in FOLDER.rglob("*.*") if p.suffix in {".png", ".jpg", ".jpeg", ".npz", ".npy", ".pt", ".gz"}
    ]
    left_behind = {"data", "build", ".ipynb_checkpoints"}
    assert not [p for p in beside if not left_behind & set(p.relative_to(FOLDER).parts)]


# ---- every notebook, solutions too


@each_notebook
def test_it_was_run_from_top_to_bottom(path):
    assert [cell.execution_count for cell in code(path)] == list(range(1, len(code(path)) + 1))
    assert sum(bool(cell.outputs) for cell in code(path)) >= len(code(path)) / 4, (
        "hardly any cell has an output"
    )


@each_notebook
def test_it_ran_without_an_error_or_a_warning(path):
    for number, cell in enumerate(code(path), start=1):
        for output in cell.outputs:
            assert output.output_type != "error", f"cell {number}: {output.ename}: {output.evalue}"
            assert output.get("name") != "stderr", f"cell {number} wrote to stderr: {output.text[:300]}"


@each_notebook
def test_before_all_others_stands_the_cell_that_installs_the_package(path):
    first = next(cell for cell in cells(path) if cell.cell_type == "code")
    assert first.source == oneclick.install_cell(oneclick.repository()).rstrip(), (
        "run `python tools/oneclick.py`"
    )
    assert oneclick.installs(first) and {"remove-cell", "skip-execution"} <= set(first.metadata.tags)
    assert first.execution_count is None and not first.outputs, "it is not run where the package is"


@each_notebook
def test_its_imports_are_its_first_code_cell(path):
    for number, cell in enumerate(code(path), start=1):
        found = [
            ast.unparse(n) for n in ast.walk(tree(cell.source)) if isinstance(n, ast.Import | ast.ImportFrom)
        ]
        assert bool(found) == (number == 1), f"cell {number} imports {found}"


@each_notebook
def test_every_picture_says_in_words_what_it_shows(path):
    for number, cell in enumerate(code(path), start=1):
        for output in cell.outputs:
            if any(kind.startswith("image/") for kind in output.get("data", {})):
                said = output.data.get("text/plain", "")[:80]
                assert described(output), f"the picture of cell {number} says only {said!r}"
    for number, source in enumerate(words(path), start=1):
        assert "![](" not in source, f"text cell {number} has a picture without alt text"


@each_notebook
def test_no_path_of_the_machine_it_ran_on(path):
    for number, cell in enumerate(cells(path), start=1):
        text = cell.source + ("\n" + texts(cell) if cell.cell_type == "code" else "")
        found = re.search(r"(?<![\w.])/(tmp|work|root|home|Users|var)/\S*|[A-Z]:\\\w+", text)
        assert not found, f"cell {number} shows {found[0] if found else ''}"


@each_notebook
def test_it_shows_no_address_of_an_object(path):
    for number, cell in enumerate(code(path), start=1):
        assert " at 0x" not in texts(cell), f"cell {number} shows the address of an object"


@each_notebook
def test_it_is_a_deck_too(path):
    for number, cell in enumerate(cells(path), start=1):
        kind = cell.metadata.get("slideshow", {}).get("slide_type")
        assert kind in SLIDES, f"cell {number} has slide type {kind!r}"


@each_notebook
def test_it_is_small_enough_for_a_repository(path):
    assert path.stat().st_size < 3_000_000


@each_notebook
def test_cell_ids_are_unique(path):
    # nbformat would repair what this is to find
    ids = [cell["id"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    assert len(ids) == len(set(ids))


# ---- the lessons


@each_lesson
def test_header(path):
    header = "\n".join(words(path)[:3])
    assert cells(path)[0].cell_type == "markdown" and re.match(rf"# .*{path.stem[:2]}", header), (
        "a title with its number"
    )
    assert "After this notebook" in header, "learning objectives: 'After this notebook you can ...'"
    assert re.search(r"[Pp]rerequisite", header), "prerequisites"
    assert re.search(r"\d+ (s|seconds?|min|minutes?)\b.*CPU|CPU.*\d+ (s|seconds?|min|minutes?)\b", header), (
        "time on a CPU"
    )


@each_lesson
def test_prerequisites_are_links_that_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+\.ipynb)", "\n".join(words(path))):
        assert (path.parent / target).exists(), f"a link leads to {target}, which is not there"


# What is compared in CI shows no bar, nor does what trains many networks one after the other.
WITHOUT_A_BAR = {"small_trainer", "searcher", "new_training", "alone", "search", "rates"}


@each_lesson
def test_every_search_shows_a_bar(path):
    for number, cell in enumerate(code(path), start=1):
        if re.search(r"""progress["']?[:=] ?False,?""", cell.source):
            names = {node.name for node in tree(cell.source).body if isinstance(node, ast.FunctionDef)}
            assert names & WITHOUT_A_BAR, f"cell {number} trains without a bar"


@each_lesson
def test_some_outputs_are_compared_in_ci(path):
    compared = [
        cell
        for cell in code(path)
        if "nbval-check-output" in cell.metadata.get("tags", []) or "NBVAL_CHECK_OUTPUT" in cell.source
    ]
    assert len(compared) >= 3
    assert all(cell.outputs for cell in compared), "a compared cell has no output"
    assert not any("%|" in texts(cell) for cell in compared), "a compared cell shows a progress bar"


@each_lesson
def test_exercises_have_a_hint_and_a_check(path):
    text = "\n".join(words(path))
    exercises = re.findall(r"(?m)^#+ .*Exercise \d.*$", text)
    assert exercises, "a heading 'Exercise 1 ...'"
    assert text.count("<details>") >= len(exercises), "a hint for each, in <details>"
    assert text.count("<details>") == text.count("</details>")
    for heading in re.split(r"(?m)^(?=#+ .*Exercise \d)", text)[1:]:
        assert re.search(r"\d+ min", heading), "minutes: " + heading[:60]
        assert re.search(r"(?i)difficulty|easy|medium|hard|★|●", heading), "difficulty: " + heading[:60]
    assert called_checks(path), "a call of check.something(...)"


@each_lesson
def test_exercises_are_left_to_the_student(path):
    assert any("not solved yet" in texts(cell) for cell in code(path))


@each_lesson
def test_cells_are_short(path):
    lengths = [len([line for line in cell.source.splitlines() if line.strip()]) for cell in code(path)]
    assert statistics.median(lengths) <= 10
    assert sum(length < 25 for length in lengths) >= 0.9 * len(lengths), sorted(lengths)[-5:]


@each_lesson
def test_words_and_code_are_about_equal(path):
    assert 0.6 <= len(words(path)) / len(code(path)) <= 1.8


@each_lesson
def test_it_has_pictures(path):
    kinds = [k for cell in code(path) for output in cell.outputs for k in output.get("data", {})]
    assert sum(kind.startswith("image/") for kind in kinds) >= 2


@each_lesson
def test_its_explorers_move_without_a_kernel(path):
    for number, cell in enumerate(code(path), start=1):
        if re.search(r"(?m)^(show\.)?(explore|\w+_explorer|epoch_scrubber)\(", cell.source):
            assert "nasedu-flip" in texts(cell) and "<script" in texts(cell), (
                f"cell {number} keeps one picture: run `python tools/notebooks.py frames {path.name}`"
            )


@each_lesson
def test_it_ends_with_a_summary_and_references(path):
    ending = "\n".join(words(path)[-4:])
    assert re.search(r"(?m)^#+ .*Summary", ending), "a heading 'Summary'"
    assert re.search(r"(?mi)^#+ .*(what next|next|further|read)", ending), "what to read next"
    assert re.search(r"(?m)^#+ .*References", ending), "a heading 'References'"
    assert re.search(r"arXiv[: ]?\d{4}\.\d{4,5}", ending), "references with arXiv numbers"


# ---- the solutions


@each_solution
def test_solutions_pass_every_check_of_the_lesson(path):
    assert called_checks(path) >= called_checks(FOLDER / path.name), "the lesson calls more checks"
    checking = [cell for cell in code(path) if re.search(r"\bcheck\.\w+\(", cell.source)]
    assert checking
    for cell in checking:
        said = texts(cell)
        assert "✓" in said and "✗" not in said and "not solved yet" not in said, said
