"""A drawing: boxes and arrows, placed by Graphviz, painted here.

Graphviz decides where things go: its program `dot` where that is on PATH, else the library inside the pip
package `pygraphviz`. Every box has a fixed size, so the places depend neither on fonts nor on which of the
two was asked. Painting is ours, as SVG text for a notebook and by matplotlib for PDF and PNG, so a drawing is
always the same bytes, on a machine without fonts too.
"""

import html
import json
import math
import os
import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import graphviz
import pygraphviz
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Outline

from nasedu.files import whole
from nasedu.show.pictures import SHARP, png_bundle, to_png

Point = tuple[float, float]

INK = "#222222"
FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
FONT_SIZE, TITLE_SIZE = 20, 24  # points; a box leaves room for the widest of the fonts above
MARGIN, TITLE_HEIGHT = 10, 34  # points
PAGE = 960  # pixels: the width of a notebook's page
FAINT = 0.3  # opacity


@dataclass(frozen=True)
class Box:
    """A rounded box with a line or two of text; sizes in points."""

    name: str
    text: str
    width: float
    height: float = 30.0
    fill: str = "#ffffff"
    line: str = INK
    faint: bool = False
    tip: str = ""
    group: str = ""  # boxes of one group stand side by side


@dataclass(frozen=True)
class Arrow:
    """A curve from one box to another; `width` in points."""

    source: str
    target: str
    color: str = INK
    width: float = 1.5
    head: bool = True
    faint: bool = False
    pull: int = 1  # how hard Graphviz tries to keep it short and straight
    ports: tuple[str, str] = ("_", "_")  # on which side of a box it starts and ends: n, e, s, w, or any


