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
