"""Pictures of ideas in the lessons on searching: each a pure function from the state to a picture.

alternating_steps(3)                   notebook 06: which weights move on which images, in turn
discretisation_cut(rows, "edges")      notebook 07: a node's rows, from all weights to the cell
controller_unrolled(sample, 3)         notebook 08: the LSTM, its tokens, anchors, attention, in time
partial_channels(8, k=4)               notebook 12: which channels pass the operations
gumbel_rows(logits, noise, 0.5)        notebook 12: what one draw looks like at a temperature
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import Tensor

from nasedu.search.decisions import Sample
from nasedu.show.cells import op_color
from nasedu.show.pictures import OKABE_ITO, Numbers, Picture, array, figure, finish, sentence, styled
from nasedu.space.ops import PRIMITIVES

BLUE, RED, INK, PALE = OKABE_ITO[0], "#D55E00", "#222222", "#DDDDDD"


def _box(
    axes: Axes, x: float, y: float, text: str, color: str, size: tuple[float, float], shown: bool
) -> None:
    """A rounded box with a text around (x, y); pale and without its text where it is not yet shown."""
    (wide, high), line = size, color if shown else PALE
    corner = (x - wide / 2, y - high / 2)
    axes.add_patch(
        FancyBboxPatch(corner, wide, high, "round,pad=0,rounding_size=0.1", fc="white", ec=line, lw=2.5)
    )
    if shown:
        axes.text(x, y, text, ha="center", va="center", size=13, color=INK)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = INK,
    lw: float = 2.0,
    bow: float = 0.0,
) -> None:
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 14, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(
        FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bow}", color=color, lw=lw, **style)
    )


@styled()
def alternating_steps(steps: int = 3, title: str = "DARTS: two kinds of steps, in turn") -> Picture:
    """Draw `steps` rounds of DARTS as a time line: two lanes, alpha and w, and the images that each sees.

    Raises ValueError for fewer than one round.
    """
    if steps < 1:
        raise ValueError(f"a time line needs one round or more, got {steps}")
    made, axes = figure(size=(13, 4.6))
    for lane, (y, name, color) in enumerate(((1, "α", RED), (0, "w", BLUE))):
        axes.plot([-0.6, 2 * steps], [y, y], color=PALE, lw=6, zorder=0)
        axes.text(-0.8, y, name, size=24, ha="right", va="center", color=color)
        for number in range(steps):
            x = 2 * number + lane
            _box(axes, x + 0.25, y, f"{name} step {number + 1}", color, (0.95, 0.42), True)
            images, at = ("validation batch", y + 0.62) if lane == 0 else ("training batch", y - 0.62)
            axes.text(x + 0.25, at, images, ha="center", va="center", size=13, color=INK)
            _arrow(axes, (x + 0.25, at - 0.12 * (1 - 2 * lane)), (x + 0.25, y + 0.23 * (1 - 2 * lane)), color)
            if x < 2 * steps - 1:  # the next step reads what this one wrote
                away = (x + 0.6, y - 0.2 * (1 - 2 * lane)), (x + 0.9, 1 - y + 0.2 * (1 - 2 * lane))
                _arrow(axes, *away, INK, 1.5)
    axes.set(xlim=(-1.2, 2 * steps + 0.1), ylim=(-0.95, 1.95), title=title)
    axes.axis("off")
    said = (
        "Time runs to the right. In the upper lane a step moves alpha, on a batch of validation images, "
        "with w held; in the lower lane a step moves w, on a batch of training images, with alpha held. "
        f"They alternate, {steps} times each; each step starts from what the other has just left."
    )
    return finish(made, f"{sentence(title)} {said}")


STAGES = ("all weights", "two edges", "one operation each", "weight one")
"""The stages of `discretisation_cut`."""


@styled()
def discretisation_cut(
    rows: Tensor, stage: str = STAGES[0], ops: Sequence[str] = PRIMITIVES, title: str = ""
) -> Picture:
    """Draw one node's rows (edges, ops) of the matrix as stacked bars, at one of the `STAGES` of the cut.

    `rows` are softmaxed; the first column is `none`, which takes no part in the choice. DARTS, section 2.4.
    Raises ValueError for an unknown stage, or rows that do not fit `ops`.
    """
    weights = array(rows)
    if stage not in STAGES:
        raise ValueError(f"wanted one of the stages {list(STAGES)}, got {stage!r}")
    if weights.ndim != 2 or weights.shape[1] != len(ops) or len(weights) < 2:
        raise ValueError(f"wanted rows (2 edges or more, {len(ops)} operations), got {weights.shape}")
    best = weights[:, 1:].argmax(axis=1) + 1
    kept = np.sort(np.argsort(-weights[:, 1:].max(axis=1), kind="stable")[:2])
    after, number = weights.copy(), STAGES.index(stage)
    if number >= 1:
        after[[i for i in range(len(weights)) if i not in kept]] = 0.0
    if number >= 2:
        chosen = np.zeros_like(after)
        chosen[kept, best[kept]] = 1.0 if number == 3 else after[kept, best[kept]]
        after = chosen
    made, axes = figure(size=(12, 1.9 + 0.8 * len(weights)))
    for row, values in enumerate(after):
        left = 0.0
        axes.barh(row, 1, color="none", edgecolor=PALE, lw=2)
        for op, (name, value) in enumerate(zip(ops, values, strict=True)):
            axes.barh(row, value, left=left, color=op_color(name), edgecolor="white", lw=1.5)
            if value > 0.09 and (number or op in (0, best[row])):
                text = name.replace("_", "\n", 1) if value < 0.3 else f"{name}, {value:.2f}"
                axes.text(left + value / 2, row, text, ha="center", va="center", size=13, color=INK,
                          bbox={"fc": "white", "ec": "none", "pad": 1, "alpha": 0.75})  # fmt: skip
            left += value
    axes.set_yticks(range(len(weights)), [f"edge {source}" for source in range(len(weights))])
    axes.grid(False)
    title = title or f"The cut, step {number} of 3: {stage}"
    axes.set(title=title, xlabel="weight", xlim=(0, 1.02), ylim=(len(weights) - 0.4, -0.6))
    left_over = [
        f"edge {row}: " + ", ".join(f"{n} {v:.2f}" for n, v in zip(ops, values, strict=True) if v > 0)
        for row, values in enumerate(after)
        if values.any()
    ]
    return finish(made, f"{sentence(title)} Bars, one an edge, of its weights. {'; '.join(left_over)}.")


def _short(option: str) -> str:
    return re.sub("_(conv_|pool_|connect)?", "\n", option).strip()


@styled()
def controller_unrolled(
    sample: Sample, decision: int | None = None, title: str = "The controller writes a cell"
) -> Picture:
    """Draw the LSTM unrolled in time, as it writes the first cell of `sample`: after `decision` decisions.

    Bottom: the token that each step reads. Middle: the LSTM, whose state goes to the right. Top: what it
    draws, with its probability. Arcs: the attention of a step to the states (anchors) of earlier nodes, as
    wide as the probability. Without `decision`, all of them. Raises ValueError for one out of range, or for a
    sample whose steps are not those of cells.
    """
    steps = [step for step in sample.steps if step.name.startswith(sample.steps[0].name.split(" ")[0])]
    found = [re.search(r"node (\d+): (input|operation)", step.name) for step in steps]
    if not all(found):
        raise ValueError(f"wanted a controller of cells, with steps 'node 2: input', got {steps[0].name!r}")
    decision = len(steps) if decision is None else decision
    if not 0 <= decision <= len(steps):
        raise ValueError(f"wanted a decision from 0 to {len(steps)}, got {decision}")
    anchors, x, token, said = {0: 0.0, 1: 1.0}, 2.0, "start", []
    made, axes = figure(size=(13, 5.6))
    columns = [(0.0, "start", "input\n0", 0), (1.0, "start", "input\n1", 0)]  # (x, reads, writes, when)
    for number, (step, match) in enumerate(zip(steps, found, strict=True), start=1):
        assert match is not None
        node, kind, shown = int(match[1]), match[2], number <= decision
        chosen, odds = int(step.choice[0]), step.probabilities[0].tolist()
        drawn = step.options[chosen]
        columns.append((x, token, f"{_short(drawn)}\n{odds[chosen]:.2f}", number))
        if kind == "input" and shown:
            for option, p in zip(step.options, odds, strict=True):
                color = RED if option == drawn else "#999999"
                _arrow(axes, (anchors[int(option)], 1.85), (x - 0.05, 1.82), color, 0.6 + 5 * p, -0.32)
        if shown:
            said.append(f"node {node} {kind} {drawn} ({odds[chosen]:.2f})")
        token = f"anchor\nof {drawn}" if kind == "input" else _short(drawn)
        x += 1
        if number % 4 == 0:  # the node itself: one more step, whose state is its anchor
            columns.append((x, token, f"node\n{node}", number))
            anchors[node], token, x = x, "start", x + 1
    for at, reads, writes, when in columns:
        shown, is_anchor = when <= decision, "node" in writes or "input" in writes
        _box(axes, at, 0.0, "LSTM", INK, (0.82, 0.5), shown)
        _box(axes, at, -1.0, reads, BLUE, (0.94, 0.72), shown)
        _box(axes, at, 1.3, writes, "#009E73" if is_anchor else RED, (0.94, 1.05), shown)
        if shown:
            _arrow(axes, (at, -0.64), (at, -0.27), BLUE)
            _arrow(axes, (at, 0.27), (at, 0.76), INK)
    for before, after in pairwise(columns):
        if after[3] <= decision:
            _arrow(axes, (before[0] + 0.42, 0.0), (after[0] - 0.42, 0.0), INK, 2.5)
    for y, words in ((-1.0, "reads"), (0.0, "state"), (1.3, "writes"), (2.2, "attends to")):
        axes.text(-0.7, y, words, ha="right", va="center", size=15)
    axes.set(title=title, xlim=(-1.7, x), ylim=(-1.45, 2.7 + 0.05 * x))
    axes.axis("off")
    drawn_so_far = "; ".join(said) if said else "nothing yet"
    words = (
        f"{sentence(title)} A row of LSTM steps from left to right; each reads a token from below and "
        "draws what stands above it; curved arrows go from the anchors of earlier nodes to a step that "
        "chooses an input, as wide as the probability. "
        f"Drawn after {decision} of {len(steps)} decisions: {drawn_so_far}."
    )
    return finish(made, words)


@styled()
def partial_channels(channels: int = 8, k: int = 4, title: str = "") -> Picture:
    """Draw an edge with partial channels: 1/k of `channels` pass the mixed operations, then all are shuffled.

    PC-DARTS, arXiv:1907.05737. Raises ValueError where k does not divide `channels`.
    """
    if k < 1 or channels % k:
        raise ValueError(f"k must divide the number of channels, got {channels} channels and k = {k}")
    part = channels // k
    shuffled = [
        group * part + i for i in range(part) for group in range(k)
    ]  # channel i of group g -> i k + g
    made, axes = figure(size=(12, 0.62 * channels + 1.2))
    for place in range(channels):
        color = RED if place < part else BLUE
        axes.add_patch(Rectangle((0, -place - 0.4), 1.1, 0.8, fc=color, alpha=0.85))
        axes.text(0.55, -place, f"channel {place}", ha="center", va="center", size=13, color="white")
        _arrow(axes, (1.2, -place), (2.2 if place < part else 4.1, -place), color)
        if place < part:
            _arrow(axes, (3.4, -place), (4.1, -place), color)
        came = shuffled[place]
        _arrow(axes, (4.3, -came), (6.3, -place), RED if came < part else BLUE, 1.8)
        axes.add_patch(Rectangle((6.4, -place - 0.4), 1.1, 0.8, fc=RED if came < part else BLUE, alpha=0.85))
        axes.text(6.95, -place, f"channel {came}", ha="center", va="center", size=13, color="white")
    middle = -(part - 1) / 2
    _box(axes, 2.8, middle, "mixed\noperations", RED, (1.2, max(0.9, part - 0.1)), True)
    axes.text(
        3.0, -part - (channels - part - 1) / 2, "pass by", ha="center", va="bottom", size=14, color=BLUE
    )
    title = title or f"Partial channels, K = {k}: {part} of {channels} channels pass the operations"
    axes.set(title=title, xlim=(-0.1, 7.7), ylim=(-channels + 0.4, 0.9))
    axes.axis("off")
    said = (
        f"The first {part} of {channels} channels go through the mixed operations, {channels - part} pass "
        f"by. Then they are shuffled: the order after it is {', '.join(map(str, shuffled))}."
    )
    return finish(made, f"{sentence(title)} {said}")


@styled()
def gumbel_rows(
    logits: Numbers, noise: Numbers, temperature: float, names: Sequence[str], title: str = ""
) -> Picture:
    """Draw softmax((logits + noise) / temperature) for several draws of noise (draws, ops), a row for each.

    A star marks the largest of logits + noise, which is what the draw gives, whatever the temperature. Jang,
    Gu, Poole, arXiv:1611.01144. Raises ValueError for a temperature that is not positive or other shapes.
    """
    alpha, shaken = array(logits), array(noise)
    if alpha.shape != (len(names),) or shaken.ndim != 2 or shaken.shape[1] != len(names):
        raise ValueError(
            f"wanted {len(names)} logits and noise (draws, {len(names)}), got {alpha.shape}, {shaken.shape}"
        )
    if not temperature > 0:
        raise ValueError(f"a temperature is larger than 0, got {temperature}")
    z = (alpha + shaken) / temperature
    soft = np.exp(z - z.max(axis=1, keepdims=True))
    soft /= soft.sum(axis=1, keepdims=True)
    title = title or f"{len(soft)} draws at temperature {temperature:g}"
    made, axes = figure(size=(11, 1.8 + 0.52 * len(soft)))
    shown = axes.imshow(soft, vmin=0, vmax=1, aspect="auto")
    for row, values in enumerate(soft):
        for op, value in enumerate(values):
            star = " ★" if op == values.argmax() else ""
            color = "black" if value > 0.6 else "white"
            axes.text(op, row, f"{value:.2f}{star}", ha="center", va="center", size=14, color=color)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(soft)), [str(row + 1) for row in range(len(soft))])
    axes.grid(False)
    axes.set(title=title, xlabel="operation", ylabel="draw")
    made.colorbar(shown, label="weight")
    largest = soft.max(axis=1)
    ends = f"from {largest.min():.2f} to {largest.max():.2f}"
    said = f"The largest weight of a row is {largest.mean():.2f} on average, {ends}."
    return finish(made, f"Heatmap. {sentence(title)} {said}")
