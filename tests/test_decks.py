"""Decks: what of a notebook stands on a slide, and what is said. tests/browser judges the looks."""

import importlib.util
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

pytest.importorskip("markdown_it", reason="decks need the extra `slides`")
ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("decks", ROOT / "tools" / "decks" / "slides.py")
decks = importlib.util.module_from_spec(spec)
sys.modules["decks"] = decks
spec.loader.exec_module(decks)

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def cell(make, source, place="-", **more):
    return make(source, metadata={"slideshow": {"slide_type": place}, "tags": more.pop("tags", [])}, **more)


def slides(*cells, tmp_path):
    return decks.slides_of(new_notebook(cells=list(cells)), "99", tmp_path)


def test_of_a_paragraph_the_first_sentence_stands_there_and_all_of_it_is_spoken(tmp_path):
    words = (
        "An edge is a sum. " + "It goes on and on about what that means for a network that is searched. " * 3
    )
    points = "\n".join(f"- point {i}" for i in range(4))
    text = f"## 1 · Edges\n\n{words}\n\n{points}"
    (slide,) = slides(cell(new_markdown_cell, text, "slide"), tmp_path=tmp_path)
    page = decks.section(slide)
    body, notes = page.split("<aside class='notes'>")
    assert slide.title == "1 · Edges" and "An edge is a sum." in body
    assert body.count("It goes on and on") <= 1 and notes.count("It goes on and on") == 3


def test_words_without_a_figure_go_on_below_each_other_and_an_exercise_does_not_rename_what_follows(tmp_path):
    shown = new_output("display_data", {"image/png": PNG, "text/plain": "A picture"})
    made = slides(
        cell(new_markdown_cell, "## 1 · Edges\n\nFirst.", "slide"),
        cell(new_markdown_cell, "Second.", "subslide"),
        cell(new_markdown_cell, "### Exercise 1.1 · Do\n\nDo it.", "subslide"),
        cell(
            new_code_cell, "check.it(None)", outputs=[new_output("stream", text="not solved yet: do it.\n")]
        ),
        cell(new_markdown_cell, "Look at this.", "subslide"),
        cell(new_code_cell, "draw()", outputs=[shown]),
        tmp_path=tmp_path,
    )
    assert [slide.title for slide in made] == ["1 · Edges", "Exercise 1.1 · Do", "1 · Edges"]
    assert [[block.kind for block in slide.blocks] for slide in made] == [
        ["text"] * 2,
        ["text"],
        ["text", "figure"],
    ]


def test_a_task_stands_there_whole_and_what_follows_it_belongs_to_the_section(tmp_path):
    task = (
        "### Exercise 1.1 · Do\n\nDo this. "
        + "It has to hold for every cell, and it has to hold at once. " * 3
    )
    printed = [new_output("stream", text="3 edges\n")]
    made = slides(
        cell(new_markdown_cell, "## 1 · Edges\n\nFirst.", "slide"),
        cell(new_markdown_cell, task, "subslide"),
        cell(new_code_cell, "def mine(): ..."),
        cell(new_code_cell, "def answer(): ...", tags=["solution"]),
        cell(new_code_cell, "print()", outputs=printed),
        cell(new_markdown_cell, "Answers: [there](solutions/1.ipynb).\n\n## Summary\n\n- All.", "slide"),
        tmp_path=tmp_path,
    )
    assert [slide.title for slide in made] == ["1 · Edges", "Exercise 1.1 · Do", "1 · Edges", "Summary"]
    assert decks.section(made[1]).split("<aside")[0].count("It has to hold") == 3
    assert "3 edges" in made[2].blocks[0].html
    assert all("Answers" not in block.html for block in made[-1].blocks + made[2].blocks)


def test_a_line_after_a_figure_waits_below_it_and_stands_at_the_left_of_a_narrow_one(tmp_path):
    def page(width):
        size = {"image/png": {"width": width, "height": 400}}
        shown = new_output("display_data", {"image/png": PNG, "text/plain": "A picture"}, metadata=size)
        made = slides(
            cell(new_markdown_cell, "## F\n\nLook.", "slide"),
            cell(new_code_cell, "draw()", outputs=[shown]),
            cell(new_markdown_cell, "It falls.", "subslide"),
            tmp_path=tmp_path,
        )
        return "".join(map(decks.section, made))

    wide, narrow = page(800), page(500)
    for one in (wide, narrow):
        assert one.count("<section") == 1 and "<div class='fragment'><p>It falls.</p>" in one
    assert wide.index("Look.") < wide.index("<img") < wide.index("It falls.") and "beside" not in wide
    assert "<div class='beside'><div class='words'>" in narrow
    assert narrow.index("It falls.") < narrow.index("<img")


