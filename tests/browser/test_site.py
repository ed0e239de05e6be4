"""The site, as files: everything lies in it. And as a reader sees it, in a real browser, from a folder."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from conftest import ALL, COUNTS, ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
FEW = [
    "index.html",
    "search.html",
    "map.html",
    "builder.html",
    "04_the_mixed_edge.html",
    "solutions/04_the_mixed_edge.html",
]


class Elements(HTMLParser):
    """All elements of a page with their attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="session")
def pages(site):
    return {str(path.relative_to(site)): Elements(path) for path in sorted(site.rglob("*.html"))}


# ---- as files


def test_there_is_a_page_for_every_notebook(pages):
    for path in NOTEBOOKS:
        assert str(path.relative_to(ROOT / "notebooks").with_suffix(".html")) in pages
    assert {"index.html", "glossary.html", "search.html", "reference/index.html"} <= pages.keys()


def test_the_build_has_nothing_to_complain_about(site):
    assert site.with_name("messages").read_text(encoding="utf-8") == ""


def test_a_page_loads_only_files_of_the_site(pages, site):
    for name, page in pages.items():
        loaded = [
            one["src"] for tag in ("script", "img", "iframe") for one in page.all(tag) if one.get("src")
        ]
        loaded += [one["href"] for one in page.all("link") if one.get("rel") in {"stylesheet", "icon"}]
        for address in loaded:
            parts = urlsplit(address)
            assert parts.scheme in {"", "data"} and not parts.netloc, f"{name} loads {address}"
            if not parts.scheme:
                assert (site / name).parent.joinpath(unquote(parts.path)).exists(), f"{name} lacks {address}"


def test_links_between_pages_lead_somewhere(pages, site):
    for name, page in pages.items():
        for one in page.all("a"):
            parts = urlsplit(one.get("href") or "#")
            if parts.scheme or parts.netloc:
                continue
            assert not parts.path.endswith(".ipynb"), (
                f"{name} links to the notebook {parts.path}, not to its page"
            )
            target = (site / name).parent.joinpath(unquote(parts.path)) if parts.path else site / name
            assert target.exists(), f"{name} links to {parts.path}, which is not there"


def test_every_picture_says_what_it_shows(pages):
    pictures = [(name, one) for name, page in pages.items() for one in page.all("img")]
    assert len(pictures) > 100
    for name, one in pictures:
        assert len((one.get("alt") or "").split()) >= 3, f"{name}: {one.get('src', '')[:60]} has no words"


def test_pages_fit_a_phone_and_have_a_main_part(pages):
    for name, page in pages.items():
        named = [one["content"] for one in page.all("meta") if one.get("name") == "viewport"]
        assert named and "width=device-width" in named[0], name
        assert page.all("main") or page.all("article"), f"{name} has no main part"


def test_solutions_are_folded_away(site):
    text = (site / "solutions" / "04_the_mixed_edge.html").read_text(encoding="utf-8")
    before = text.split(">my_padding</span>", 1)[0]
    assert before != text
    folded = before.rfind("<details")
    assert folded > before.rfind("</details"), "the answer stands open on the page"


def test_a_table_of_names_in_a_docstring_is_a_list_and_an_indented_block_stays_one(site):
    text = (site / "reference" / "nasedu.search.html").read_text(encoding="utf-8")
    controller = text.split("Writes cells token by token", 1)[1].split("Write n architectures", 1)[0]
    assert re.search(r"<li><p><code[^>]*><span[^>]*>start_bias</span></code>\s+10: where", controller)
    assert "<pre>" not in controller


# ---- in a browser


@pytest.mark.parametrize("width", [390, 1280])
def test_pages_in_a_browser(chromium, site, pages, width):
    """No error, nobody else asked, formulas drawn, no sideways scroll, nothing that axe calls serious."""
    import eyes

    said = []
    for name in pages if ALL else FEW:
        page = chromium.new_page(viewport={"width": width, "height": 800})
        seen = eyes.watch(page)
        page.goto((site / name).as_uri())
        unset = eyes.unset_formulas(page)
        wide = eyes.too_wide(page)
        errors = [*seen.errors]
        # What axe finds does not depend on the width, except the buttons of a phone's menus.
        found = eyes.axe(page) if width == 390 or not ALL else []
        COUNTS["formulas on pages"] += page.locator("mjx-container").count()
        page.close()
        COUNTS[f"pages at {width} px"] += 1
        COUNTS["pages' axe findings, serious or critical"] += len(found)
        COUNTS["pages that scroll sideways"] += wide > 0
        COUNTS["formulas not drawn"] += unset
        COUNTS["console errors"] += len(errors)
        COUNTS["external requests"] += len(seen.elsewhere)
        said += [f"{name}: {unset} formulas are not drawn"] * bool(unset)
        said += [f"{name}: {wide} px wider than its window of {width}"] * (wide > 0)
        said += [f"{name}: {what}" for what in [*errors, *seen.elsewhere, *found]]
    assert not said, "\n".join(said)


def test_search_finds_a_word_of_a_notebook(chromium, site):
    import eyes

    page = chromium.new_page()
    seen = eyes.watch(page)
    page.goto((site / "search.html").as_uri() + "?q=dilated")
    page.wait_for_selector("#search-results li a")
    assert any(
        "mixed_edge" in one.get_attribute("href") for one in page.query_selector_all("#search-results a")
    )
    assert not seen.errors and not seen.elsewhere
    page.close()


