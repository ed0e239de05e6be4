"""Pictures of the ideas that the course is built from, for notebooks 02 to 05.

    mixed_edge_picture(weights)       an edge: eight operations, each weighed, added up
    build_up(3)                       edge, node, cell, network: each made of the one before
    two_roads()                       the chain rule: from alpha to the validation loss, directly and by w*
    bilevel_loop(2, order=2)          which weights move on which images, as a time line
    children_of(archs, ops)           one network, stepping through its children

Each is a `Drawing`: on a page an SVG, with its words for those who can't see it.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from nasedu.show.cells import op_color, tint
from nasedu.show.graphs import PAGE
from nasedu.show.pictures import OKABE_ITO, Numbers, Picture, array, figure, finish, png_bundle, styled
from nasedu.space.choice import ArchError
from nasedu.space.genotype import edges
from nasedu.space.ops import PRIMITIVES

BLUE, RED, INK, GREY, PALE = OKABE_ITO[0], OKABE_ITO[1], "#222222", "#777777", "#d0d0d0"

Point = tuple[float, float]


class Drawing(Picture):
    """A `Picture` of lines and letters only: a notebook shows it as SVG, sharp at any size."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on a page, in pixels: no wider than the page, which would cut it off."""
        width, height = super().size
        scale = min(1.0, PAGE / width)
        return round(scale * width), round(scale * height)

    @cached_property
    def svg(self) -> str:
        """The drawing as SVG text without date or version, its words as the description."""
        file = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        with matplotlib.rc_context({"svg.hashsalt": "nasedu"}):
            self.figure.savefig(file, format="svg", metadata=nothing)
        words, (width, height) = html.escape(self.words), self.size
        opening = (
            f'<svg style="max-width:100%;height:auto" role="img" aria-label="{words}" '
            f'width="{width}" height="{height}" '
        )
        text = re.sub(
            r'<svg (?:xmlns:xlink="\S+" )?width="\S+" height="\S+" ', opening, file.getvalue(), count=1
        )
        text = text.replace('xmlns="http', 'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http', 1)
        return text[text.index("<svg") :].replace(">", f"><desc>{words}</desc>", 1)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict, dict]:
        data, metadata = png_bundle(self)
        return {"image/svg+xml": self.svg, **data}, metadata


def drawing(made: matplotlib.figure.Figure, words: str) -> Drawing:
    """The figure and its words as a `Drawing`, laid out as `finish` lays out every figure."""
    return Drawing(finish(made, words).figure, words)


# ---- strokes


def _canvas(size: Point, xlim: Point, ylim: Point, title: str) -> tuple[matplotlib.figure.Figure, Axes]:
    made, axes = figure(size=size)
    axes.set(xlim=xlim, ylim=ylim, aspect="equal")
    axes.axis("off")
    axes.set_title(title, loc="left", weight="bold")
    return made, axes


def _box(
    axes: Axes, at: Point, text: str, color: str = INK, size: Point = (1.0, 0.5), letters: int = 15
) -> None:
    (x, y), (wide, high) = at, size
    shape = FancyBboxPatch((x - wide / 2, y - high / 2), wide, high, "round,pad=0,rounding_size=0.08")
    shape.set(fc=tint(color) if color != INK else "white", ec=color, lw=2, zorder=3)
    axes.add_patch(shape)
    axes.text(
        x,
        y,
        text,
        ha="center",
        va="center_baseline" if "\n" not in text else "center",
        size=letters,
        zorder=4,
    )


def _dot(axes: Axes, at: Point, text: str, color: str = INK, radius: float = 0.22, letters: int = 16) -> None:
    axes.add_patch(Circle(at, radius, fc="white", ec=color, lw=2.5, zorder=3))
    axes.text(*at, text, ha="center", va="center_baseline", size=letters, zorder=4)


def _arrow(
    axes: Axes, a: Point, b: Point, color: str = INK, width: float = 2.0, bow: float = 0.0, gap: float = 0.0,
    head: bool = True, **look: Any,
) -> None:  # fmt: skip
    style = {"arrowstyle": "-|>" if head else "-", "mutation_scale": 11 + 2 * width, "capstyle": "butt"}
    style |= {"shrinkA": gap, "shrinkB": gap, "color": color, "lw": width, "zorder": 2}
    axes.add_patch(FancyArrowPatch(a, b, connectionstyle=f"arc3,rad={bow}", **style | look))


