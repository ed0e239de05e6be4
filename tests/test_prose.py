"""What the notebooks say in words: no gaps to fill, times that were measured, numbers that files confirm."""

from __future__ import annotations

import json
import re
import statistics
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest

HERE = Path(__file__).resolve()
ROOT = next(folder for folder in HERE.parents if (folder / "pyproject.toml").exists())
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CLAIMS = tomllib.loads((HERE.parent / "prose.toml").read_text(encoding="utf-8")).get("claim", [])
PAPERS = [ROOT / "docs" / "glossary.md", ROOT / "README.md"]
LONGEST = 32  # words of a sentence: who reads in a second language reads it once
# Words of the house's own, or for effect, where the field has one or a statement will do. A pattern is there
# because a notebook once said it.
TICS = {
    r"\bwants? no\b|\bit wants a\b": "say who needs it, and why",
    r"\bmanners of\b|\bwith the manners\b": "say what it does",
    r"\bis another matter\b|\bknows too much to\b": "say how it differs",
    r"\bin the company of\b": "as a part of",
    r"\bOne would think\b": "say what is expected, and of whom",
    r"\bThat is no law\b": "say for what it holds",
    r"\b[Nn]umbers in, numbers out\b": "say what is passed and returned",
    r"\bfor everybody\b": "for all architectures",
    r"\bstands? where (their|its|the) idea\b": "is above",
    r"\bchanges? nothing: that is why\b": "say the rule first, then what follows",
    r"goes on with it either way": "goes on with that answer",
}
# Each word means one thing: alpha the logits, arch the dict of matrices, a matrix one label's.
ALPHA = r"(?:alpha\b|α|\$\\alpha\$)"
MIXED_UP = {
    rf"{ALPHA}[- ]matri|\bmatri(x|ces) (of )?{ALPHA}|(?<!softmax of ){ALPHA} is (a|the) matrix": "the logits",
    r"\bmatrix `arch`|`arch` is (a|the) matrix|\barch: the matrix|\ban arch matrix": "a dict of matrices",
    r"\bhand(s|ed|ing)? (\w+ ){0,3}matri(x|ces)\b": "a network takes an arch",
}
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


# ---- what the tests look at


@cache
def notebook(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def prose(path: Path) -> str:
    """All text cells, each line break as one space, paragraphs apart."""
    cells = (cell.source for cell in notebook(path).cells if cell.cell_type == "markdown")
    return "\n".join(re.sub(r"[ \t]*\n(?!\s*\n)[ \t]*", " ", source) for source in cells)


def printed(path: Path) -> str:
    """What the code cells printed or say in words of a picture."""
    said = []
    for cell in notebook(path).cells:
        for output in cell.get("outputs", []):
            said.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return "\n".join(said)


def first_number(text: str, pattern: str) -> float:
    """The number at the first {} of `pattern` in `text`; later ones match any number."""
    pieces = [re.escape(piece).replace(r"\ ", r"\s+") for piece in pattern.split("{}")]
    found = re.search(r"([-+\d.,]*\d)".join(pieces), text)
    assert found, f"no cell printed {pattern!r}"
    return float(found[1].replace(",", ""))


def unmet_promises(text: str) -> list[str]:
    """Lines that call a notebook 'to come' which is there."""
    there = {path.stem[:2] for path in LESSONS}
    lines = [line for line in text.splitlines() if "to come" in line]
    return [line for line in lines if there & set(re.findall(r"(?:[Nn]otebook |^\| \W*)(\d\d)\b", line))]


def answers(cell: nbformat.NotebookNode) -> bool:
    """Whether the cell is an answer to an exercise, folded away."""
    folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
    return folded and "solution" in cell.metadata.get("tags", [])


def promised_seconds(text: str) -> float:
    """What the header says that the cells take on a CPU."""
    found = re.search(r"for about (\d+|a) (s|seconds|min|minutes?) on a CPU", text)
    assert found, "the header says: 'The cells run for about N s on a CPU', or N minutes"
    return float(found[1].replace("a", "1")) * (60 if found[2].startswith("min") else 1)


def expected_words(claim: dict[str, Any], data: Any) -> str:
    """The claim's sentence, with what its expressions give for `data` in its holes."""
    names = {"mean": statistics.fmean, "stdev": statistics.stdev, "quantiles": statistics.quantiles}
    names["number"] = lambda pattern, after="": first_number(data[data.index(after) :], pattern)
    values = [eval(text, {**names, "data": data}) for text in claim["expressions"]]
    return claim["sentence"].format(*values)


def sentences(source: str) -> list[str]:
    """The sentences of a text cell; without headings, tables and references; a code span is one word."""
    text = re.sub(r"(?s)\$\$.*?\$\$|```.*?```", " ", source.split("## References")[0])
    text = re.sub(r"<[^>]+>", "\n\n", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text))
    found = []
    for part in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|\n(?=#)", text):
        words = re.sub(r"`[^`]*`|\$[^$]*\$", "X", " ".join(part.split()))
        if words and not words.startswith(("#", "|")):
            found += re.split(r"(?<=[.!?:;])[*)\"]*\s+(?=[A-Z(*])", words)
    return found


def said(text: str, patterns: dict[str, str]) -> list[str]:
    """What `text` says that a pattern names, each with what to say in its place."""
    return [
        f"{found[0]!r} in {text[max(0, found.start() - 60) : found.end() + 40]!r}: {instead}"
        for pattern, instead in patterns.items()
        for found in re.finditer(pattern, text)
    ]


# ---- the tests


@each_lesson
def test_no_gap_was_left_to_fill_in(path):
    assert not re.findall(r"\b(TIME|TODO|FIXME|XXX)\b", prose(path))


@each_lesson
def test_nothing_is_to_come_that_is_there(path):
    assert not unmet_promises("\n".join(c.source for c in notebook(path).cells if c.cell_type == "markdown"))


def test_the_readme_promises_nothing_that_is_there():
    assert not unmet_promises((ROOT / "README.md").read_text(encoding="utf-8"))


@each_lesson
def test_the_header_tells_the_time_that_was_measured(path):
    measured = notebook(path).metadata.get("nasedu", {})
    if measured.get("profile") != "laptop":
        pytest.skip("not executed yet by a tools/notebooks.py that writes down the time")
    promised = promised_seconds(prose(path))
    assert promised / 2 <= measured["seconds"] <= 2 * promised


@each_lesson
def test_no_sentence_is_too_long_to_be_read_once(path):
    cells = [cell.source for cell in notebook(path).cells if cell.cell_type == "markdown"]
    long = [s for source in cells for s in sentences(source) if len(s.split()) > LONGEST]
    assert not long, f"more than {LONGEST} words; make two sentences of each:\n" + "\n".join(long)


@each_lesson
def test_it_states_and_does_not_hint(path):
    assert not said(prose(path), TICS)


@pytest.mark.parametrize("path", [*LESSONS, *PAPERS], ids=lambda path: path.stem)
def test_alpha_arch_and_matrix_each_mean_one_thing(path):
    text = prose(path) if path.suffix == ".ipynb" else " ".join(path.read_text(encoding="utf-8").split())
    assert not said(text, MIXED_UP)


def test_the_glossary_has_the_words_that_mean_one_thing():
    words = re.findall(r"(?m)^- \*\*([^*(]+?)(?: \(.*?\))?\*\*: ", PAPERS[0].read_text(encoding="utf-8"))
    assert {"alpha", "arch", "matrix", "row", "state", "weight"} <= set(words)
    assert [word.lower() for word in words] == sorted(word.lower() for word in words)


@each_lesson
def test_half_of_the_exercises_stand_where_the_idea_is_met_with_a_folded_answer(path):
    cells, met, total = notebook(path).cells, 0, 0
    for place, cell in enumerate(cells):
        if cell.cell_type == "markdown" and re.search(r"(?m)^#+ .*Exercise \d", cell.source):
            total += 1
            met += any(answers(later) for later in cells[place + 1 : place + 8])
    assert met >= total / 2, f"{met} of {total} exercises have a folded answer below their check"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["notebook"][:2] + claim["sentence"][:40])
