"""Cells and networks as pictures.

    draw_cell(genotype)                   the derived normal cell; which="reduce" for the other
    draw_cell(trainer.arch(), "reduce")   every edge of the supernet's cell, as wide as its best op weighs
    draw_network(n_layers=8)              the stack of cells: stem, normal and reduction cells, head
    draw_chain(layers, skips)             ENAS's macro space: layers in a row, with skip connections

Each gives a `CellDrawing`: a notebook shows it, `.words` says it, `.svg` and `.dot` are text, and
`.save("cell.pdf")` writes .svg, .pdf, .png or .dot. The colours are Okabe and Ito's, which colour-blind
people can tell apart; a family of operations has one colour everywhere.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nasedu.show.graphs import INK, Arrow, Box, CellDrawing, text_size
from nasedu.space.choice import ArchError
from nasedu.space.genotype import Genotype, edges
from nasedu.space.ops import PRIMITIVES

__all__ = ["CellDrawing", "draw_cell", "draw_chain", "draw_network", "op_color"]

FAMILIES = {
    "none": "#999999",
    "max_pool": "#0072B2",
    "avg_pool": "#56B4E9",
    "skip": "#009E73",
    "sep_conv": "#D55E00",
    "dil_conv": "#E69F00",
}
OTHER = "#CC79A7"
GREY = "#777777"
TITLES = {"normal": "Normal cell", "reduce": "Reduction cell"}
INPUTS = {0: "c_{k-2}", 1: "c_{k-1}"}

Path = tuple[int, int, str, float]  # source, node, operation, weight or count


def op_color(name: str) -> str:
    """The colour of an operation's family, as "#rrggbb"; an operation of no known family is purple."""
    return next((color for family, color in FAMILIES.items() if name.startswith(family)), OTHER)


def tint(color: str, keep: float = 0.25) -> str:
    """`color` mixed with white, `keep` of it left: a ground on which black text can be read."""
    channels = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - keep * (255 - channel)):02x}" for channel in channels)


def draw_cell(
    cell: Genotype | Mapping[str, Tensor] | Tensor,
    which: str = "normal",
    threshold: float | None = None,
    title: str | None = None,
    ops: Sequence[str] = PRIMITIVES,
    direction: str = "LR",
) -> CellDrawing:
    """Draw a cell as a directed acyclic graph, inputs to output.

    `cell` is a Genotype, an arch (its matrix `which` is drawn), or one matrix of shape (edges, len(ops)). A
    matrix of counts 0, 1, 2 looks like the derived cell it is. In any other each edge shows its strongest
    operation other than "none", as wide as that weighs, and is faint below `threshold`; None: where the DARTS
    rule (two edges for each node) would drop it. `direction` is "LR" (left to right) or "TB" (top to bottom).
    Raises ArchError for a matrix that does not fit.
    """
    if isinstance(cell, Genotype):
        if which not in cell.cells:
            there = " and ".join(map(repr, cell.cells))
            raise ValueError(f"this genotype has the cells {there}, got which={which!r}")
        pairs = cell.cells[which]
        n_nodes, discrete = len(pairs), True
        paths = [(source, node, op, 1.0) for node, ins in enumerate(pairs, start=2) for op, source in ins]
    else:
        matrix = _matrix(cell, which, ops)
        n_nodes, discrete = _n_nodes(matrix, which), bool(torch.isin(matrix, torch.arange(3.0)).all())
        paths = [
            (source, node, op, weight)
            for (source, node), row in zip(edges(n_nodes), matrix.tolist(), strict=True)
            for op, weight in _shown(row, ops, discrete)
        ]
    if discrete:
        paths = _counted(paths)
    title = TITLES.get(which, which) if title is None else title
    kept = _kept(paths, threshold, discrete)
    boxes = [
        Box(f"s{i}", text, 64, 44, "#eeeeee", GREY, tip=f"input {text}", group="in")
        for i, text in INPUTS.items()
    ]
    boxes += [Box(f"s{node}", str(node), 44, 44, tip=f"node {node}") for node in range(2, n_nodes + 2)]
    end = "concatenation of the nodes"
    boxes.append(Box("out", "output", text_size("output")[0], 44, "#eeeeee", GREY, tip=end))
    arrows, (enter, leave) = [], ("w", "e") if direction == "LR" else ("n", "s")
    for i, ((source, node, op, weight), keep) in enumerate(zip(paths, kept, strict=True)):
        text, color = _label(op, weight, discrete), op_color(op)
        tip = f"{source} → {node}: {_said(op, weight, discrete)}"
        boxes.append(Box(f"p{i}", text, *text_size(text), tint(color), color, faint=not keep, tip=tip))
        width = 3.0 * weight if discrete else max(0.5, 10 * weight)
        arrows.append(Arrow(f"s{source}", f"p{i}", color, width, False, not keep, 2, ("_", enter)))
        # An operation stands right before the node that it goes into, so each node has its column of them.
        arrows.append(Arrow(f"p{i}", f"s{node}", color, width, True, not keep, 6, (leave, "_")))
    arrows += [Arrow(f"s{node}", "out", "#aaaaaa") for node in range(2, n_nodes + 2)]
    words = _words(title, paths, kept, n_nodes, discrete)
    gap = 16 if direction == "LR" else 30
    order = tuple(f"s{node}" for node in range(2, n_nodes + 2)) if discrete else ()
    return CellDrawing(title, words, tuple(boxes), tuple(arrows), direction, gap, order)