def _bundle(
    axes: Axes, a: Point, b: Point, bow: float = 0.0, width: float = 1.2, spread: float = 0.3
) -> None:
    """An undecided edge: one thin line for each operation, side by side, in the operations' colours."""
    for i, name in enumerate(PRIMITIVES):
        _arrow(axes, a, b, op_color(name), width, bow + spread * (i / 7 - 0.5), gap=12, head=False)


# ---- the mixed edge


@styled()
def mixed_edge_picture(
    weights: Numbers | None = None,
    ops: Sequence[str] = PRIMITIVES,
    title: str = "A mixed edge: every operation runs, the row says how much of each",
) -> Drawing:
    """Draw a mixed edge: x goes through all of `ops`, each output times its weight, and they are added.

    `weights` is one row of the matrix, (len(ops),), not negative; None: equal shares. Lines are as wide as
    their weights. DARTS, arXiv:1806.09055, equation 2. Raises ArchError for a row that does not fit `ops`.
    """
    row = array([1 / len(ops)] * len(ops) if weights is None else weights)
    if row.shape != (len(ops),) or not (row >= 0).all():
        raise ArchError(f"wanted {len(ops)} weights from 0 up, one for each of {', '.join(ops)}; got {row}")
    high = 0.62 * (len(ops) - 1)
    made, axes = _canvas((12, 1.4 + 0.62 * len(ops)), (-0.5, 10.5), (-0.5, high + 0.5), title)
    _box(axes, (0.2, high / 2), "x", size=(0.7, 0.7), letters=20)
    _dot(axes, (8.2, high / 2), "+", radius=0.33, letters=24)
    _box(axes, (9.85, high / 2), "mixture\nof x", size=(1.2, 0.9))
    _arrow(axes, (8.55, high / 2), (9.25, high / 2), width=3)
    for i, (name, weight) in enumerate(zip(ops, row.tolist(), strict=True)):
        y, color = high - 0.62 * i, op_color(name)
        _arrow(axes, (0.55, high / 2), (2.2, y), GREY, 1.2)
        _box(axes, (3.2, y), name, color, (2.0, 0.46))
        _arrow(axes, (4.2, y), (5.2, y), color, 2, head=False)
        axes.text(5.72, y, f"× {weight:.2f}", ha="center", va="center_baseline", size=16)
        _arrow(axes, (6.25, y), (7.87, high / 2), color, max(0.6, 14 * weight), head=False)
    said = ", ".join(f"{weight:.2f} × {name}(x)" for name, weight in zip(ops, row.tolist(), strict=True))
    return drawing(
        made, f"{title}. x goes through {len(ops)} operations side by side. Their sum is the mixture: {said}."
    )


# ---- edge, node, cell, network

STEPS = ("An edge: eight operations", "A node adds its edges", "A cell: four nodes",
         "A network: a stack of cells")  # fmt: skip


@styled()
def build_up(steps: int = 4, title: str = "From an edge to a network") -> Drawing:
    """Draw how a supernet is built, the first `steps` of four: edge, node, cell, network.

    An undecided edge is a bundle of eight thin lines, one for each operation, in its colour. Each panel has
    the thing of the panel before it as its part. DARTS, arXiv:1806.09055, sections 2.1 and 3.1. Raises
    ValueError unless 1 <= steps <= 4.
    """
    if not 1 <= steps <= 4:
        raise ValueError(f"wanted 1, 2, 3 or 4 steps (edge, node, cell, network), got {steps}")
    made, grid = figure(2, 2, size=(11, 6))
    made.suptitle(title)
    for number, (axes, draw) in enumerate(zip(grid.flat, (_edge, _node, _cell, _network), strict=True)):
        axes.axis("off")
        axes.set(xlim=(-0.6, 6.4), ylim=(-1.9, 1.9), aspect="equal")
        if number < steps:
            axes.set_title(f"{number + 1} · {STEPS[number]}", loc="left", size=15)
            draw(axes)
    said = (
        "An edge leads from state i to node j as a bundle of eight lines, one for each operation.",
        "Node 3 adds three such edges, from the states 0, 1 and 2.",
        "A cell has the inputs 0 and 1 and the nodes 2 to 5 in a row. Every node has an edge from every "
        "state before it, 14 in all, and the output is the four nodes side by side.",
        "A network is a stem, cells in a row, each fed by the two before it, two of them reduction cells, "
        "and a classifier.",
    )[:steps]
    numbered = " ".join(f"{i}. {words}" for i, words in enumerate(said, start=1))
    return drawing(made, f"{title}, {steps} of 4 steps. {numbered}")