JOINED = [
    (2.0, "text", 130, True), (2.0, "item", 140, False), (1.5, "text", 195, True), (1.5, "text", 200, False),
    (2.0, "output", 90, True), (1.5, "output", 100, False), (2.0, "code", 40, False),
    (2.0, "figure", 40, False),
]  # fmt: skip


@pytest.mark.parametrize(("aspect", "kind", "height", "joined"), JOINED)
def test_a_few_words_join_a_figure_more_join_a_narrow_one_and_code_does_not(aspect, kind, height, joined):
    figure = decks.Block("<img>", decks.ROOM, "figure", aspect)
    made = decks.gathered([decks.Slide("T", [figure]), decks.Slide("T", [decks.Block("x", height, kind)])])
    assert len(made) == (1 if joined else 2)
    assert figure.height == (decks.ROOM - height if joined else decks.ROOM)


def test_a_line_alone_on_a_slide_says_more_and_a_parenthesis_that_is_cut_is_none(tmp_path):
    said = "An edge is a sum. " + "It goes on and on about what that means for a network. " * 9
    shown = [new_output("stream", text="1\n" * 5)]
    head = cell(new_markdown_cell, f"## 1 · Edges\n\n{said}", "slide")
    (alone,) = slides(head, tmp_path=tmp_path)
    (full,) = slides(head, cell(new_code_cell, "print()", outputs=shown), tmp_path=tmp_path)
    assert alone.blocks[0].html.count("goes on") == 5 and full.blocks[0].html.count("goes on") == 1
    assert decks.first_sentence(f"(A note. {said})", 10) == "A note."
    assert decks.first_sentence("(A note.) It is short.") == "(A note.) It is short."


def test_of_an_item_with_a_number_the_first_sentence_stays_too(tmp_path):
    said = "A skip has no weights, so it is as good at the first step " + "as it is at a later one, " * 4
    (slide,) = slides(cell(new_markdown_cell, f"# T\n\n1. {said}\n2. Short.", "slide"), tmp_path=tmp_path)
    assert "no weights" in slide.blocks[0].html and "Short" in slide.blocks[1].html


def test_a_reference_keeps_all_its_words_and_lines_break_between_words(tmp_path):
    (slide,) = slides(
        cell(new_markdown_cell, "## References\n\n- H. Liu, K. Simonyan. Y. Yang. *DARTS*. 2019.", "slide"),
        tmp_path=tmp_path,
    )
    assert "2019" in slide.blocks[0].html
    assert decks._cut("word " * 30)[0].endswith("word")
    for line in ("x" * 300, " " * 70 + "word " * 30):
        assert all(len(part) <= decks.LINE for part in decks._cut(line))


def test_hints_answers_and_code_stay_off_and_tagged_code_is_on(tmp_path):
    made = slides(
        cell(new_markdown_cell, "# T\n\nDo it.\n\n<details><summary>Hint</summary>secret</details>", "slide"),
        cell(new_code_cell, "hidden = 1"),
        cell(new_code_cell, "shown = 1", tags=["code-on-slide"]),
        cell(new_code_cell, "answer = 1", tags=["code-on-slide", "solution"]),
        cell(new_markdown_cell, "Say this.", tags=["notes"]),
        tmp_path=tmp_path,
    )
    pages = "".join(map(decks.section, made))
    assert "shown = 1" in pages and "Say this." in pages.split("<aside", 1)[1]
    for word in ("secret", "hidden", "answer"):
        assert word not in pages


def test_a_figure_is_a_file_with_its_words_and_shares_a_slide_with_few_of_them(tmp_path):
    shown = new_output("display_data", {"image/png": PNG, "text/plain": 'Two "lines"'})
    short = cell(new_markdown_cell, "## F\n\nLook.", "slide")
    long = cell(new_markdown_cell, "## F\n\n" + "\n".join(f"- point {i}" for i in range(8)), "slide")
    code = cell(new_code_cell, "draw()", outputs=[shown])
    assert len(slides(short, code, tmp_path=tmp_path)) == 1
    made = slides(long, code, tmp_path=tmp_path)
    assert len(made) == 2 and made[1].title == "F"
    page = decks.section(made[1])
    name = re.search(r"src='figures/([^']+)' alt='Two &quot;lines&quot;'", page)[1]
    assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("letters", "joined"), [(20, True), (14.4, False)])
