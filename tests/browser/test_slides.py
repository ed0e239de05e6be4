"""Every slide of every deck, as a projector of 1280 x 720 pixels shows it: all is there, and can be read."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from conftest import ALL, COUNTS, ROOT

SCREEN = {"width": 1280, "height": 720}
FEW = ["05_cells_and_the_supernet", "08_the_enas_controller"]
NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if ALL or path.stem in FEW]


@pytest.fixture(scope="session")
def decks(tmp_path_factory):
    """Folder of the decks, built as `make slides` does."""
    pytest.importorskip("markdown_it", reason="no markdown-it: pip install --editable '.[slides]'")
    out = tmp_path_factory.mktemp("slides")
    command = [sys.executable, "tools/decks/slides.py", str(out)]
    command += [f"notebooks/{name}.ipynb" for name in NAMES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def opened(chromium, path):
    """A page with the deck, ready, and what it does."""
    import eyes

    page = chromium.new_page(viewport=SCREEN)
    seen = eyes.watch(page)
    page.goto(path.as_uri())
    page.wait_for_function("document.documentElement.dataset.fitted === 'yes'", timeout=60_000)
    return page, seen


LETTERS = """() => [...Reveal.getCurrentSlide().querySelectorAll("img")].filter(
    (one) => one.checkVisibility()).map((one) => {
    const box = one.getBoundingClientRect(), says = (name) => Number(one.getAttribute(name) || 0);
    const scale = Math.min(box.width / says("width"), box.height / says("height"));
    return [one.getAttribute("src").slice(0, 60), scale * says("data-letters")];
})"""
LEAST = 20  # pixels that a letter in a picture has on a slide, at least; indices are smaller by nature


def small_letters(page) -> list[str]:
    """The pictures of the slide that is shown whose smallest text is too small."""
    seen = page.evaluate(LETTERS)
    COUNTS["slides' pictures whose letters were measured"] += len(seen)
    return [f"letters of {least:.1f} px in {name}" for name, least in seen if not least >= LEAST - 0.05]


def faults(page) -> list[str]:
    """Turn all pages of the deck, each with all that waits for a click, and say what is wrong."""
    import eyes

    said = []
    for number in range(page.evaluate("Reveal.getTotalSlides()")):
        page.evaluate("number => Reveal.slide(number)", number)
        page.evaluate("() => { while (Reveal.nextFragment()); }")
        seen = eyes.judge_slide(page)
        said += [f"slide {number + 1}: {what}" for what in [*seen["said"], *small_letters(page)]]
        notes = page.evaluate("Reveal.getSlideNotes() || ''").strip()
        said += [f"slide {number + 1} has no notes"] * (not notes)
        COUNTS["slides"] += 1
        COUNTS["slides' pictures"] += seen["pictures"]
        COUNTS["slides' formulas"] += seen["formulas"]
        said += [f"slide {number + 1} is empty"] * (not seen["pictures"] and not seen["texts"])
    COUNTS["faults on slides (overflow, small text, cut code)"] += len(said)
    return said


@pytest.mark.parametrize("name", NAMES)
def test_every_slide_fits_and_can_be_read(chromium, decks, name):
    page, seen = opened(chromium, decks / f"{name}.html")
    said = faults(page)
    COUNTS["decks"] += 1
    COUNTS["external requests"] += len(seen.elsewhere)
    COUNTS["console errors"] += len(seen.errors)
    page.close()
    assert not [*said, *seen.errors, *seen.elsewhere], "\n".join([*said, *seen.errors, *seen.elsewhere])


@pytest.mark.parametrize("name", NAMES)
def test_play_moves_the_pictures_of_a_deck(chromium, decks, name):
    page, _ = opened(chromium, decks / f"{name}.html")
    for number in range(page.evaluate("document.querySelectorAll('.nasedu-flip').length")):
        page.evaluate(
            """number => {
                const book = document.querySelectorAll(".nasedu-flip")[number];
                const at = Reveal.getIndices(book.closest("section"));
                Reveal.slide(at.h, at.v);
            }""",
            number,
        )
        book = page.locator(".nasedu-flip").nth(number)
        first = book.locator("img:visible").get_attribute("src")
        slider = book.get_by_role("slider").first
        slider.press("End")
        slider.press("Home")
        book.get_by_role("button", name="Play").click()
        page.wait_for_function(
            """([number, first]) => {
                const book = document.querySelectorAll(".nasedu-flip")[number];
                const shown = [...book.querySelectorAll("img")].find((one) => one.checkVisibility());
                return shown.getAttribute("src") !== first;
            }""",
            arg=[number, first],
            timeout=15_000,
        )
        COUNTS["explorers played in decks"] += 1
    page.close()


def test_the_overview_shows_many_slides_and_a_click_opens_one(chromium, decks):
    page, _ = opened(chromium, decks / f"{NAMES[0]}.html")
    page.keyboard.press("o")
    page.wait_for_function("Reveal.isOverview()")
    seen = page.evaluate(
        """() => [...document.querySelectorAll(".slides > section")].filter((one) => {
            const box = one.getBoundingClientRect();
            return box.right > 0 && box.left < innerWidth && one.checkVisibility();
        }).length"""
    )
    assert seen >= 3
    page.keyboard.press("Escape")
    page.wait_for_function("!Reveal.isOverview()")
    page.close()


PRINTED = """() => [...document.querySelectorAll(".pdf-page")].map((sheet) => {
    const paper = sheet.getBoundingClientRect();
    const parts = [...sheet.querySelectorAll(".body *")].filter(
        (one) => !one.closest("mjx-assistive-mml, style, script") && one.getBoundingClientRect().width);
    const boxes = parts.map((one) => one.getBoundingClientRect());
    const side = boxes.map((box) => Math.min(box.left - paper.left, paper.right - box.right));
    return [Math.min(...side), Math.min(...boxes.map((box) => paper.bottom - box.bottom))];
})"""


@pytest.mark.parametrize("name", NAMES)
def test_a_printed_deck_has_a_sheet_for_each_slide_and_nothing_at_its_edge(chromium, decks, name):
    """`?print-pdf` behind the address: from each thing to the sheet's edge there is some room."""
    page = chromium.new_page(viewport=SCREEN)
    page.goto((decks / f"{name}.html").as_uri() + "?print-pdf")
    page.wait_for_function("document.documentElement.dataset.fitted === 'yes'", timeout=60_000)
    page.wait_for_selector(".pdf-page")
    room = page.evaluate(PRINTED)
    slides = (decks / f"{name}.html").read_text(encoding="utf-8").count("<section")
    page.close()
    assert len(room) == slides
    assert not [(i + 1, side, below) for i, (side, below) in enumerate(room) if side < 20 or below < 0]
    COUNTS["sheets printed"] += len(room)