def _edge(axes: Axes) -> None:
    for i, name in enumerate(PRIMITIVES):
        y = 1.6 - 0.47 * i
        _arrow(axes, (0.2, 0), (1.4, y), op_color(name), 1.6, head=False)
        _arrow(axes, (4.4, y), (5.6, 0), op_color(name), 1.6, head=False)
        axes.text(2.9, y, name, ha="center", va="center_baseline", size=17)
    _dot(axes, (0, 0), "i", radius=0.3)
    _dot(axes, (5.8, 0), "j", radius=0.3)


def _node(axes: Axes) -> None:
    for state, y in ((0, 1.2), (1, 0.0), (2, -1.2)):
        _bundle(axes, (0.6, y), (4.6, 0), width=1.8)
        _dot(axes, (0.6, y), str(state), BLUE if state < 2 else INK, 0.3)
    _dot(axes, (4.6, 0), "3", radius=0.34)
    axes.text(5.1, 0, "= sum", va="center_baseline", size=15)


def _cell(axes: Axes) -> None:
    at = {0: (0.0, 0.75), 1: (0.0, -0.75), 2: (1.4, 0.0), 3: (2.5, 0.0), 4: (3.6, 0.0), 5: (4.7, 0.0)}
    for source, node in edges(4):
        far = node - source
        side = -1 if source == 0 or (source > 1 and far % 2 == 0) else 1
        bow = {0: -0.3, 1: 0.3}.get(source, 0.0 if far == 1 else 0.45 * side)
        _bundle(axes, at[source], at[node], bow if node > 2 or source > 1 else 0.0, 0.8, 0.12)
    for state, place in at.items():
        _dot(axes, place, str(state), BLUE if state < 2 else INK, 0.24)
    for node in (2, 3, 4, 5):
        x = at[node][0]
        axes.plot([x, x], [-0.24, -1.5], color=PALE, lw=2, zorder=1)
    axes.plot([1.4, 4.8], [-1.5, -1.5], color=PALE, lw=2, zorder=1)
    _box(axes, (5.5, -1.5), "output", size=(1.6, 0.6), letters=17)


def _network(axes: Axes) -> None:
    names = ["stem", *("cell" for _ in range(6)), "head"]
    xs = [0.0 + 0.83 * i for i in range(8)]
    for i, (name, x) in enumerate(zip(names, xs, strict=True)):
        reduction, small = i in (3, 5), 0.62 if i < 3 else 0.46 if i < 5 else 0.34
        color = INK if name != "cell" else OKABE_ITO[4] if reduction else OKABE_ITO[5]
        _box(axes, (x, 0), "", color, (0.56, 2 * small if name == "cell" else 1.4))
        if name != "cell":
            axes.text(x, 0, name, rotation=90, ha="center", va="center", size=17, zorder=4)
        if i:
            _arrow(axes, (xs[i - 1] + 0.28, 0), (x - 0.28, 0), INK, 1.6)
        if 1 < i < 7:
            _arrow(axes, (xs[i - 2], 0.66), (x, 0.66), GREY, 1.4, -0.5)
    axes.text(0.83, -1.25, "normal cells keep the size,", size=17, color=BLUE)
    axes.text(0.83, -1.75, "reduction cells halve it", size=17, color="#9A6A00")


# ---- the bilevel problem


