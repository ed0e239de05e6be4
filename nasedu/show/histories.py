"""The course's plots; each takes data and gives a `Picture`: image, words, `.figure`, `.save(path)`.

    alpha_heatmap(arch)                            the matrices themselves, every weight readable
    alpha_over_time(history, "normal")             each edge's weights over the epochs, or edge=(0, 2) alone
    entropy_over_time(history)                     how undecided the softmaxes are
    learning_curves(history)                       loss and accuracy; {"first order": h1, ...} for several
    discretisation_gap(epochs, supernet, derived)  what is lost when the supernet is cut down to a cell
    search_until(history, epoch)                   weights, entropy and gap of a search up to an epoch
    operation_pictures, softmax_bars, bilevel_paths, toy_path: of single ideas, see `nasedu.show.lessons`
    lines, compare, images, figure, show: general ones, see `nasedu.show.pictures`

A history is a `History`, or the list of its epochs: dicts with "epoch", "train_loss", ..., "arch".
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from torch import Tensor

from nasedu.show.cells import op_color
from nasedu.show.pictures import (
    DASHES,
    OKABE_ITO,
    Numbers,
    Picture,
    array,
    describe,
    figure,
    finish,
    legend,
    lines,
    sentence,
    styled,
)
from nasedu.space.genotype import edges
from nasedu.space.ops import PRIMITIVES

TITLES = {"normal": "normal cell", "reduce": "reduction cell"}


def edge_names(matrix: np.ndarray, label: str) -> list[str]:
    """A name for each row: "0→2" in a cell's matrix, the row's number in any other."""
    for n_nodes in range(1, 12):
        if label in TITLES and len(edges(n_nodes)) == len(matrix):
            return [f"{source}→{node}" for source, node in edges(n_nodes)]
    return [str(row) for row in range(len(matrix))]


def op_dash(name: str) -> Any:
    """Solid for a 3x3 operation, broken for a larger one, since both have their family's colour."""
    return DASHES[1] if name.endswith(("5x5", "7x7")) else DASHES[2] if name == "none" else DASHES[0]


def _matrix(matrix: Tensor | Sequence, ops: Sequence[str], label: str) -> np.ndarray:
    values = array(matrix)
    if values.ndim != 2 or values.shape[1] != len(ops):
        raise ValueError(
            f"the matrix {label!r} has shape {values.shape}; wanted is one column for each of "
            f"{', '.join(ops)}: name other operations with ops="
        )
    return values


@styled()
def alpha_heatmap(
    arch: Mapping[str, Tensor] | Tensor,
    which: str | None = None,
    ops: Sequence[str] = PRIMITIVES,
    title: str = "Weight of each operation on each edge",
    top: float | None = None,
    names: Sequence[str] = (),
) -> Picture:
    """Draw the matrices of an architecture, rows edges, columns operations, each weight written in its field.

    `which` draws one label alone. A bare matrix is taken for `which`, or "normal". The colours end at
    `top`, by default the largest weight. `names` are the rows', by default those of `edge_names`.
    """
    if isinstance(arch, Tensor):
        arch = {which or "normal": arch}
    if which is not None and which not in arch:
        raise ValueError(f"the architecture has no matrix {which!r}; it has {sorted(arch)}")
    labels = list(arch) if which is None else [which]
    matrices = {label: _matrix(arch[label], ops, label) for label in labels}
    rows = max(map(len, matrices.values()))
    column, letters = (0.62, 15) if len(labels) > 1 else (0.8, 17)
    size = ((column * len(ops) + 1.2) * len(labels) + 0.6, 0.3 * rows + 2.0)
    made, grid = figure(1, len(labels), size=size, squeeze=False)
    top = top or max(float(matrix.max()) for matrix in matrices.values()) or 1.0
    said = []
    for axes, (label, matrix) in zip(grid[0], matrices.items(), strict=True):
        image = axes.imshow(matrix, vmin=0, vmax=top, aspect="auto")
        edge = names or edge_names(matrix, label)
        axes.set_yticks(range(len(edge)), edge, size=15)
        axes.set_xticks(range(len(ops)), ops, rotation=40, ha="right", rotation_mode="anchor", size=15)
        axes.set(title=TITLES.get(label, label), ylabel="edge")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        for row, column in np.ndindex(*matrix.shape):
            value = float(matrix[row, column])
            text = f"{value:.0f}" if value == round(value) else f"{value:.2f}".removeprefix("0")
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                size=letters,
                color="black" if value > 0.6 * top else "white",
            )
        for row in range(1, len(edge)):
            if edge[row].split("→")[-1] != edge[row - 1].split("→")[-1] and "→" in edge[row]:
                axes.axhline(row - 0.5, color="white", lw=3)
        best = ", ".join(
            f"{name}: {ops[int(row.argmax())]} {row.max():.2f}"
            for name, row in zip(edge, matrix, strict=True)
        )
        said.append(f"{TITLES.get(label, label)}, largest weight of each edge: {best}.")
    made.colorbar(image, ax=grid[0].tolist(), label="weight", fraction=0.03, pad=0.02, aspect=35)
    made.suptitle(title)
    return finish(made, f"Heatmap. {sentence(title)} {' '.join(said)}")