@dataclass(frozen=True)
class CellDrawing:
    """A drawing that Jupyter shows as SVG, that says itself in words, and that saves itself to a file."""

    title: str
    words: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    direction: str = "LR"  # or "TB", top to bottom
    gap: int = 26  # points between a box and the next in that direction
    order: tuple[str, ...] = ()  # boxes that follow one another in that direction

    @property
    def dot(self) -> str:
        """The drawing as Graphviz source text."""
        return self._graph(labels=True).source

    @cached_property
    def svg(self) -> str:
        """The drawing as SVG text, with its words as the description that a screen reader reads."""
        boxes, curves, (width, height) = self._layout
        title, words = _text(self.title), _text(self.words)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.size[0]}" height="{self.size[1]}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:100%;height:auto" role="img" '
            f'aria-label="{words}" font-family="{FONT}" font-size="{FONT_SIZE}" text-anchor="middle" '
            f'fill="{INK}">',
            f"<title>{title}</title>",
            f"<desc>{words}</desc>",
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
            f'<text x="{MARGIN}" y="{MARGIN + TITLE_SIZE}" font-size="{TITLE_SIZE}" font-weight="bold" '
            f'text-anchor="start">{title}</text>',
        ]
        for arrow, (curve, head) in zip(self.arrows, curves, strict=True):
            path = f"M{_xy(curve[0])}C{' '.join(map(_xy, curve[1:]))}"
            look = ' stroke-dasharray="6 5"' if arrow.faint else ""
            parts.append(
                f'<path d="{path}" fill="none" stroke="{arrow.color}" stroke-width="{arrow.width:.2f}"'
                f"{look}{_opacity(arrow.faint)}/>"
            )
            if head:
                points = " ".join(map(_xy, head))
                parts.append(f'<polygon points="{points}" fill="{arrow.color}"{_opacity(arrow.faint)}/>')
        for box, (x, y) in zip(self.boxes, boxes, strict=True):
            lines = box.text.split("\n")
            parts.append(
                f"<g>{f'<title>{_text(box.tip)}</title>' if box.tip else ''}"
                f'<rect x="{x - box.width / 2:.1f}" y="{y - box.height / 2:.1f}" width="{box.width:.1f}" '
                f'height="{box.height:.1f}" rx="{_radius(box):.1f}" fill="{box.fill}" stroke="{box.line}" '
                f'stroke-width="{1 if box.faint else 2}"{_opacity(box.faint)}/>'
            )
            for i, line in enumerate(lines):
                down = y + (0.35 + 1.2 * (i - (len(lines) - 1) / 2)) * FONT_SIZE
                color = ' fill="#666666"' if box.faint else ""
                said = _subscripts(_text(line))
                parts.append(f'<text x="{x:.1f}" y="{down:.1f}"{color}>{said}</text>')
            parts.append("</g>")
        return "\n".join([*parts, "</svg>\n"])

    @cached_property
    def png(self) -> bytes:
        """The drawing as PNG bytes, without date or version."""
        return to_png(self._figure(), SHARP * 96)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on a page, in pixels."""
        width, height = self._layout[2]
        # A page made by nbconvert shows an SVG as wide as it says, and cuts it off at the page's edge.
        scale = min(4 / 3, PAGE / width)
        return round(scale * width), round(scale * height)

    @property
    def letters(self) -> float:
        """Size of the text in boxes on a page, in pixels."""
        return FONT_SIZE * self.size[0] / self._layout[2][0]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the drawing to `path`, whole or not at all; it must end in .svg, .pdf, .png or .dot."""
        path = Path(path)
        if path.suffix not in (".svg", ".pdf", ".png", ".dot"):
            raise ValueError(
                f"can't save a drawing as {path.name!r}; end the name in .svg, .pdf, .png or .dot"
            )
        with whole(path) as temporary:
            if path.suffix == ".png":
                temporary.write_bytes(self.png)
            elif path.suffix == ".pdf":
                nothing = {"CreationDate": None, "Producer": None, "Creator": None}
                self._figure().savefig(temporary, format="pdf", metadata={**nothing, "Title": self.title})
            else:
                temporary.write_text(self.svg if path.suffix == ".svg" else self.dot, encoding="utf-8")
        return path

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict, dict]:
        # JupyterLab shows no SVG of a notebook that it does not trust yet, as one just downloaded.
        data, metadata = png_bundle(self)
        return {"image/svg+xml": self.svg, **data}, metadata

    def __repr__(self) -> str:
        return self.words

    def _graph(self, labels: bool) -> graphviz.Digraph:
        """The source for Graphviz: with labels and colours to be read by others, or bare, to be laid out."""
        graph = graphviz.Digraph(
            graph_attr={
                "rankdir": self.direction,
                "nodesep": f"{14 / 72:.5f}",
                "ranksep": f"{self.gap / 72:.5f}",
            },
            node_attr={"shape": "box", "fixedsize": "true", "label": ""},
            edge_attr={"dir": "none"},
        )
        if labels:
            graph.attr(
                label=graphviz.escape(self.title),
                labelloc="t",
                fontname="Helvetica",
                fontsize=f"{TITLE_SIZE}",
            )
            graph.attr("node", style="rounded,filled", fontname="Helvetica", fontsize=f"{FONT_SIZE}")
            graph.attr("edge", dir="forward")
        for box in self.boxes:
            look = {
                "label": graphviz.escape(box.text).replace("\n", "\\n"),
                "fillcolor": box.fill,
                "color": box.line,
            }
            size = {"width": f"{box.width / 72:.5f}", "height": f"{box.height / 72:.5f}"}
            graph.node(box.name, **size, **(look if labels else {}))
        for group in sorted({box.group for box in self.boxes} - {""}):
            names = [box.name for box in self.boxes if box.group == group]
            with graph.subgraph() as rank:
                rank.attr(rank="same")
                for before, after in pairwise(names):
                    rank.edge(before, after, style="invis", id="order")
        for before, after in pairwise(self.order):
            graph.edge(before, after, style="invis", id="order", weight="0")
        for i, arrow in enumerate(self.arrows):
            tail, head = arrow.ports
            look = {
                "color": arrow.color,
                "penwidth": f"{arrow.width:.2f}",
                "style": "dashed" if arrow.faint else "solid",
                "dir": "forward" if arrow.head else "none",
            }
            shape = {"weight": str(arrow.pull), "tailport": tail, "headport": head}
            graph.edge(arrow.source, arrow.target, id=str(i), **shape, **(look if labels else {}))
        return graph

    @cached_property
    def _layout(self) -> tuple[list[Point], list[tuple[list[Point], list[Point]]], Point]:
        """Centres of boxes, (curve, head) of arrows, size of it all: in points, from the top left corner."""
        data = _place(self._graph(labels=False).source)
        _, _, width, height = map(float, data["bb"].split(","))

        def down(text: str) -> Point:
            x, y = map(float, text.split(","))
            return x + MARGIN, height - y + MARGIN + TITLE_HEIGHT

        centres = {item["name"]: down(item["pos"]) for item in data["objects"] if "pos" in item}
        splines = {edge["id"]: [down(p) for p in edge["pos"].split()] for edge in data["edges"]}
        curves = [_with_head(splines[str(i)], arrow) for i, arrow in enumerate(self.arrows)]
        width = max(width, 0.62 * TITLE_SIZE * len(self.title))
        size = (math.ceil(width + 2 * MARGIN), math.ceil(height + 2 * MARGIN + TITLE_HEIGHT))
        return [centres[box.name] for box in self.boxes], curves, size

    def _figure(self) -> Figure:
        boxes, curves, (width, height) = self._layout
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        axes.text(MARGIN, MARGIN + TITLE_SIZE, self.title, size=0.9 * TITLE_SIZE, weight="bold", color=INK)
        for arrow, (curve, head) in zip(self.arrows, curves, strict=True):
            look: dict[str, Any] = {"alpha": FAINT if arrow.faint else 1.0}
            line = Outline(curve, [Outline.MOVETO] + [Outline.CURVE4] * (len(curve) - 1))
            dash = (0, (6 / arrow.width, 5 / arrow.width)) if arrow.faint else "solid"
            axes.add_patch(
                PathPatch(line, fill=False, ec=arrow.color, lw=arrow.width, ls=dash, capstyle="butt", **look)
            )
            if head:
                axes.add_patch(Polygon(head, fc=arrow.color, lw=0, **look))
        for box, (x, y) in zip(self.boxes, boxes, strict=True):
            corner = (x - box.width / 2, y - box.height / 2)
            style = f"round,pad=0,rounding_size={_radius(box)}"
            look = {"alpha": FAINT if box.faint else 1.0, "lw": 1 if box.faint else 2}
            axes.add_patch(
                FancyBboxPatch(corner, box.width, box.height, style, fc=box.fill, ec=box.line, **look)
            )
            color = "#666666" if box.faint else INK
            axes.text(
                x,
                y,
                _mathtext(box.text),
                size=0.88 * FONT_SIZE,
                ha="center",
                va="center_baseline",
                color=color,
            )
        return figure