@styled()
def two_roads(title: str = "Two roads from α to the validation loss") -> Drawing:
    """Draw the chain rule of the bilevel problem: the direct road, and the one over the trained weights.

    dL_val/dalpha = (direct) + (dw*/dalpha)^T dL_val/dw. DARTS, arXiv:1806.09055, section 2.3.
    """
    made, axes = _canvas((11, 4.6), (-0.9, 8.9), (-1.0, 3.2), title)
    alpha, weights, loss = (0.0, 0.0), (4.0, 2.2), (8.0, 0.0)
    _arrow(axes, (0.55, 0), (7.4, 0), BLUE, 4)
    _arrow(axes, (0.45, 0.4), (3.2, 2.0), RED, 4)
    _arrow(axes, (4.8, 2.0), (7.55, 0.4), RED, 4)
    for at, text, size in (
        (alpha, r"$\alpha$", 1.1),
        (weights, r"$w^*(\alpha)$", 1.6),
        (loss, r"$L_{val}$", 1.2),
    ):
        _box(axes, at, text, size=(size, 0.8), letters=22)
    axes.text(
        4,
        -0.6,
        r"direct:  $\partial L_{val} / \partial \alpha$,  weights held",
        ha="center",
        size=16,
        color=BLUE,
    )
    axes.text(1.5, 1.5, "training answers\n" + r"$d w^* / d\alpha$", ha="right", size=16, color=RED)
    axes.text(
        6.5, 1.5, "the answer is graded\n" + r"$\partial L_{val} / \partial w$", ha="left", size=16, color=RED
    )
    return drawing(
        made,
        f"{title}. A blue arrow leads directly from alpha to L_val: the partial derivative with the weights "
        "held. Two red arrows lead over the trained weights w*(alpha): first dw*/dalpha, how training "
        "answers, then the partial derivative of L_val in w, how the answer is graded. The sum is "
        "the hypergradient.",
    )


@styled()
def bilevel_loop(steps: int = 2, order: int = 1, title: str | None = None) -> Drawing:
    """Draw `steps` rounds of DARTS's Algorithm 1 on a time line: which of alpha and w moves on which images.

    Upper lane: validation images; lower lane: training images; between them the lines of alpha and w, which
    step up or down where they move. With `order` 2 each step of alpha also reads a training
    batch, for the virtual step to w' that is thrown away. Raises ValueError for less than one round, or for
    another order.
    """
    if steps < 1 or order not in (1, 2):
        raise ValueError(f"wanted one round or more of order 1 or 2, got steps={steps}, order={order}")
    title = f"The loop of DARTS, {'first' if order == 1 else 'second'} order" if title is None else title
    end = 4 * steps
    made, axes = _canvas(
        (12, 12 * 6.6 / (end + 3.9) if steps > 1 else 8), (-2.9, end + 1.0), (-0.7, 5.9), title
    )
    lanes = (
        ("validation\nimages", 5.1, RED),
        (r"$\alpha$", 3.4, RED),
        ("$w$", 1.8, BLUE),
        ("training\nimages", 0.0, BLUE),
    )
    for name, y, color in lanes:
        axes.text(-0.6, y, name, ha="right", va="center", size=22 if "$" in name else 16, color=color)
    for moves, (y, color) in enumerate(((3.2, RED), (1.6, BLUE))):
        level, x = y, -0.3
        for step in range(steps):
            at = 4 * step + 1 + 2 * moves
            axes.plot([x, at], [level, level], color=color, lw=4, solid_capstyle="butt")
            rise = 0.35 if step % 2 == 0 else -0.35
            axes.plot([at, at], [level, level + rise], color=color, lw=4)
            x, level = at, level + rise
        axes.plot([x, end], [level, level], color=color, lw=4, solid_capstyle="butt")
    for step in range(steps):
        a, w = 4 * step + 1, 4 * step + 3
        _box(axes, (a, 5.1), "batch", RED, (1.2, 0.6))
        _arrow(axes, (a, 4.8), (a, 3.9), RED, 3)
        axes.text(a + 0.15, 4.3, "α moves,\nw held", size=14, va="center", color=RED)
        _box(axes, (w, 0.0), "batch", BLUE, (1.2, 0.6))
        _arrow(axes, (w, 0.3), (w, 1.5), BLUE, 3)
        axes.text(w + 0.15, 0.85, "w moves,\nα held", size=14, va="center", color=BLUE)
        if order == 2:
            _box(axes, (a - 0.3, 0.0), "batch", BLUE, (1.2, 0.6))
            _arrow(axes, (a - 0.3, 0.3), (a - 0.3, 2.35), BLUE, 2, ls=(0, (3, 2)))
            _box(axes, (a - 0.3, 2.6), r"$w'$, thrown away", GREY, (3.0, 0.5), 17)
            _arrow(axes, (a - 0.3, 2.83), (a - 0.05, 3.15), GREY, 2)
    _arrow(axes, (-0.3, -0.5), (end, -0.5), GREY, 1.5)
    axes.text(end + 0.1, -0.5, "time", va="center", size=17, color=GREY)
    ahead = (
        " Each step of alpha first reads a training batch too: it takes w one virtual step ahead, to w', "
        "which is used and thrown away."
        if order == 2
        else ""
    )
    return drawing(
        made,
        f"{title}. Time line of {steps} rounds. First alpha moves, on a batch of validation images, while w "
        f"is held. Then w moves, on a batch of training images, while alpha is held.{ahead}",
    )


