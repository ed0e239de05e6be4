"""Pictures of single ideas: what operations do to an image, and the toy problem of notebook 02.

    operation_pictures(image)                    what each candidate operation makes of an image
    softmax_bars(logits, temperature=0.5)        the weights that a mixed edge makes of its logits
    bilevel_paths({"xi = 0": toy_path(0.0)})     a search in the plane of architecture and weight

`nasedu.plots` has them too.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from nasedu.show.cells import op_color
from nasedu.show.pictures import (
    DASHES,
    OKABE_ITO,
    Numbers,
    Picture,
    array,
    figure,
    finish,
    picture,
    sentence,
    styled,
)
from nasedu.space.ops import PRIMITIVES, make_op


@styled()
def operation_pictures(
    image: Tensor,
    ops: Sequence[str] | Mapping[str, nn.Module] = PRIMITIVES,
    seed: int = 0,
    title: str = "One image through each candidate operation",
) -> Picture:
    """Draw what each operation makes of `image`, floats (3, H, W): the mean over the channels of its output.

    `ops` are names, made with random weights from `seed`, or modules by name. Each panel has its own scale.
    Raises ValueError unless there is one image.
    """
    if image.ndim != 3:
        raise ValueError(f"wanted one image of shape (channels, H, W), got {tuple(image.shape)}")
    if not isinstance(ops, Mapping):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            ops = {name: make_op(name, image.shape[0]) for name in ops}
    columns = -(-(len(ops) + 1) // 2)
    made, grid = figure(2, columns, size=(2.6 * columns, 6), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    picture(grid[0, 0], image if image.shape[0] == 3 else image.mean(0))
    grid[0, 0].set_title("the image", pad=12)
    said = []
    for axes, (name, op) in zip(grid.flat[1:], ops.items(), strict=False):
        with torch.no_grad():
            out = op(image[None])[0].mean(0)
        low, high = float(out.min()), float(out.max())
        # A map of one value has no scale of its own: without limits matplotlib would make one up.
        picture(axes, out, **({"vmin": low - 1, "vmax": high + 1} if low == high else {}))
        axes.set_title(name, pad=12)
        frame = Rectangle((0, 0), 1, 1, fill=False, ec=op_color(name), lw=6, clip_on=False)
        axes.add_patch(frame).set_transform(axes.transAxes)
        said.append(f"{name}: all {low:.2f}" if low == high else f"{name}: {low:.2f} to {high:.2f}")
    made.suptitle(title)
    size = "x".join(map(str, out.shape))
    return finish(
        made, f"{sentence(title)} Maps of {size} pixels, mean over channels, values {'; '.join(said)}."
    )


@styled()
def softmax_bars(
    logits: Numbers, temperature: float = 1.0, names: Sequence[str] = PRIMITIVES, title: str = ""
) -> Picture:
    """Draw softmax(logits / temperature), one bar for each name, and mark how much an equal share would be.

    Raises ValueError for a temperature that is not positive, or where logits and names don't match.
    """
    values = array(logits)
    if values.shape != (len(names),):
        raise ValueError(
            f"wanted {len(names)} logits, one for each of {', '.join(names)}; got {values.shape}"
        )
    if not temperature > 0:
        raise ValueError(f"a temperature is larger than 0, got {temperature}")
    scaled = (values - values.max()) / temperature
    weights = np.exp(scaled) / np.exp(scaled).sum()
    title = title or f"Softmax of the logits at temperature {temperature:g}"
    made, axes = figure(size=(10, 1.4 + 0.5 * len(names)))
    axes.barh(range(len(names)), weights, zorder=2, color=[op_color(name) for name in names])
    for row, weight in enumerate(weights):
        ground = {"fc": "white", "ec": "none", "pad": 1.5}
        axes.text(weight + 0.012, row, f"{weight:.2f}", va="center", size=14, bbox=ground)
    axes.axvline(1 / len(names), color="#555555", ls=":", lw=2)
    axes.set_yticks(range(len(names)), names)
    axes.grid(False, axis="y")
    axes.set(title=title, xlabel="weight", xlim=(0, 1.08), ylim=(len(names) - 0.4, -0.6))
    said = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, weights, strict=True))
    return finish(made, f"Bars. {sentence(title)} {said}; an equal share is {1 / len(names):.3g}.")


def toy_path(
    xi: float, steps: int = 60, lr: float = 0.2, start: tuple[float, float] = (2.0, -2.0)
) -> list[tuple[float, float]]:
    """Solve the toy problem by gradient steps in turn, and give the points (a, w) it goes through.

    L_train = (w - a)^2, L_val = a w - 2 a + 1. A step in a takes the unrolled gradient w' - 2 + 2 xi a with
    w' = w - 2 xi (w - a); the fixed point is a = w = 2 / (1 + 2 xi). DARTS, arXiv:1806.09055, figure 2.
    """
    a, w = start
    path = [(a, w)]
    for _ in range(steps):
        a -= lr * (w - 2 * xi * (w - a) - 2 + 2 * xi * a)
        w -= lr * 2 * (w - a)
        path.append((a, w))
    return path


@styled()
def bilevel_paths(
    paths: Mapping[str, Sequence[tuple[float, float]]],
    title: str = "The toy problem, solved by steps in turn",
    limit: float = 3.7,
) -> Picture:
    """Draw paths [(a, w), ...] of the toy problem over contours of L_val = a w - 2 a + 1, with w*(a) = a."""
    made, axes = figure(size=(10, 7))
    a, w = np.linspace(-0.5, limit, 200), np.linspace(-2.2, limit, 200)
    value = np.outer(w, a) - 2 * a + 1
    contours = axes.contourf(a, w, value, levels=np.arange(-5, 6.1, 0.5), extend="both")
    made.colorbar(contours, label="validation loss  a w − 2 a + 1")
    axes.plot([-0.5, limit], [-0.5, limit], color="white", lw=4)
    axes.plot([-0.5, limit], [-0.5, limit], color="black", lw=1.8, label="best response w*(a) = a")
    said = []
    for (name, path), color, dash in zip(paths.items(), cycle(OKABE_ITO[1:]), cycle(DASHES), strict=False):
        x, y = np.array(path).T
        axes.plot(x, y, color="white", lw=5)
        axes.plot(x, y, color=color, ls=dash, marker="o", ms=4.5, lw=2.4, label=name)
        axes.plot(x[-1], y[-1], "s", ms=11, color=color, mec="white", mew=1.5, zorder=4)
        ends = f"from ({x[0]:.2f}, {y[0]:.2f}) to ({x[-1]:.2f}, {y[-1]:.2f})"
        said.append(f"{name}: {ends} in {len(x) - 1} steps.")
    axes.plot(1, 1, "*", ms=30, color="white", mec="black", label="optimum, a = w = 1", ls="none", zorder=3)
    axes.set(title=title, xlabel="architecture a", ylabel="weight w")
    axes.set(xlim=(-0.5, limit), ylim=(-2.2, limit))
    axes.grid(False)
    axes.legend(loc="upper left", frameon=True, framealpha=0.9)
    plane = "Plane of architecture a and weight w: contours of the validation loss, the line w*(a) = a."
    return finish(made, f"{sentence(title)} {plane} The optimum is a = w = 1. {' '.join(said)}")
