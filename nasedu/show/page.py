"""The page that `make run` writes: cells, matrices and curves of its searches, in one HTML file."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nasedu.files import whole
from nasedu.search.history import History
from nasedu.show.cells import draw_cell
from nasedu.show.histories import alpha_heatmap, learning_curves
from nasedu.show.pictures import img
from nasedu.space.genotype import Genotype

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
    page = (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>{_table(facts)}{''.join(sections)}</html>\n"
    )
    path = folder / "index.html"
    with whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
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
        figures.append(f"<figure>{img(plot)}</figure>")
    return (
        f"<h2>{html.escape(search.method)}</h2><p>{html.escape(search.explanation)}</p>"
        f"{_table(search.results)}{''.join(figures)}"
    )


def _table(rows: Mapping[str, str]) -> str:
    cells = (f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
    return f"<table>{''.join(cells)}</table>"
