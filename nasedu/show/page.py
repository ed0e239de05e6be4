"""The page that `make run` writes: what the searches found and whether it was worth it, in one HTML file."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nasedu.files import save_text
from nasedu.search.history import History
from nasedu.show.cells import draw_cell
from nasedu.show.histories import alpha_heatmap, learning_curves
from nasedu.show.pictures import img
from nasedu.space.genotype import Genotype
from nasedu.space.ops import PRIMITIVES

# A picture is drawn on white in both schemes; on a narrow screen it scrolls, so its letters stay legible.
STYLE = """
:root { color-scheme: light dark; --line: #0072B2; --soft: #555 }
@media (prefers-color-scheme: dark) { :root { --line: #56B4E9; --soft: #bbb } }
body { font: 18px/1.55 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.2em; border-top: 3px solid var(--line); padding-top: .6em }
figure { margin: 1.5em 0; overflow-x: auto }
figure svg, figure img { max-width: 100%; min-width: 560px; height: auto; background: white; border-radius: 6px }
figcaption { color: var(--soft); font-size: 16px } table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { padding: .3em 1em .3em 0; text-align: left; border-bottom: 1px solid #8888; vertical-align: top }
.verdict { border-left: 6px solid var(--line); padding-left: 1em }
"""  # noqa: E501


@dataclass(frozen=True)
class Search:
    """What a search left behind, as the page shows it; `arch` is the matrix as nested lists, a column for
    each of `ops`.
    """

    method: str
    explanation: str
    genotype: Genotype
    arch: Mapping[str, list[list[float]]]
    history: History
    results: Mapping[str, str]
    ops: Sequence[str] = PRIMITIVES


@dataclass(frozen=True)
class Judged:
    """A cell trained from scratch: the test accuracy of each training, and the interval of their mean."""

    name: str
    genotype: Genotype
    accuracies: tuple[float, ...]
    interval: tuple[float, ...]
    parameters: int

    @property
    def mean(self) -> float:
        """The mean accuracy, from 0 to 1."""
        return sum(self.accuracies) / len(self.accuracies)


def write(
    folder: Path,
    title: str,
    facts: Mapping[str, str],
    verdicts: Sequence[str],
    judged: Sequence[Judged],
    searches: Sequence[Search],
) -> Path:
    """Write each search's files into `folder`/<method>/ and the page index.html; return the page's path."""
    sections = [_section(folder / search.method.lower(), search) for search in searches]
    said = "".join(f"<p class='verdict'>{html.escape(line)}</p>" for line in verdicts)
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{html.escape(title)}</h1>{said}{_accuracies(judged)}{_table(facts)}"
        "<p>A search this small may give another cell with another seed. Notebooks 06 to 09 build both "
        "methods, 10 asks what a search is worth.</p>"
        f"{''.join(sections)}{_blind(judged)}</main></body></html>\n"
    )
    path = folder / "index.html"
    save_text(path, page)
    return path


def _accuracies(judged: Sequence[Judged]) -> str:
    """The cells' accuracies as a picture and as a table."""
    low = min(min(each.interval[0], *each.accuracies) for each in judged)
    high = max(max(each.interval[1], *each.accuracies) for each in judged)
    pad = max(0.01, 0.08 * (high - low))
    low, high = max(0.0, low - pad), min(1.0, high + pad)

    def x(value: float) -> float:
        return 150 + 520 * (value - low) / (high - low)

    rows = []
    for row, each in enumerate(judged):
        y, (left, right) = 45 + 50 * row, each.interval
        paint = "#777777" if each.name.startswith("blind") else "#0072B2"
        dots = "".join(f"<circle cx='{x(a):.1f}' cy='{y}' r='7' fill='{paint}'/>" for a in each.accuracies)
        rows.append(
            f"<text x='0' y='{y + 7}'>{html.escape(each.name)}</text>"
            f"<line x1='{x(left):.1f}' x2='{x(right):.1f}' y1='{y}' y2='{y}' stroke='{paint}' "
            f"stroke-width='12' opacity='.3'/>{dots}"
            f"<line x1='{x(each.mean):.1f}' x2='{x(each.mean):.1f}' y1='{y - 16}' y2='{y + 16}' "
            f"stroke='{paint}' stroke-width='4'/>"
        )
    bottom = 45 + 50 * len(judged)
    ends = "".join(
        f"<text x='{x(v):.1f}' y='{bottom + 16}' text-anchor='{anchor}'>{v:.0%}</text>"
        for v, anchor in ((low, "start"), (high, "end"))
    )
    words = "; ".join(f"{each.name} {each.mean:.1%}" for each in judged)
    chart = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 690 {bottom + 30}' width='690' role='img' "
        f"aria-label='Test accuracy: {html.escape(words, quote=True)}' font-size='20' "
        f"font-family='system-ui, sans-serif' fill='black'>{''.join(rows)}{ends}</svg>"
    )
    n = len(judged[0].accuracies)
    caption = (
        f"Test accuracy of each cell, trained from scratch (dots: {n} training{'s' if n > 1 else ''}; "
        "line: mean; bar: where other test images could put it, 95 %)."
    )
    lines = "".join(
        f"<tr><th>{html.escape(each.name)}</th><td>{each.mean:.1%}</td>"
        f"<td>{', '.join(f'{a:.1%}' for a in each.accuracies)}</td>"
        f"<td>{each.interval[0]:.1%} to {each.interval[1]:.1%}</td><td>{each.parameters:,}</td></tr>"
        for each in judged
    )
    head = "<tr><th>Cell</th><th>Accuracy</th><th>Trainings</th><th>95 %, images</th><th>Weights</th></tr>"
    return f"<figure>{chart}<figcaption>{caption}</figcaption></figure><table>{head}{lines}</table>"


def _cells(genotype: Genotype) -> str:
    figures = []
    for which in ("normal", "reduce"):
        cell = draw_cell(genotype, which)
        figures.append(f"<figure>{cell.svg}<figcaption>{html.escape(cell.words)}</figcaption></figure>")
    return "".join(figures)


def _blind(judged: Sequence[Judged]) -> str:
    """The cells that nobody searched for."""
    parts = [
        f"<h3>{html.escape(each.name)}: {each.mean:.1%}</h3>{_cells(each.genotype)}"
        for each in judged
        if each.name.startswith("blind")
    ]
    return f"<h2>Drawn blindly</h2><p>Cells of the same space, drawn without any search.</p>{''.join(parts)}"


def _section(folder: Path, search: Search) -> str:
    search.genotype.save(folder / "genotype.json")
    for which in ("normal", "reduce"):
        cell = draw_cell(search.genotype, which)
        cell.save(folder / f"{which}.svg")
        cell.save(folder / f"{which}.pdf")
    plots = {
        "alpha": alpha_heatmap(
            search.arch, ops=search.ops, title=f"{search.method}: the matrices after the search"
        ),
        "curves": learning_curves(search.history, title=f"{search.method}: learning curves"),
    }
    figures = []
    for name, plot in plots.items():
        plot.save(folder / f"{name}.png")
        plot.save(folder / f"{name}.svg")
        figures.append(f"<figure>{img(plot)}</figure>")
    return (
        f"<h2>{html.escape(search.method)}</h2><p>{html.escape(search.explanation)}</p>"
        f"{_table(search.results)}{_cells(search.genotype)}{''.join(figures)}"
    )


def _table(rows: Mapping[str, str]) -> str:
    cells = (f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
    return f"<table>{''.join(cells)}</table>"
