"""The page that `make run` writes: cells, matrices and curves of its searches, in one HTML file."""

import base64
import html
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nasedu.draw import draw_cell
from nasedu.figures import Picture
from nasedu.genotype import Genotype
from nasedu.history import History
from nasedu.plots import alpha_heatmap, learning_curves

STYLE = """
body { font: 18px/1.55 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.2em; border-top: 3px solid #0072B2; padding-top: .6em }
figure { margin: 1.5em 0 } figure svg, figure img { max-width: 100%; height: auto }
figcaption { color: #555; font-size: 16px } table { border-collapse: collapse }
td, th { padding: .3em 1em .3em 0; text-align: left; border-bottom: 1px solid #ccc }
"""


@dataclass(frozen=True)
class Search:
    """What a search left behind, as the page shows it; `arch` is the matrix as nested lists."""

    method: str
    explanation: str
    genotype: Genotype
    arch: Mapping[str, list[list[float]]]
    history: History
    results: Mapping[str, str]


def write(folder: Path, title: str, facts: Mapping[str, str], searches: list[Search]) -> Path:
    """Write each search's files into `folder`/<method>/ and the page index.html; return the page's path."""
    sections = [_section(folder / search.method.lower(), search) for search in searches]
    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    page = (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1><table>{rows}</table>{''.join(sections)}</html>\n"
    )
    path = folder / "index.html"
    temporary = path.with_name("index.html.part")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path


def _section(folder: Path, search: Search) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    search.genotype.save(folder / "genotype.json")
    search.history.save(folder / "history.json")
    figures = []
    for which in ("normal", "reduce"):
        cell = draw_cell(search.genotype, which)
        cell.save(folder / f"{which}.svg")
        cell.save(folder / f"{which}.pdf")
        figures.append(f"<figure>{cell.svg}<figcaption>{html.escape(cell.words)}</figcaption></figure>")
    plots = {
        "alpha": alpha_heatmap(search.arch, title=f"{search.method}: the matrices after the search"),
        "curves": learning_curves(search.history, title=f"{search.method}: learning curves"),
    }
    for name, plot in plots.items():
        plot.save(folder / f"{name}.png")
        plot.save(folder / f"{name}.svg")
        figures.append(_image(plot))
    results = "".join(
        f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in search.results.items()
    )
    return (
        f"<h2>{html.escape(search.method)}</h2><p>{html.escape(search.explanation)}</p>"
        f"<table>{results}</table>{''.join(figures)}"
    )


def _image(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    words = html.escape(picture.words, quote=True)
    return f"<figure><img alt='{words}' src='data:image/png;base64,{data}'></figure>"