def _place(source: str) -> dict[str, Any]:
    """Have Graphviz lay out `source`; nothing is run where there is no `dot`."""
    if program := shutil.which("dot"):
        try:
            return json.loads(graphviz.Source(source).pipe(format="json0", engine="dot"))
        except graphviz.CalledProcessError as error:
            raise RuntimeError(
                f"{program} can't lay out a graph: {error.stderr.decode(errors='replace').strip() or error}; "
                "repair Graphviz, or take it off PATH to use the one inside pygraphviz"
            ) from error
    return json.loads(pygraphviz.AGraph(string=source).draw(format="json0", prog="dot"))


def _with_head(spline: list[Point], arrow: Arrow) -> tuple[list[Point], list[Point]]:
    """Cut the end off a spline and put a triangle in its place."""
    if not arrow.head:
        return spline, []
    (x0, y0), (x1, y1) = spline[-2:]
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    long, half = 7 + arrow.width, 4 + 0.8 * arrow.width
    base = (x1 - long * dx, y1 - long * dy)
    head = [(x1, y1), (base[0] - half * dy, base[1] + half * dx), (base[0] + half * dy, base[1] - half * dx)]
    # The line reaches a little into the triangle, so that no gap shows between the two.
    end = (x1 - (long - 1) * dx, y1 - (long - 1) * dy)
    return [*spline[:-2], (end[0] - x1 + x0, end[1] - y1 + y0), end], head


def text_size(text: str) -> Point:
    """Width and height in points, even numbers, that a box needs for `text` in the widest of our fonts."""
    lines = text.split("\n")
    return 2 * round(0.31 * FONT_SIZE * max(map(len, lines)) + 8), 2 * round(0.6 * FONT_SIZE * len(lines) + 4)


def _text(text: str) -> str:
    """Escaped for SVG, which has no control characters at all."""
    return html.escape(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", text))


def _subscripts(text: str) -> str:
    """c_{k-2} for SVG: a smaller k-2, lower."""
    return re.sub(r"_\{(.*?)\}", rf'<tspan dy="4" font-size="{0.8 * FONT_SIZE:.0f}">\1</tspan>', text)


def _mathtext(text: str) -> str:
    # In mathtext a bare minus stands apart, as an operator does.
    return rf"$\mathregular{{{text.replace('-', '{-}')}}}$" if "_{" in text else text


def _radius(box: Box) -> float:
    return min(box.height / 2, 12)


def _opacity(faint: bool) -> str:
    return f' opacity="{FAINT}"' if faint else ""


def _xy(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"