def test_words_stay_with_a_figure_only_where_its_letters_can_be_read(letters, joined, tmp_path):
    size = {"image/png": {"width": 880, "height": 400, "letters": letters}}
    shown = new_output("display_data", {"image/png": PNG, "text/plain": "A picture"}, metadata=size)
    words = cell(new_markdown_cell, "## F\n\nLook.", "slide")
    more = cell(new_markdown_cell, "It falls.", "subslide")
    made = slides(words, cell(new_code_cell, "draw()", outputs=[shown]), tmp_path=tmp_path)
    assert len(made) == (1 if joined else 2)
    assert f"width='880' height='400' data-letters='{letters}'" in decks.section(made[-1])
    head = cell(new_markdown_cell, "## F", "slide")
    made = slides(head, cell(new_code_cell, "draw()", outputs=[shown]), more, tmp_path=tmp_path)
    assert len(made) == (1 if joined else 2)


def test_an_explorer_of_two_pictures_has_a_slide_for_each(tmp_path):
    about = 'width="880" height="400" data-letters="20.0" style="display: block; height: auto">'
    page = f"<div class='nasedu-flip'><img src='a' {about}<img src='b' {about}<script></script></div>"
    shown = new_output("display_data", {"text/html": page, "text/plain": "Two pictures"})
    made = slides(cell(new_code_cell, "explore()", outputs=[shown]), tmp_path=tmp_path)
    seen = [re.findall(r"<img src='(.)'[^>]*display: block", decks.section(one)) for one in made]
    assert seen == [["a"], ["b"]]
    assert [one.blocks[0].least for one in made] == [decks.BAR + 400] * 2


def test_long_code_and_long_lists_go_on_on_further_slides_and_none_is_overfull(tmp_path):
    code = "\n".join(f"line_{i} = {'x' * 100}" for i in range(30))
    made = slides(
        cell(new_markdown_cell, "# T\n\n" + "\n".join(f"- point number {i}" for i in range(40)), "slide"),
        cell(new_code_cell, code, tags=["code-on-slide"]),
        tmp_path=tmp_path,
    )
    assert made[0].height <= decks.FULL and all(slide.height <= decks.ROOM for slide in made[1:])
    pages = "".join(map(decks.section, made))
    assert all(f"point number {i}<" in pages for i in range(40)) and all(
        f"line_{i} =" in pages for i in range(30)
    )
    shown = re.findall(r"(?s)<pre class='code'>(.*?)</pre>", pages)
    assert max(len(line) for part in shown for line in part.splitlines()) <= decks.LINE


def test_formulas_after_the_first_wait_for_a_click(tmp_path):
    (slide,) = slides(cell(new_markdown_cell, "# T\n\n$$a = 1$$\n\n$$b = 2$$", "slide"), tmp_path=tmp_path)
    page = decks.section(slide)
    assert re.findall(r"class='formula( fragment)?'", page) == ["", " fragment"] and "\\[a = 1\\]" in page


def test_decks_of_the_course_ask_no_other_host_and_every_slide_fits_by_estimate(tmp_path):
    path = ROOT / "notebooks" / "04_the_mixed_edge.ipynb"
    counts = decks.build(tmp_path, [path])
    page = (tmp_path / "04_the_mixed_edge.html").read_text(encoding="utf-8")
    assert counts["04_the_mixed_edge"] == page.count("<section") > 20
    assert not re.findall(r"(?:src|href)=[\"']https?://[^\"']+\.(?:js|css)", page)
    for asset in re.findall(r"(?:src|href)=[\"']((?:assets|figures)/[^\"']+)", page):
        assert (tmp_path / asset).is_file(), asset
    made = decks.slides_of(nbformat.read(path, as_version=4), path.stem, tmp_path)
    assert made[0].height <= decks.FULL
    assert all(slide.height <= decks.ROOM or slide.title == "References" for slide in made[1:])