def test_numbers_in_prose_are_those_of_their_file(claim):
    path = ROOT / "notebooks" / f"{claim['notebook']}.ipynb"
    own = claim["file"] == "notebook"
    data = printed(path) if own else json.loads((ROOT / claim["file"]).read_text(encoding="utf-8"))
    assert expected_words(claim, data) in prose(path)


# ---- the tests' own parts


def test_a_promise_is_unmet_only_where_the_notebook_is_there():
    assert unmet_promises("| 10 | was it worth it *(to come)* | Does it? |")
    assert unmet_promises("as notebook 10 (to come) will")
    assert not unmet_promises("| 99 | *(to come)* |\nin whichever ReLU happens to come next, in 10 s")


def test_a_sentence_ends_where_it_ends():
    source = "Take `a b` and $x + y$. **It** is\none [of two](http://a.b).\n\n- a list; of\n- items\n\n| a |"
    assert sentences(source) == ["Take X and X.", "**It** is one of two.", "- a list; of", "- items"]


@pytest.mark.parametrize(
    "text",
    [
        "the α-matrix",
        "a matrix of $\\alpha$",
        "an architecture is a matrix `arch`",
        "hand the network a matrix",
    ],
)
def test_words_that_are_mixed_up_are_found(text):
    assert said(text, MIXED_UP)
    assert not said("a row for each edge: `arch` holds the matrix, its softmax is taken of α", MIXED_UP)


def test_the_promised_time_in_seconds():
    assert promised_seconds("The cells run for about 2 minutes on a CPU") == 120
    assert promised_seconds("compute for about 30 s on a CPU (measured)") == 30
    assert promised_seconds("The cells run for about a minute on a CPU") == 60
    with pytest.raises(AssertionError, match="the header says"):
        promised_seconds("It takes a while on a CPU")


def test_a_claim_is_its_sentence_with_the_files_numbers():
    claim = {"sentence": "{:.1f} of {} seeds", "expressions": ["mean(data['x'])", "len(data['x'])"]}
    assert expected_words(claim, {"x": [1, 2, 6]}) == "3.0 of 3 seeds"
    own = {"sentence": "{:.0f} of 24", "expressions": ["number('found: {} of {}')"]}
    assert expected_words(own, "so found: 23 of 24 (3 seeds)") == "23 of 24"