def draw_chain(
    layers: Sequence[str],
    skips: Sequence[tuple[int, int]] = (),
    title: str = "A chain of layers",
    direction: str = "LR",
) -> CellDrawing:
    """Draw ENAS's macro space: layers of one operation each, fed by the layer before and by skip connections.

    `layers` are names of operations; `skips` are (source, target) pairs of their positions, counted from 0,
    with source < target. Raises ValueError for a skip that is not there. ENAS, arXiv:1802.03268, section 2.3.
    """
    for source, target in skips:
        if not 0 <= source < target < len(layers):
            raise ValueError(
                f"a skip goes from an earlier layer to a later one of {len(layers)}, got {(source, target)}"
            )
    texts = [f"{i}\n" + "\n".join(op.rsplit("_", 1)) for i, op in enumerate(layers)]
    width = max(text_size(text)[0] for text in ["output", *texts])
    names = ["image", *(f"l{i}" for i in range(len(layers))), "out"]
    boxes = [Box("image", "image", text_size("image")[0], 44, "#eeeeee", GREY)]
    for i, op in enumerate(layers):
        boxes.append(
            Box(f"l{i}", texts[i], width, 80, tint(op_color(op)), op_color(op), tip=f"layer {i}: {op}")
        )
    boxes += [Box("out", "output", text_size("output")[0], 44, "#eeeeee", GREY)]
    arrows = [Arrow(a, b, INK, 2.5, pull=100) for a, b in zip(names, names[1:], strict=False)]
    arrows += [Arrow(f"l{a}", f"l{b}", "#009E73", 2) for a, b in sorted(skips)]
    said = "; ".join(f"{i}: {op}" for i, op in enumerate(layers))
    skipped = ", ".join(f"{a} to {b}" for a, b in sorted(skips)) or "none"
    return CellDrawing(
        title, f"{title}. Layers {said}. Skip connections: {skipped}.", tuple(boxes), tuple(arrows), direction
    )