def epochs_of(history: Any) -> list[dict[str, Any]]:
    """The epochs of a History, or of a list of them; raises ValueError where there are none."""
    epochs = list(getattr(history, "epochs", history))
    if not epochs:
        raise ValueError("the history is empty; run fit() before plotting it")
    return epochs


def _arch_over_time(history: Any, which: str) -> tuple[np.ndarray, np.ndarray]:
    """Epoch numbers (T,) and weights (T, rows, columns)."""
    epochs = epochs_of(history)
    if any(which not in epoch.get("arch", {}) for epoch in epochs):
        raise ValueError(f'this history lacks the matrix {which!r} of "arch" in some epoch; was it a search?')
    return array([epoch["epoch"] for epoch in epochs]), array([epoch["arch"][which] for epoch in epochs])


@styled()
def alpha_over_time(
    history: Any,
    which: str = "normal",
    edge: tuple[int, int] | int | None = None,
    ops: Sequence[str] = PRIMITIVES,
    title: str | None = None,
) -> Picture:
    """Draw the weights of each operation over the epochs: all edges as small panels, or one `edge`.

    An edge is (source, node), or a row's number. In the overview a row of panels is a node, a column a
    source.
    """
    at, weights = _arch_over_time(history, which)
    _matrix(weights[-1], ops, which)
    names = edge_names(weights[-1], which)
    title = title or f"Weights over the epochs, {TITLES.get(which, which)}"
    if edge is not None:
        name = f"{edge[0]}→{edge[1]}" if isinstance(edge, tuple) else names[edge]
        if name not in names:
            raise ValueError(f"there is no edge {name}; there are {', '.join(names)}")
        made, axes = figure()
        _weights(axes, at, weights[:, names.index(name)], ops)
        axes.set(title=f"{title}, edge {name}", xlabel="epoch", ylabel="weight", ylim=(0, None))
        legend(axes, outside=True)
        chosen = [name]
    else:
        places, shape = _places(names)
        size = (2.0 * shape[1] + 2.2, 1.25 * shape[0] + 1.2)
        made, grid = figure(*shape, size=size, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat:
            axes.set_visible(False)
        for row, (name, place) in enumerate(zip(names, places, strict=True)):
            axes = grid[place]
            axes.set_visible(True)
            _weights(axes, at, weights[:, row], ops)
            axes.set_title(name, size=15, pad=2)
            axes.tick_params(labelsize=14, labelbottom=place[0] == shape[0] - 1, labelleft=place[1] == 0)
        grid[0, 0].set_ylim(0, None)
        grid[0, 0].yaxis.get_major_locator().set_params(nbins=2)
        handles, labels = axes.get_legend_handles_labels()
        made.legend(handles, labels, loc="outside right upper", handlelength=1.6, fontsize=14)
        made.supxlabel("epoch", size=16)
        made.supylabel("weight", size=16)
        made.suptitle(title)
        chosen = names
    said = []
    for name in chosen:
        first, last = weights[0, names.index(name)], weights[-1, names.index(name)]
        best = int(last.argmax())
        said.append(f"edge {name} ends with {ops[best]} at {last[best]:.2f}, from {first[best]:.2f}")
    return finish(made, f"{sentence(title)} Largest weight at epoch {at[-1]:.0f}: {'; '.join(said)}.")


def _weights(axes: Any, at: np.ndarray, weights: np.ndarray, ops: Sequence[str]) -> None:
    for column, op in enumerate(ops):
        axes.plot(at, weights[:, column], label=op, color=op_color(op), ls=op_dash(op), lw=2.2)


def _places(names: Sequence[str]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Where each edge's panel goes, and the grid's shape: nodes down, sources across; or four in a row."""
    if "→" in names[0]:
        ends = [tuple(map(int, name.split("→"))) for name in names]
        places = [(node - 2, source) for source, node in ends]
    else:
        places = [divmod(row, 4) for row in range(len(names))]
    return places, (max(p[0] for p in places) + 1, max(p[1] for p in places) + 1)


def entropy_over_time(history: Any, title: str = "How undecided are the edges?") -> Picture:
    """Draw the entropy of the rows of each matrix over the epochs: the mean, and a band from least to most.

    In bits: 3 bits is a softmax that prefers none of 8 operations, 0 bits one that has decided.
    """
    series, bands, levels = {}, {}, {}
    for which in epochs_of(history)[-1].get("arch", {}):
        at, weights = _arch_over_time(history, which)
        p = weights / weights.sum(axis=2, keepdims=True)
        entropy = -(p * np.log2(np.where(p > 0, p, 1.0))).sum(axis=2)
        name = TITLES.get(which, which)
        series[name] = entropy.mean(axis=1)
        bands[name] = (entropy.min(axis=1), entropy.max(axis=1))
        levels[f"uniform over {p.shape[2]}"] = float(np.log2(p.shape[2]))
    if not series:
        raise ValueError('this history holds no matrices "arch"; was it a search?')
    label = "entropy of an edge (bits)"
    return lines(series, at, title=title, xlabel="epoch", ylabel=label, bands=bands, levels=levels)


def _curves() -> tuple[Any, Any, Any]:
    """A figure with axes for the loss and for the accuracy."""
    made, (left, right) = figure(1, 2, size=(13, 5))
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.set(title="Loss", xlabel="epoch", ylabel="cross-entropy (nats)")
    right.set(title="Accuracy", xlabel="epoch", ylabel="accuracy (%)")
    return made, left, right


@styled()
def no_curves_yet(title: str) -> Picture:
    """Draw the axes of `learning_curves` before the first epoch has ended."""
    made, left, right = _curves()
    for axes in (left, right):
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
        axes.text(0.5, 0.5, "the first point comes\nwith the end of epoch 1", ha="center", va="center")
    made.suptitle(title)
    return finish(made, f"{sentence(title)} No epoch has ended yet.")


@styled()
def learning_curves(history: Any, title: str = "Learning curves") -> Picture:
    """Draw loss and accuracy over the epochs: training broken, validation solid; one colour for each history.

    `history` is one, or a dict name -> history. Accuracies are fractions in the history and per cent in the
    plot.
    """
    histories = history if isinstance(history, Mapping) else {"": history}
    made, left, right = _curves()
    said = []
    for (name, one), color in zip(histories.items(), cycle(OKABE_ITO), strict=False):
        epochs = epochs_of(one)
        at = array([epoch["epoch"] for epoch in epochs])
        for part, word, dash in (("train", "training", DASHES[1]), ("valid", "validation", DASHES[0])):
            for axes, what, scale in ((left, "loss", 1.0), (right, "acc1", 100.0)):
                if all(f"{part}_{what}" in epoch for epoch in epochs):
                    y = scale * array([epoch[f"{part}_{what}"] for epoch in epochs])
                    label = f"{name} {word}".strip()
                    axes.plot(at, y, ls=dash, color=color, label=label, marker="o" if len(at) <= 15 else None)
                    said.append(describe(f"{label} {'loss' if what == 'loss' else 'accuracy (%)'}", at, y))
    handles, labels = left.get_legend_handles_labels()
    if not said:
        raise ValueError('this history holds none of "train_loss", "valid_loss", "train_acc1", "valid_acc1"')
    if len(labels) <= 4:
        left.legend()
    else:
        made.legend(handles, labels, loc="outside right center", handlelength=2.6)
    made.suptitle(title)
    return finish(made, f"{sentence(title)} {' '.join(said)}")


@styled()
def discretisation_gap(
    epochs: Numbers, supernet: Numbers, derived: Numbers, title: str = "The discretisation gap"
) -> Picture:
    """Draw the accuracy (fractions) of the supernet, and of its weights with a derived cell's edges alone."""
    at, whole, cut = array(epochs), 100 * array(supernet), 100 * array(derived)
    made, axes = figure()
    axes.fill_between(at, cut, whole, color="#999999", alpha=0.3, lw=0, label="gap")
    axes.plot(at, whole, color=OKABE_ITO[0], marker="o", label="supernet, all operations mixed")
    axes.plot(at, cut, color=OKABE_ITO[1], ls=DASHES[1], marker="s", label="same weights, derived cell only")
    axes.set(title=title, xlabel="epoch", ylabel="validation accuracy (%)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    legend(axes)
    gap = whole[-1] - cut[-1]
    said = f"{describe('Supernet', at, whole)} {describe('Derived cell', at, cut)}"
    words = f"Validation accuracy (%) against epoch. {said} The gap ends at {gap:.3g} points."
    return finish(made, f"{sentence(title)} {words}")


@styled()
def search_until(history: Any, epoch: int, which: str = "normal", ops: Sequence[str] = PRIMITIVES) -> Picture:
    """Draw a search from its first epoch to `epoch`: mean weight of each operation, entropy of the rows, gap.

    The axes are those of the whole search, so that pictures of two epochs can be compared. The history has
    "supernet_acc1" and "derived_acc1", as `search.gap_callback` leaves them. Raises ValueError for an epoch
    that is not there.
    """
    at, weights = _arch_over_time(history, which)
    if epoch not in at:
        raise ValueError(f"there is no epoch {epoch}; the history has {at[0]:.0f} to {at[-1]:.0f}")
    now = int((at <= epoch).sum())
    means, p = weights.mean(axis=1), weights / weights.sum(axis=2, keepdims=True)
    entropy = -(p * np.log2(np.where(p > 0, p, 1.0))).sum(axis=2).mean(axis=1)
    whole, cut = (100 * array([e[f"{n}_acc1"] for e in epochs_of(history)]) for n in ("supernet", "derived"))
    made, (left, middle, right) = figure(1, 3, size=(12, 4.8))
    _weights(left, at[:now], means[:now], ops)
    left.set(title="Mean weight of an operation", ylabel="weight", ylim=(0, 1.1 * means.max()))
    made.legend(*left.get_legend_handles_labels(), fontsize=13, ncols=4, loc="outside lower center")
    middle.plot(at[:now], entropy[:now], color=OKABE_ITO[0], marker="o")
    top = float(np.log2(len(ops)))
    middle.set(title="Entropy of a row", ylabel="bits", ylim=(entropy.min() - 0.05 * top, 1.02 * top))
    right.plot(at[:now], whole[:now], color=OKABE_ITO[0], marker="o", label="supernet")
    right.plot(at[:now], cut[:now], color=OKABE_ITO[1], ls=DASHES[1], marker="s", label="derived cell")
    right.set(title="Before and after the cut", ylabel="accuracy (%)")
    right.set(ylim=(0, 1.1 * max(whole.max(), cut.max())))
    right.legend(fontsize=12)
    for axes in (left, middle, right):
        axes.set(xlabel="epoch", xlim=(at[0] - 0.5, at[-1] + 0.5))
        axes.title.set_fontsize(15)
        axes.xaxis.get_major_locator().set_params(integer=True)
    said = ", ".join(f"{op} {mean:.3f}" for op, mean in zip(ops, means[now - 1], strict=True))
    return finish(
        made,
        f"Epoch {epoch}, {TITLES.get(which, which)}. Mean weights: {said}. Entropy of a row "
        f"{entropy[now - 1]:.2f} bits. Supernet {whole[now - 1]:.1f} %, derived cell {cut[now - 1]:.1f} %.",
    )