# ---- weight sharing


@styled()
def children_of(
    archs: Sequence[Mapping[str, Tensor]],
    ops: Sequence[str] = PRIMITIVES,
    which: str = "normal",
    title: str = "One network, stepping through its children",
) -> Drawing:
    """Draw one cell of a supernet once for each child: in colour what the child uses, grey what rests.

    `archs` are matrices of zeros and ones by label, (edges, len(ops)); the cell `which` is drawn, with one
    line for each operation of each edge. A count says how often a line was used up to that child. Raises
    ArchError for a matrix that does not fit.
    """
    matrices = [array(arch[which]) for arch in archs]
    n_nodes = next((n for n in range(1, 8) if matrices and len(edges(n)) == len(matrices[0])), 0)
    if not n_nodes or any(m.shape != (len(edges(n_nodes)), len(ops)) for m in matrices):
        raise ArchError(f"wanted matrices (edges, {len(ops)}) of one cell, got {[m.shape for m in matrices]}")
    wide = 2.0 + 1.9 * n_nodes
    made, panels = figure(1, len(matrices), size=(4.4 * len(matrices), 5.2), squeeze=False)
    made.suptitle(title)
    at: dict[int, Point] = {0: (0.0, 1.2), 1: (0.0, -1.2)}
    at |= {node: (1.9 * (node - 1), 0.0) for node in range(2, n_nodes + 2)}
    used, said = 0 * matrices[0], []
    for number, (axes, matrix) in enumerate(zip(panels.flat, matrices, strict=True), start=1):
        used = used + (matrix > 0)
        axes.axis("off")
        axes.set(xlim=(-0.5, wide - 0.9), ylim=(-3.0, 3.0), aspect="equal")
        axes.set_title(f"batch {number}: child {number}")
        for row, (source, node) in enumerate(edges(n_nodes)):
            real = [i for i, name in enumerate(ops) if name != "none"]
            for place, i in enumerate(real):
                bow = 0.42 * (place - (len(real) - 1) / 2) + (
                    0.0 if node == 2 or source > 1 else (-0.35, 0.35)[source]
                )
                on = matrix[row, i] > 0
                look = (op_color(ops[i]), 5.0) if on else (PALE, 1.2)
                _arrow(axes, at[source], at[node], *look, bow, gap=14, head=bool(on))
        for state, place_ in at.items():
            _dot(axes, place_, str(state), BLUE if state < 2 else INK, 0.3)
        trained = int((used[:, [i for i, name in enumerate(ops) if name != "none"]] > 0).sum())
        total = len(edges(n_nodes)) * sum(name != "none" for name in ops)
        axes.text(wide / 2 - 0.7, -2.9, f"{trained} of {total} trained so far", ha="center", size=15)
        uses = "; ".join(
            f"{source}→{node} {ops[i]}"
            for row, (source, node) in enumerate(edges(n_nodes))
            for i in range(len(ops))
            if matrix[row, i] > 0
        )
        said.append(f"Child {number} uses {uses}; {trained} of {total} operations trained so far.")
    handles = [
        matplotlib.lines.Line2D([], [], color=op_color(name), lw=5, label=name)
        for name in ops
        if name != "none"
    ]
    made.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return drawing(
        made,
        f"{title}. One cell, {len(matrices)} times; grey lines rest, coloured ones run. {' '.join(said)}",
    )
