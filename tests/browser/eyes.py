"""A browser that watches: a page's errors, whom it asks for what, how wide it is, what axe finds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Route, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
HOME = {"localhost", "127.0.0.1", ""}
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}


def program() -> str | None:
    """Path of the system's Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start the system's Chromium, without a window."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program(), args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


@dataclass
class Seen:
    """What happened on a page since it was opened."""

    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


def watch(page: Page) -> Seen:
    """Note the page's console errors, and refuse and note each request to another host."""
    seen = Seen()
    page.on("pageerror", lambda error: seen.errors.append(f"uncaught: {error}"))
    page.on("console", lambda said: seen.errors.append(said.text) if said.type == "error" else None)

    def judge(route: Route) -> None:
        address = urlsplit(route.request.url)
        if address.scheme in {"data", "blob"} or (address.hostname or "") in HOME:
            route.continue_()
        else:
            seen.elsewhere.append(route.request.url)
            route.abort()

    page.route("**/*", judge)
    return seen


def too_wide(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return page.evaluate("document.scrollingElement.scrollWidth - document.documentElement.clientWidth")


def axe(page: Page, without: tuple[str, ...] = ()) -> list[str]:
    """Let axe-core judge the page; return its serious and critical findings, a line an element."""
    source = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(source)
    options: dict[str, Any] = {"resultTypes": ["violations"], "preload": False}
    context = {"include": [["html"]], "exclude": [[name] for name in without]}
    found = page.evaluate("([context, options]) => axe.run(context, options)", [context, options])
    return [
        f"{rule['id']} ({rule['impact']}): {' '.join(map(str, node['target']))}"
        for rule in found["violations"]
        if rule["impact"] in {"serious", "critical"}
        for node in rule["nodes"]
    ]


def unset_formulas(page: Page) -> int:
    """Formulas that MathJax has not drawn, or drawn as an error; waits until it is done."""
    if not page.query_selector(".math"):
        return 0
    page.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
    page.evaluate("MathJax.startup.promise.then(() => true)")
    return page.evaluate(
        """() => [...document.querySelectorAll("span.math, div.math")]
            .filter(one => !one.querySelector("mjx-container")).length
            + document.querySelectorAll("mjx-merror").length"""
    )


# What is wrong with the slide that is shown, a line a fault, and how many pictures and formulas it has. Text
# is measured where it is drawn; of a formula only its own size counts, since indices are smaller by nature.
SLIDE = """() => {
  const scale = Reveal.getScale(), slide = Reveal.getCurrentSlide(), said = new Set();
  const name = (one) => {
    const node = one.nodeType === 3 ? one.parentElement : one;
    return `${node.tagName.toLowerCase()} "${(one.textContent || node.alt || "").trim().slice(0, 40)}"`;
  };
  const inside = (box, one, what) => {
    const over = [-box.left, -box.top, box.right - innerWidth, box.bottom - innerHeight].map(Math.round);
    const most = Math.max(...over);
    if (most > 1) said.add(`${what} reaches ${most} px beyond the slide: ${name(one)}`);
  };
  const hidden = (node) => !node.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const walker = document.createTreeWalker(slide, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  let pictures = 0, formulas = 0, texts = 0;
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const one = node.nodeType === 3 ? node.parentElement : node;
    if (one.closest("aside, script, style") || hidden(one)) continue;
    const formula = one.closest("mjx-container");
    if (formula && one !== formula) continue;
    if (node.nodeType === 3) {
      if (!node.data.trim()) continue;
      texts += 1;
      const range = document.createRange();
      range.selectNodeContents(node);
      for (const box of range.getClientRects()) inside(box, node, "text");
    }
    if (node.nodeType === 3 || formula) {
      const size = scale * parseFloat(getComputedStyle(one).fontSize);
      if (size < 19.95) said.add(`text of ${size.toFixed(1)} px: ${name(node)}`);
    }
    if (node.nodeType === 3) continue;
    if (formula) { formulas += 1; inside(one.getBoundingClientRect(), one, "a formula"); }
    if (one.tagName === "IMG") {
      const box = one.getBoundingClientRect();
      pictures += 1;
      if (!one.complete || !one.naturalWidth) said.add(`a picture that does not load: ${name(one)}`);
      const least = Math.round(Math.min(box.width, box.height));
      if (least < 100) said.add(`a picture of ${least} px: ${name(one)}`);
      const fits = getComputedStyle(one).objectFit === "contain"
        || Math.abs(box.width / box.height / (one.naturalWidth / one.naturalHeight) - 1) < 0.02;
      if (!fits) said.add(`a picture out of shape: ${name(one)}`);
    }
    if (!["inline", "contents"].includes(getComputedStyle(one).display)) {
      inside(one.getBoundingClientRect(), one, "an element");
      const wide = one.scrollWidth - one.clientWidth, tall = one.scrollHeight - one.clientHeight;
      if (getComputedStyle(one).overflow !== "visible" && Math.max(wide, tall) > 1)
        said.add(`cut by ${Math.max(wide, tall)} px: ${name(one)}`);
    }
  }
  const places = "h2, .body > *, .body > figure *:is(img, input, button)";
  const parts = [...slide.querySelectorAll(places)].filter((one) => !hidden(one));
  for (const a of parts) for (const b of parts) {
    if (a === b || a.contains(b) || b.contains(a)) continue;
    const p = a.getBoundingClientRect(), q = b.getBoundingClientRect();
    const x = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const y = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (x > 2 && y > 2 && a.compareDocumentPosition(b) & 4)
      said.add(`${name(a)} lies on ${name(b)} by ${Math.round(y)} px`);
  }
  return { said: [...said], pictures, formulas, texts };
}"""


def judge_slide(page: Page) -> dict[str, Any]:
    """Judge the slide that is shown: {"said": faults, "pictures": n, "formulas": n, "texts": n}."""
    return page.evaluate(SLIDE)