def test_light_and_dark(chromium, site):
    import eyes

    page = chromium.new_page(color_scheme="dark")
    page.goto((site / "04_the_mixed_edge.html").as_uri())
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 20, 22)"
    assert eyes.axe(page) == []
    page.click(".theme-toggle >> visible=true")
    assert page.evaluate("document.body.dataset.theme") == "light"
    page.close()


# ---- explorers


def test_the_map_says_what_the_table_says(chromium, site):
    import eyes

    from nasedu.space import small
    from nasedu.study import truth

    mean = 100 * truth.load().mean("test_accuracy")
    best = int(mean.argmax())
    page = chromium.new_page(viewport=eyes.PHONE)
    page.goto((site / "map.html").as_uri())
    squares = page.query_selector_all(".map-grid button")
    assert len(squares) == 125
    names = small.architectures()
    said = dict(one.get_attribute("aria-label").split(": ") for one in squares)
    assert set(said) == {", ".join(one) for one in names}
    for one, value in zip(names, mean.tolist(), strict=True):
        assert abs(float(said[", ".join(one)].split(" %")[0]) - value) < 0.051
    assert said[", ".join(names[best])].endswith("rank 1")
    assert f"{', '.join(names[best])}: {mean[best]:.1f} %" in page.inner_text("#map-facts")
    squares[0].click()
    assert "none, none, none" in page.inner_text("#map-facts")
    page.keyboard.press("ArrowDown")
    assert "skip_connect, none, none" in page.inner_text("#map-facts")
    page.close()


def test_a_search_walks_over_the_map(chromium, site):
    page = chromium.new_page()
    page.goto((site / "map.html").as_uri())
    page.click(".map-bar button")
    page.wait_for_function("Number(document.querySelector('.map-bar input').value) >= 2")
    assert page.inner_text(".map-bar button") == "Stop" and page.query_selector(".map-grid .here")
    page.close()


def test_the_builder_writes_the_python_of_its_matrix(chromium, site):
    from nasedu.space import PUBLISHED

    page = chromium.new_page()
    page.goto((site / "builder.html").as_uri())

    def matrix():
        return page.evaluate(
            "[...document.querySelectorAll('.builder-matrix tbody tr')]"
            ".map(row => [...row.querySelectorAll('button')].map(one => Number(one.textContent)))"
        )

    def run() -> dict:
        scope: dict = {}
        exec(page.inner_text("#builder pre"), scope)
        return scope

    assert run()["matrix"].int().tolist() == matrix() == PUBLISHED["DARTS_V2"].arch()["normal"].int().tolist()
    page.click("[aria-label='edge 0 to 2, max_pool_3x3']")
    assert run()["genotype"].normal[0] == (("max_pool_3x3", 0), ("sep_conv_3x3", 1))
    page.click("[aria-label='edge 0 to 2, max_pool_3x3']")
    assert "node 2 has 1" in page.inner_text("#builder [role=status]")
    page.locator(".builder-edge[data-row='0'] path").first.dispatch_event("click")
    assert "A cell" in page.inner_text("#builder [role=status]")
    page.close()


def test_play_moves_every_explorer_of_the_pages(chromium, site, pages):
    """Of every flip-book on every page; counted with its size, for the run's last lines."""
    from playwright.sync_api import expect

    with_books = [name for name in pages if "nasedu-flip" in (site / name).read_text(encoding="utf-8")]
    for name in with_books if ALL else with_books[:1]:
        page = chromium.new_page()
        page.goto((site / name).as_uri())
        books = page.locator(".nasedu-flip")
        for book in books.all():
            slider = book.get_by_role("slider").first
            assert slider.get_attribute("aria-label") and slider.get_attribute("aria-valuetext"), name
            slider.press("Home")
            picture = book.locator("img").last  # of several, one below the other, each moves
            first, words = picture.get_attribute("src"), picture.get_attribute("alt")
            book.get_by_role("button", name="Play").click()
            expect(picture).not_to_have_attribute("src", first, timeout=15_000)
            expect(picture).not_to_have_attribute("alt", words)
            size = len(book.inner_html()) // 1000
            assert size < 300, f"{name}: a flip-book of {size} kB"
            COUNTS["explorers without a kernel"] += 1
            COUNTS["explorers' kB together"] += size
            COUNTS["explorers' largest kB"] = max(size, COUNTS["explorers' largest kB"])
        COUNTS["pages with explorers"] += 1
        page.close()


def test_flipbooks_move_by_key_and_by_play(chromium, tmp_path):
    import eyes

    from nasedu.show.flipbook import flipbook
    from nasedu.show.sliders import xi_explorer

    path = tmp_path / "book.html"
    head = "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>book</title></head><body><main>"
    path.write_text(f"{head}<h1>book</h1>{flipbook(xi_explorer())}</main></body></html>", encoding="utf-8")
    page = chromium.new_page(viewport=eyes.PHONE)
    seen = eyes.watch(page)
    page.goto(path.as_uri())
    slider = page.get_by_role("slider", name="ξ")
    first = page.get_attribute("img", "alt"), page.get_attribute("img", "src")
    assert slider.get_attribute("aria-valuetext") == "0" and "ξ = 0:" in first[0]
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "0.05" and "ξ = 0.05" in page.get_attribute("img", "alt")
    assert page.get_attribute("img", "src") != first[1]
    slider.press("Home")
    assert (page.get_attribute("img", "alt"), page.get_attribute("img", "src")) == first
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('.nasedu-flip input').value >= 2")
    page.get_by_role("button", name="Stop").click()
    assert eyes.axe(page) == [] and eyes.too_wide(page) <= 0
    assert not seen.errors and not seen.elsewhere
    page.close()