# ---- the judge itself: what it is for, it finds


FAULTS = {
    "text of 12.0 px": "slide.querySelector('h2').style.fontSize = '12px'",
    "a picture that does not load": "slide.querySelector('figure img').src = 'figures/none.png'",
    "an element reaches": "slide.querySelector('img').style.cssText += 'height: 900px; max-height: none'",
    "text reaches": "slide.querySelector('.body').prepend('word '.repeat(900))",
    "cut by": "slide.querySelector('.body').innerHTML = '<pre style=\"overflow:hidden\">' + 'x'.repeat(200)",
}


def test_the_judge_finds_what_it_is_for(chromium, decks):
    import eyes

    page, _ = opened(chromium, decks / f"{NAMES[-1]}.html")
    page.evaluate(
        """() => {
            const at = Reveal.getIndices(document.querySelector("figure > img").closest("section"));
            Reveal.slide(at.h, at.v);
            window.sound = Reveal.getCurrentSlide().innerHTML;
        }"""
    )
    assert eyes.judge_slide(page)["said"] == []
    assert small_letters(page) == []
    page.evaluate("() => Reveal.getCurrentSlide().querySelector('img').dataset.letters /= 4")
    (small,) = small_letters(page)
    assert small.startswith("letters of ")
    page.evaluate("() => Reveal.getCurrentSlide().querySelector('img').removeAttribute('data-letters')")
    assert len(small_letters(page)) == 1  # one that says nothing is none that is legible
    page.evaluate("() => { Reveal.getCurrentSlide().innerHTML = sound; }")
    for found, break_it in FAULTS.items():
        page.evaluate(f"() => {{ const slide = Reveal.getCurrentSlide(); {break_it}; }}")
        page.wait_for_timeout(300)
        said = eyes.judge_slide(page)["said"]
        assert [what for what in said if what.startswith(found)], (found, said)
        page.evaluate("() => { Reveal.getCurrentSlide().innerHTML = sound; }")
        page.wait_for_timeout(300)
    page.close()