def draw_network(
    n_layers: int = 8,
    channels: int = 16,
    input_size: int = 32,
    n_nodes: int = 4,
    title: str | None = None,
    direction: str = "LR",
) -> CellDrawing:
    """Draw the stack of cells that `CNN` and `Network` are, each with the (channels, height, width) it gives.

    A cell takes the outputs of the two cells before it; cells n_layers//3 and 2*n_layers//3 halve the map and
    double the channels. Raises ValueError for fewer than 3 cells. DARTS, arXiv:1806.09055, section 3.1.
    """
    if n_layers < 3:
        raise ValueError(f"a network wants 3 cells or more, two of them reductions, got n_layers={n_layers}")
    size, said = input_size, []
    stem = f"stem\n{3 * channels}×\n{size}×{size}"
    boxes = [Box("stem", stem, *text_size(stem), "#eeeeee", GREY)]
    for i in range(n_layers):
        reduction = i in (n_layers // 3, 2 * n_layers // 3)
        if reduction:
            channels, size = 2 * channels, size // 2
        kind, color = ("reduce", "#E69F00") if reduction else ("normal", "#56B4E9")
        text = f"{i}\n{kind}\n{n_nodes * channels}×\n{size}×{size}"
        boxes.append(Box(f"c{i}", text, *text_size(text), tint(color, 0.4), color))
        said.append(f"{i} {'reduction' if reduction else 'normal'} {n_nodes * channels}×{size}×{size}")
    boxes.append(Box("head", "mean,\nlinear", *text_size("mean,\nlinear"), "#eeeeee", GREY))
    names = [box.name for box in boxes]
    arrows = [Arrow(a, b, INK, 2.5, pull=100) for a, b in zip(names, names[1:], strict=False)]
    arrows += [Arrow(a, b, GREY, 1.5) for a, b in zip(names, names[2:-1], strict=False)]
    title = f"A network of {n_layers} cells" if title is None else title
    words = (
        f"{title}, each fed by the two before it. Stem; {'; '.join(said)}; "
        "mean over the map, linear classifier."
    )
    return CellDrawing(title, words, tuple(boxes), tuple(arrows), direction, 16)


def _matrix(cell: Mapping[str, Tensor] | Tensor, which: str, ops: Sequence[str]) -> Tensor:
    if isinstance(cell, Mapping):
        if which not in cell:
            raise ArchError(f"the architecture has no matrix {which!r}; it has {sorted(cell)}")
        cell = cell[which]
    matrix = torch.as_tensor(cell).detach().cpu().float()
    if matrix.ndim != 2 or matrix.shape[1] != len(ops):
        raise ArchError(
            f"a cell's matrix has one column for each of the {len(ops)} ops ({', '.join(ops)}), got the "
            f"shape {tuple(matrix.shape)}; name other operations with ops="
        )
    if not bool(torch.isfinite(matrix).all()) or bool((matrix < 0).any()):
        raise ArchError(
            "a cell's matrix holds weights from 0 up; take the softmax of logits before drawing them"
        )
    return matrix


def _n_nodes(matrix: Tensor, which: str) -> int:
    n_nodes = 1
    while len(edges(n_nodes)) < len(matrix):
        n_nodes += 1
    if len(edges(n_nodes)) != len(matrix):
        raise ArchError(
            f"the matrix {which!r} has {len(matrix)} rows; a cell of 1, 2, 3, 4 nodes has 2, 5, 9, 14 edges"
        )
    return n_nodes


def _shown(row: list[float], ops: Sequence[str], discrete: bool) -> list[tuple[str, float]]:
    real = [(op, weight) for op, weight in zip(ops, row, strict=True) if op != "none" and weight > 0]
    if discrete or not real:
        return real
    return [max(real, key=lambda pair: pair[1])]


def _counted(paths: list[Path]) -> list[Path]:
    """The paths in one order, each once, with the number of times it is there."""
    total: dict[tuple[int, int, str], float] = {}
    for source, node, op, count in paths:
        total[node, source, op] = total.get((node, source, op), 0.0) + count
    return [(source, node, op, count) for (node, source, op), count in sorted(total.items())]


def _kept(paths: list[Path], threshold: float | None, discrete: bool) -> list[bool]:
    """Which paths are drawn in full."""
    if discrete:
        return [True] * len(paths)
    if threshold is not None:
        return [weight >= threshold for *_, weight in paths]
    best: dict[int, list[Path]] = {}
    for path in sorted(paths, key=lambda path: -path[3]):
        best.setdefault(path[1], []).append(path)
    return [path in best[path[1]][:2] for path in paths]


def _label(op: str, weight: float, discrete: bool) -> str:
    """The text of an operation's box, in two lines."""
    family, _, size = op.rpartition("_")
    if discrete:
        count = f"{weight:.0f} × " if weight != 1 else ""
        return count + (f"{family}\n{size}" if family else op)
    return f"{family}\n{size} {weight:.2f}" if size[:1].isdigit() else f"{op}\n{weight:.2f}"


def _said(op: str, weight: float, discrete: bool) -> str:
    """An operation and its weight, or how often it is there."""
    if discrete:
        return op if weight == 1 else f"{weight:.0f} × {op}"
    return f"{op} {weight:.2f}"


def _words(title: str, paths: list[Path], kept: list[bool], n_nodes: int, discrete: bool) -> str:
    nodes = [str(node) for node in range(2, n_nodes + 2)]
    output = f"Output = concatenation of nodes {', '.join(nodes)}." if n_nodes > 1 else "Output = node 2."
    sentences = []
    for node in range(2, n_nodes + 2):
        terms = []
        for (source, target, op, weight), keep in zip(paths, kept, strict=True):
            if target == node:
                state = INPUTS.get(source, f"node {source}")
                factor = (f"{weight:.0f} × " if weight != 1 else "") if discrete else f"{weight:.2f} × "
                terms.append(f"{factor}{op}({state}){'' if keep else ' (faint)'}")
        sentences.append(f"Node {node} = {' + '.join(terms) or 'nothing'}")
    weighed = "" if discrete else ", the strongest operation of each edge and its weight"
    return f"{title}{weighed}. {'; '.join(sentences)}. {output}"
