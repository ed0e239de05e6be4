"""Make one deck of slides from each notebook; nothing is run, and a deck needs no network.

    python tools/decks/slides.py [OUT] [NOTEBOOK ...]      OUT is build/slides where not given

What stands on a slide comes from the cells: a heading opens one, of a paragraph the first sentence stays,
lists, tables, formulas and exercises stay, each figure gets a slide of its own or shares it with a few words.
All of the prose goes into the speaker's notes (press S). Code is left out unless its cell has the tag
`code-on-slide`; a cell tagged `notes` is notes alone, one tagged `skip` or `solution` is left out, as are
exercises' hints.
reveal.js (from the package sphinx-revealjs) turns the pages: arrows, O for the overview, F for the whole
screen, `?print-pdf` behind the address to print.

A slide is 1280 x 720 pixels and no text on it is smaller than 20. Blocks are packed by an estimate of their
height; tests/browser measures every slide in a real browser.
"""

from __future__ import annotations

import argparse
import base64
import html
import importlib.util
import math
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

ROOM = 560  # pixels of height below the title
FULL = 830  # of a slide whose letters deck.js makes smaller: the first one, the summary, references
BESIDE = 130  # words of at most this height share a slide with a figure
LEGIBLE = 20  # pixels that the smallest text of a picture has at least
BAR = 64  # pixels of an explorer's slider
NARROW = 1.5  # a figure at most this many times as wide as high leaves room for the words at its left
LINE = 88  # characters of code on a line
CODE_LINES = 18
OUTPUT_LINES = 6
POINTER = re.compile(
    r"(Solutions|Answers)\b.*\]\(solutions/|Exercises? [\d. andto]+(is|are) above"
)  # for the page
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z(*`$])")


@dataclass
class Block:
    """A piece of a slide: what it shows, the height it takes in pixels, a figure's width over its height.

    `least` is the height below which a figure's letters become too small.
    """

    html: str
    height: int
    kind: str = "text"
    aspect: float = 2.0
    least: int = 0
    more: Block | None = None  # the same at greater length, for a slide with room

    @property
    def spare(self) -> int:
        """What a figure can give away of a slide's height; a wide one only while its letters are legible."""
        return ROOM - self.least if self.aspect > NARROW else ROOM

    @property
    def is_words(self) -> bool:
        """Whether it is a paragraph or an item of a list."""
        return self.kind in ("text", "item")


@dataclass
class Slide:
    """A title, blocks, and what the speaker says."""

    title: str
    blocks: list[Block] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def height(self) -> int:
        """How much of the room is taken."""
        return sum(block.height for block in self.blocks)


def markdown() -> MarkdownIt:
    """CommonMark with tables and formulas between dollars."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    return parser.use(dollarmath_plugin, renderer=_formula)


def _formula(content: str, options: dict[str, Any]) -> str:
    left, right = (r"\[", r"\]") if options.get("display_mode") else (r"\(", r"\)")
    return html.escape(f"{left}{content}{right}", quote=False)


MD = markdown()


def first_sentence(text: str, most: int = 120) -> str:
    """The first sentence of a paragraph, with the next ones up to `most` characters."""
    sentences, kept = SENTENCE.split(" ".join(text.split())), ""
    for sentence in sentences:
        if kept and len(kept) + len(sentence) > most:
            break
        kept = f"{kept} {sentence}".strip()
    return kept.removeprefix("(") if kept.count("(") > kept.count(")") else kept


def lines_of(text: str, width: int = 80) -> int:
    """About how many lines this markdown takes on a slide; a formula counts half of its source."""
    plain = re.sub(r"\$[^$]+\$", lambda m: m[0][: len(m[0]) // 2], text)
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain)
    return max(1, -(-len(plain) // width))


def strip_hints(source: str) -> str:
    """Leave out what is folded away on the page: hints and answers are for students alone."""
    return re.sub(r"(?s)<details.*?</details>", "", source)


def pieces(source: str) -> Iterator[tuple[str, str]]:
    """The blocks of a markdown cell as (kind, markdown); kinds are the values below."""
    kinds = {"heading_open": "heading", "paragraph_open": "paragraph", "bullet_list_open": "list",
             "ordered_list_open": "list", "table_open": "table", "math_block": "formula", "fence": "code",
             "html_block": "html", "blockquote_open": "paragraph"}  # fmt: skip
    lines = source.splitlines()
    for token in MD.parse(source):
        if token.level == 0 and token.type in kinds and token.map:
            yield kinds[token.type], "\n".join(lines[token.map[0] : token.map[1]])


def text_blocks(source: str) -> Iterator[Block | str]:
    """What stands on the slide, in order; a heading is a plain text. References and tasks stay whole."""
    whole = False
    for kind, text in pieces(strip_hints(source)):
        if kind == "heading":
            title = text.lstrip("# ").strip()
            whole = title.startswith(("References", "Exercise "))
            yield title
        elif kind == "formula" or kind == "paragraph" and re.fullmatch(r"(?s)\s*\$\$.*\$\$\s*", text):
            yield Block(MD.render(text), 70 + 34 * text.count(r"\\"), "formula")
        elif kind == "paragraph" and not POINTER.match(text):
            text = text.lstrip("> ")
            yield paragraph(text) if whole else paragraph(first_sentence(text), first_sentence(text, 320))
        elif kind == "list":
            items = re.split(r"(?m)^(?=(?:[-*+]|\d+\.)\s)", text)
            for item in filter(str.strip, items):
                mark, said = item.strip().split(maxsplit=1)  # the point of "1." ends no sentence
                kept = f"{mark} {said if whole else first_sentence(said)}"
                yield Block(MD.render(kept), 38 * lines_of(kept, 76) + 10, "item")
        elif kind == "table":
            rows = [row for row in text.splitlines() if row.strip()]
            head, body = rows[:2], rows[2:]
            size = -(-len(body) // -(-len(body) // 9)) if body else 1  # about the same on each slide
            for start in range(0, len(body), size):
                part = body[start : start + size]
                height = 54 + sum(
                    38 * max(lines_of(cell, 100 // max(2, row.count("|") - 1)) for cell in row.split("|"))
                    for row in part
                )
                yield Block(MD.render("\n".join([*head, *part])), min(height, ROOM), "table")
        elif kind == "code":
            code = re.sub(r"^```.*\n|\n?```$", "", text)
            yield from code_blocks(code)


def paragraph(text: str, longer: str = "") -> Block:
    """A paragraph, and what it may become."""
    more = paragraph(longer) if len(longer) > len(text) else None
    return Block(MD.render(text), 40 * lines_of(text) + 16, more=more)


def code_blocks(code: str, kind: str = "code") -> Iterator[Block]:
    """Code or printed text in parts that fit on a slide; longer lines go on below, indented."""
    lines = [part for line in code.rstrip().splitlines() for part in _cut(line)]
    n_parts = -(-len(lines) // CODE_LINES)
    size = -(-len(lines) // max(1, n_parts))  # about the same on each slide
    for start in range(0, len(lines), size or 1):
        part = lines[start : start + size]
        yield Block(f"<pre class='{kind}'>{html.escape(chr(10).join(part))}</pre>", 28 * len(part) + 34, kind)


def _cut(line: str) -> list[str]:
    """A line in parts of at most `LINE` characters, cut at a space where there is one, the rest indented."""
    parts, indent = [], " " * min(24, len(line) - len(line.lstrip()) + 4)
    while len(line) > LINE:
        at = line.rfind(" ", LINE // 2, LINE + 1)
        at = LINE if at < 0 else at
        parts.append(line[:at])
        line = indent + line[at:].lstrip()
    return [*parts, line]


def joined(value: str | list[str]) -> str:
    """What a notebook may store as lines, as one text."""
    return value if isinstance(value, str) else "".join(value)


def output_blocks(cell: Any, code_shown: bool, name: str, pictures: Path) -> Iterator[tuple[Block, str]]:
    """What a code cell shows, each with its words for the notes; pictures become files."""
    number = 0
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        words = " ".join(joined(data.get("text/plain", "")).split())
        kind = next((k for k in ("image/svg+xml", "image/png") if k in data), None)
        page = joined(data.get("text/html", ""))
        if "nasedu-flip" in page:
            for book, least, wide in books_of(page):
                yield Block(f"<div class='flip'>{book}</div>", ROOM, "figure", wide, least=least), words
        elif kind is not None:
            content = joined(data[kind])
            file = pictures / f"{name}-{number}.{'svg' if 'svg' in kind else 'png'}"
            file.write_bytes(content.encode() if "svg" in kind else base64.b64decode(content))
            number += 1
            alt = html.escape(words, quote=True)
            # A picture that the package did not draw may say nothing about itself.
            size = {"width": 2, "height": 1, "letters": math.inf}
            size |= output.get("metadata", {}).get("image/png", {})
            about = "".join(
                f" {mark}{key}='{size[key]}'"
                for key, mark in (("width", ""), ("height", ""), ("letters", "data-"))
                if size[key] < math.inf
            )
            wide, least = size["width"] / size["height"], _height_of(size["height"], size["letters"])
            shown = f"<img src='figures/{file.name}' alt='{alt}'{about}>"
            yield Block(shown, ROOM, "figure", wide, least=least), words
        elif output.get("output_type") == "stream" or words:
            text = joined(output.get("text", "")) or joined(data.get("text/plain", ""))
            if text.startswith("not solved yet"):
                continue
            if code_shown or len(text.splitlines()) <= OUTPUT_LINES:
                short = "\n".join(text.splitlines()[:CODE_LINES])
                yield from ((block, "") for block in code_blocks(short, "output"))


def books_of(page: str) -> Iterator[tuple[str, int, float]]:
    """An explorer for each picture that its frames have, with the height that this needs, and its shape."""
    told = [tag for tag in re.findall(r"<img [^>]*>", page) if "data-letters" in tag]
    for number, tag in enumerate(told):
        book = page
        for other in told[:number] + told[number + 1 :]:
            book = book.replace(other, other.replace("display: block", "display: none"))
        said = re.search(r'width="(\d+)" height="(\d+)" data-letters="([\d.]+)"', tag)
        assert said is not None
        yield book, BAR + _height_of(int(said[2]), float(said[3])), int(said[1]) / int(said[2])


def _height_of(height: float, letters: float) -> int:
    """Pixels that a picture needs on a slide, so that its smallest text can be read."""
    return math.ceil(LEGIBLE * height / letters)


def slides_of(notebook: Any, stem: str, pictures: Path) -> list[Slide]:
    """All slides of a notebook, in order."""
    slides: list[Slide] = []
    theme = stem  # the section's title, to which slides return after an exercise
    kept = [cell for cell in notebook.cells if _is_shown(cell)]
    task_ended = False
    for number, cell in enumerate(kept):
        tags = set(cell.metadata.get("tags", []))
        place = cell.metadata.get("slideshow", {}).get("slide_type", "-")
        if cell.cell_type == "markdown":
            if tags & {"notes"} or place == "notes":
                if slides:
                    slides[-1].notes.append(cell.source)
                continue
            parts = list(text_blocks(cell.source))
            if (
                not slides
                or task_ended
                or place == "slide"
                or place == "subslide"
                and not _goes_on(slides[-1], parts, kept[number + 1 :])
            ):
                slides.append(Slide(theme))
                task_ended = False
            fresh = slides[-1]
            fresh.notes.append(strip_hints(cell.source))
            for piece in parts:
                if isinstance(piece, str):
                    if fresh.blocks:
                        fresh = Slide(piece)
                        slides.append(fresh)
                    fresh.title = piece
                    theme = theme if piece.startswith("Exercise ") else piece
                else:
                    _add(slides, piece)
                    fresh = slides[-1]
            continue
        shown = "code-on-slide" in tags
        blocks = [(block, "") for block in code_blocks(cell.source)] if shown else []
        blocks += output_blocks(cell, shown, f"{stem}-{cell.id}", pictures)
        # A task ends with the student's cell: what comes after it belongs to the section again.
        if blocks and task_ended:
            slides.append(Slide(theme))
        task_ended = bool(slides) and slides[-1].title.startswith("Exercise ")
        for block, words in blocks:
            _add(slides, block)
            if words:
                slides[-1].notes.append(words)
    slides = gathered([slide for slide in slides if slide.blocks])
    for before, slide in pairwise(slides):  # what goes on on a further slide is spoken about with the first
        slide.notes = slide.notes or before.notes
    return slides


def gathered(slides: list[Slide]) -> list[Slide]:
    """Join slides of one title that fit on one, few words and a figure or no figure; fill lonely ones."""
    made = slides[:1]
    for slide in slides[1:]:
        last = made[-1]
        both = [*last.blocks, *slide.blocks]
        figures = [block for block in both if block.kind == "figure"]
        others = [block for block in both if block.kind != "figure"]
        said = sum(block.height for block in others)
        if not figures:
            most: float = ROOM
        elif len(figures) > 1 or not all(block.is_words or block.kind == "output" for block in others):
            most = -1
        elif not all(block.is_words for block in others):
            most = 90  # two printed lines
        else:
            most = 1.5 * BESIDE if figures[0].aspect <= NARROW else BESIDE
        if said <= min([most, *(figure.spare for figure in figures)]) and slide.title == last.title:
            for figure in figures:
                figure.height = ROOM - said
            last.blocks, last.notes = both, last.notes + slide.notes
        else:
            made.append(slide)
    for slide in made:  # a line or two alone on a slide may say more
        if slide.height <= BESIDE and all(block.is_words for block in slide.blocks):
            slide.blocks = [block.more or block for block in slide.blocks]
    return made


def _is_shown(cell: Any) -> bool:
    tags = set(cell.metadata.get("tags", []))
    return not tags & {"skip", "solution"} and cell.metadata.get("slideshow", {}).get("slide_type") != "skip"


def _goes_on(slide: Slide, parts: list[Block | str], later: list[Any]) -> bool:
    """Whether words without a heading go on below what the slide has: they fit, and no figure is near."""
    if any(isinstance(part, str) for part in parts) or any(block.kind == "figure" for block in slide.blocks):
        return False
    for cell in later:
        if cell.cell_type == "markdown":
            break
        if any(
            set(output.get("data", {})) & {"image/png", "image/svg+xml", "text/html"}
            for output in cell.outputs
        ):
            return False  # the words stand with the figure that they are about
    return slide.height + sum(part.height for part in parts if isinstance(part, Block)) <= ROOM


def _add(slides: list[Slide], block: Block) -> None:
    """Put a block on the last slide, or on a new one with the same title where it is full."""
    if not slides:
        slides.append(Slide(""))
    last = slides[-1]
    if (
        block.kind == "figure"
        and last.height <= min(BESIDE, block.spare)
        and all(b.is_words for b in last.blocks)
    ):
        block.height = ROOM - last.height  # a few words stay above the picture that they are about
    elif last.blocks and (block.kind == "figure" or last.height + block.height > _most(slides, block)):
        slides.append(Slide(last.title))
    slides[-1].blocks.append(block)


def _most(slides: list[Slide], block: Block) -> int:
    """How high the last slide may become with this block; deck.js makes letters smaller where it must."""
    if len(slides) == 1 or slides[-1].title.startswith(("References", "Summary")):
        return FULL
    return ROOM + 70 if block.kind == "table" else ROOM


def section(slide: Slide) -> str:
    """A slide as reveal.js takes it; formulas after the first, and words after a figure, wait for a click."""
    parts, formulas, items = [], 0, ""
    figure: Block | None = None
    for block in [*slide.blocks, Block("", 0, "end")]:
        if items and block.kind != "item":
            parts.append(f"<div class='items{' fragment' if figure else ''}'>{items}</div>")
            items = ""
        if block.kind == "item":
            items += block.html
        elif block.kind == "formula":
            formulas += 1
            parts.append(f"<div class='formula{' fragment' if formulas > 1 else ''}'>{block.html}</div>")
        elif block.kind == "figure":
            figure = block
            parts.append(f"<figure>{block.html}</figure>")
        elif block.html:
            parts.append(f"<div class='fragment'>{block.html}</div>" if figure else block.html)
    beside = figure is not None and figure.aspect <= NARROW and len(parts) > 1
    if beside and all(block.is_words or block is figure for block in slide.blocks):
        words = [part for part in parts if not part.startswith("<figure")]
        drawn = next(part for part in parts if part.startswith("<figure"))
        parts = [f"<div class='beside'><div class='words'>{''.join(words)}</div>{drawn}</div>"]
    notes = "".join(MD.render(note) for note in slide.notes)
    title = MD.renderInline(slide.title)
    body = f"<div class='body'>{''.join(parts)}</div><aside class='notes'>{notes}</aside>"
    return f"<section><h2>{title}</h2>{body}</section>"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="assets/reveal/reset.css"><link rel="stylesheet" href="assets/reveal/reveal.css">
<link rel="stylesheet" href="assets/deck.css"></head>
<body><main class="reveal"><div class="slides">
{sections}
</div></main>
<script>MathJax = {{ startup: {{ typeset: true }}, options: {{ enableMenu: false }} }};</script>
<script src="assets/mathjax/tex-chtml-full.js"></script>
<script src="assets/reveal/reveal.js"></script><script src="assets/reveal/notes.js"></script>
<script src="assets/deck.js"></script></body></html>
"""


def assets(out: Path) -> None:
    """Copy reveal.js and MathJax out of their packages, and the decks' own style and script."""
    reveal = _folder("sphinx_revealjs") / "_static" / "revealjs"
    target = out / "assets" / "reveal"
    target.mkdir(parents=True, exist_ok=True)
    for file in ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js"):
        shutil.copy(reveal / file, target)
    shutil.copytree(
        _folder("sphinx-mathjax-offline") / "static" / "mathjax",
        out / "assets" / "mathjax",
        dirs_exist_ok=True,
    )
    for file in ("deck.css", "deck.js"):
        shutil.copy(HERE / file, out / "assets")


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"the package {package} is missing: pip install --editable '.[site]'")
    return Path(spec.origin).parent


def build(out: Path, notebooks: list[Path]) -> dict[str, int]:
    """Write the decks and an index; return the number of slides of each."""
    pictures = out / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    assets(out)
    counts, links = {}, []
    for path in notebooks:
        slides = slides_of(nbformat.read(path, as_version=4), path.stem, pictures)
        title = slides[0].title
        page = PAGE.format(title=html.escape(title), sections="\n".join(map(section, slides)))
        (out / f"{path.stem}.html").write_text(page, encoding="utf-8")
        counts[path.stem] = len(slides)
        links.append(f"<li><a href='{path.stem}.html'>{html.escape(title)}</a>, {len(slides)} slides</li>")
    index = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>nasedu: decks</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<style>body{font:20px/1.6 system-ui,sans-serif;max-width:44em;margin:2em auto;padding:0 1em}</style>"
        f"</head><body><main><h1>The course as slides</h1>"
        f"<ul>{''.join(links)}</ul>"
        "<p>Arrows turn the pages; S opens the speaker's notes, O the overview, F fills the screen. To "
        "print, add <code>?print-pdf</code> to a deck's address.</p></main></body></html>\n"
    )
    (out / "index.html").write_text(index, encoding="utf-8")
    return counts


def main() -> None:
    """Build the decks that the command line names, by default all."""
    parser = argparse.ArgumentParser(description="Make a deck of slides from each notebook.")
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "build" / "slides")
    parser.add_argument("notebooks", type=Path, nargs="*")
    given = parser.parse_args()
    counts = build(given.out, given.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb")))
    for name, count in counts.items():
        print(f"{count:4} slides  {name}")
    print(f"{sum(counts.values()):4} slides in {len(counts)} decks: {given.out / 'index.html'}")


if __name__ == "__main__":
    main()
