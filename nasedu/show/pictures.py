"""What every plot of the course shares: one look, and words beside each picture.

    figure, axes = show.figure(1, 2)     a matplotlib Figure in the course's look, unknown to pyplot
    show.finish(figure, "what is seen")    a `Picture`: Jupyter shows it, who can't see it gets the words
    show.lines({"train": y, "validation": z}, title=..., xlabel=..., ylabel=...)
    show.compare({"DARTS": [93.1, 92.8], "random": [92.9, 93.0]}, title=..., label=...)
    show.images(dataset)                 a contact sheet

A picture holds no date and no version: the same data give the same bytes. Colours are Okabe and Ito's, which
colour-blind people can tell apart, and viridis; letters can be read from the back of a lecture hall.
"""

import base64
import html
import io
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import numpy as np
import torch
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import Tensor

from nasedu.files import whole

Numbers = Sequence[float] | Tensor | np.ndarray

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a picture looks the same on every machine
    "font.size": 15,
    "axes.titlesize": 18,
    "axes.labelsize": 16,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.35,
    "axes.prop_cycle": cycler(color=OKABE_ITO),
    "lines.linewidth": 2.8,
    "lines.markersize": 8,
    "legend.frameon": False,
    "figure.titlesize": 20,
    "image.cmap": "viridis",
    "image.interpolation": "nearest",
}
SHOWN_DPI = 88  # pixels per inch of a figure on a page
SHARP = 1.5  # pixels in the file for one on the page
ON_A_SLIDE = 1168, 500  # pixels that a deck has at least for a picture, under a title and a slider
LEGIBLE = 20  # pixels of a letter on a slide that the last row of a lecture hall can read


@dataclass(frozen=True)
class Picture:
    """A matplotlib figure with words that say what it shows."""

    figure: Figure
    words: str
    photos: bool = False  # more than 256 colours, for which the file is three times as large

    @cached_property
    def png(self) -> bytes:
        """The image as PNG bytes, without date or version."""
        return to_png(self.figure, SHARP * SHOWN_DPI, photos=self.photos)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to `path`, whole or not at all; it must end in .png, .svg or .pdf."""
        path = Path(path)
        metadata: dict[str, dict[str, str | None]] = {
            ".png": {"Software": None, "Description": self.words},
            ".svg": {"Date": None, "Creator": None, "Description": self.words},
            ".pdf": {"CreationDate": None, "Creator": None, "Producer": None, "Subject": self.words},
        }
        if path.suffix not in metadata:
            raise ValueError(f"can't save a picture as {path.name!r}; end the name in .png, .svg or .pdf")
        with whole(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "nasedu"}):
            self.figure.savefig(
                temporary, format=path.suffix[1:], dpi=SHARP * SHOWN_DPI, metadata=metadata[path.suffix]
            )
        return path

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on a page, in pixels."""
        width, height = self.figure.get_size_inches()
        return round(SHOWN_DPI * width), round(SHOWN_DPI * height)

    @property
    def letters(self) -> float:
        """Size of the smallest text on a page, in pixels; indices in a formula are smaller."""
        self.png  # noqa: B018  only what has been drawn has its ticks
        points = min((float(text.get_fontsize()) for text in _texts(self.figure)), default=math.inf)
        return points / 72 * self.size[0] / self.figure.get_size_inches()[0]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict, dict]:
        return png_bundle(self)

    def __repr__(self) -> str:
        return self.words


def _texts(figure: Figure) -> list[Text]:
    """All text of a figure that is seen."""
    hidden = {
        text
        for axes in figure.axes
        for part in ([axes] if not axes.get_visible() else [] if axes.axison else [axes.xaxis, axes.yaxis])
        for text in part.findobj(Text)
    }
    return [
        text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in hidden
    ]


class Shown(Protocol):
    """What can be shown: PNG bytes, their width and height on a page in pixels, and words."""

    @property
    def words(self) -> str:
        """What it shows."""

    @property
    def png(self) -> bytes:
        """The image."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on a page, in pixels."""

    @property
    def letters(self) -> float:
        """Size of the smallest text on a page, in pixels."""


def on_a_slide(shown: Shown) -> float:
    """Pixels of the smallest text on a slide of 1280 x 720, whose room it fills."""
    return shown.letters * min(room / size for room, size in zip(ON_A_SLIDE, shown.size, strict=True))


def png_bundle(shown: Shown) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make what Jupyter stores of a picture, (data, metadata), with the words as its alternative text.

    The size of the smallest text goes along: a deck of slides is tested by it.
    """
    width, height = shown.size
    data = {"image/png": base64.b64encode(shown.png).decode(), "text/plain": shown.words}
    letters = round(min(shown.letters, 99), 2)
    return data, {"image/png": {"alt": shown.words, "width": width, "height": height, "letters": letters}}


def img(shown: Shown) -> str:
    """Make the HTML element of a picture, image and alternative text in it."""
    image, words = base64.b64encode(shown.png).decode(), html.escape(shown.words)
    look = f'width="{shown.size[0]}" style="max-width:100%"'
    return f'<img alt="{words}" src="data:image/png;base64,{image}" {look}>'


def to_png(figure: Figure, dpi: float, photos: bool = False) -> bytes:
    """Render a figure as PNG bytes, without date or version; in 256 colours unless it holds photos."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue() if photos else in_256_colors(Image.open(buffer))


def in_256_colors(image: Image.Image) -> bytes:
    """Write an image as PNG bytes a third of the size; areas keep their colours, soft edges lose shades."""
    buffer = io.BytesIO()
    reduced = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    reduced.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def styled() -> Any:
    """Give the course's look, as a context (`with styled(): ...`) or a decorator; it ends with that."""
    return matplotlib.rc_context(STYLE)  # type: ignore[arg-type, unused-ignore]


@styled()
def figure(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (10, 5), **kwargs: Any
) -> tuple[Figure, Any]:
    """Make a Figure of `size` inches and its axes (one or an array), in our look and unknown to pyplot."""
    made = Figure(figsize=size, layout="constrained")
    return made, made.subplots(rows, columns, **kwargs)


def finish(figure: Figure, words: str, photos: bool = False) -> Picture:
    """Join a figure and the words that say what it shows; pyplot, if it knows it, won't show it again.

    Text that would be too small on a slide of 1280 x 720 is made larger.
    """
    if not words.strip():
        raise ValueError("a picture needs words that say what it shows, for those who can't see it")
    width, height = figure.get_size_inches()
    least = LEGIBLE * 72 / min(ON_A_SLIDE[0] / width, ON_A_SLIDE[1] / height)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_tick_params(
                labelsize=max(least, float(axis.get_major_ticks(1)[0].label1.get_fontsize()))
            )
    for text in _texts(figure):
        text.set_fontsize(max(least, float(text.get_fontsize())))
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    return Picture(figure, words, photos)


def sentence(text: str) -> str:
    """End a title with a full stop, unless it ends a sentence already."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def array(values: Numbers) -> np.ndarray:
    """Turn numbers, a tensor too, into a float64 array."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    return np.asarray(values, dtype=np.float64)


@styled()
def lines(
    series: Mapping[str, Numbers],
    x: Numbers | Mapping[str, Numbers] | None = None,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    bands: Mapping[str, tuple[Numbers, Numbers]] | None = None,
    marks: Mapping[str, float] | None = None,
    levels: Mapping[str, float] | None = None,
    logx: bool = False,
    logy: bool = False,
    words: str = "",
    size: tuple[float, float] = (10, 5),
) -> Picture:
    """Draw named curves over x (0, 1, 2, ... where not given; or one x for each name).

    `bands` gives a curve a shaded (low, high), `marks` are vertical lines at an x, `levels` horizontal lines
    at a y. `words` goes before the description made from the numbers.
    """
    made, axes = figure(size=size)
    said, places = [words] if words else [], []
    for (name, values), dash, color in zip(series.items(), cycle(DASHES), cycle(OKABE_ITO), strict=False):
        y = array(values)
        given = x.get(name) if isinstance(x, Mapping) else x
        at = np.arange(len(y)) if given is None else array(given)
        places.append(at)
        marker = "o" if len(y) <= 30 else None
        axes.plot(at, y, label=name, ls=dash, color=color, marker=marker)
        if bands and name in bands:
            axes.fill_between(at, *map(array, bands[name]), alpha=0.2, color=color, lw=0)
        said.append(describe(name, at, y))
    for name, value in (marks or {}).items():
        axes.axvline(value, color="#555555", lw=1.5, ls=":")
        axes.text(value, 0.98, f" {name}", transform=axes.get_xaxis_transform(), va="top", size=13)
        said.append(f"{name}: at {xlabel} {value:.4g}.")
    for name, value in (levels or {}).items():
        axes.axhline(value, color="#555555", lw=1.5, ls=":")
        axes.text(0.995, value, name, transform=axes.get_yaxis_transform(), va="bottom", ha="right", size=13)
        said.append(f"{name}: at {ylabel} {value:.4g}.")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if logx:
        axes.set_xscale("log")
    elif all(float(place).is_integer() for place in np.concatenate(places)):
        axes.xaxis.get_major_locator().set_params(integer=True)
    if logy:
        axes.set_yscale("log")
    if len(series) > 1:
        legend(axes, outside=len(series) > 4)
    return finish(made, f"{sentence(title)} {ylabel} against {xlabel}. {' '.join(said)}")


def legend(axes: Any, outside: bool = False) -> None:
    """Put a legend in the axes where it hides least, or right of them."""
    if outside:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=2.6)
    else:
        axes.legend(loc="best", handlelength=2.6)


def describe(name: str, x: np.ndarray, y: np.ndarray) -> str:
    """Say a curve in a sentence: where it starts and ends, and where it is highest and lowest."""
    if not len(y):
        return f"{name}: empty."
    low, high = int(np.nanargmin(y)), int(np.nanargmax(y))
    return (
        f"{name}: from {y[0]:.3g} to {y[-1]:.3g}, lowest {y[low]:.3g} at {x[low]:.4g}, "
        f"highest {y[high]:.3g} at {x[high]:.4g}."
    )


@styled()
def compare(
    groups: Mapping[str, Numbers],
    spreads: Mapping[str, float] | None = None,
    *,
    title: str,
    label: str,
    words: str = "",
) -> Picture:
    """Draw one row for each name: every run as a dot, the mean as a line, one standard deviation as a bar.

    A group is a list of runs, or a single mean whose standard deviation is then in `spreads`. The axis does
    not start at zero, so dots are drawn and not bars.
    """
    made, axes = figure(size=(10, 1.5 + min(0.85 * len(groups), max(4.3, 0.42 * len(groups)))))
    said = [words] if words else []
    for row, ((name, values), color) in enumerate(zip(groups.items(), cycle(OKABE_ITO), strict=False)):
        runs = np.atleast_1d(array(values))
        spread = (spreads or {}).get(name, float(runs.std(ddof=1)) if len(runs) > 1 else 0.0)
        mean = float(runs.mean())
        axes.barh(row, 2 * spread, left=mean - spread, height=0.5, color=color, alpha=0.25)
        axes.plot([mean, mean], [row - 0.33, row + 0.33], color=color, lw=4)
        if len(runs) > 1:
            axes.plot(runs, np.full(len(runs), row), "o", color=color, ms=9, alpha=0.8, mec="white")
        count = f", {len(runs)} runs" if len(runs) > 1 else ""
        said.append(f"{name}: mean {mean:.4g}, standard deviation {spread:.2g}{count}.")
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.use_sticky_edges = False
    axes.margins(x=0.06)
    axes.grid(False, axis="y")
    axes.set(title=title, xlabel=label)
    return finish(made, f"{sentence(title)} {sentence(label)} {' '.join(said)}")


@styled()
def images(
    pictures: Any,
    labels: Sequence[str] | None = None,
    *,
    n: int = 20,
    columns: int = 10,
    title: str = "",
) -> Picture:
    """Draw the first `n` images, each with its label.

    `pictures` is an ImageDataset, whose classes are then the labels, or a tensor (N, 3, H, W), uint8 or
    floats in [0, 1]. Raises ValueError for another shape.
    """
    if hasattr(pictures, "images"):
        n = min(n, len(pictures.labels))
        labels = [pictures.classes[int(label)] for label in pictures.labels[:n]]
        title = title or f"{pictures.name}: the first {n} images"
        pictures = pictures.images
    pictures = pictures[:n].detach().cpu()
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or not len(pictures):
        raise ValueError(f"wanted images of shape (N, 3, H, W) or (N, 1, H, W), got {tuple(pictures.shape)}")
    rows = -(-len(pictures) // columns)
    # A label of two words takes two lines: side by side they would meet the next label.
    lines = max((label.count(" ") + 1 for label in labels[: len(pictures)]), default=0) if labels else 0
    size = (1.25 * columns, (1.3 + 0.25 * lines) * rows + 0.5)
    made, grid = figure(rows, columns, size, squeeze=False)
    for i, axes in enumerate(grid.flat):
        axes.axis("off")
        if i < len(pictures):
            picture(axes, pictures[i])
            if labels is not None:
                axes.set_title(labels[i].replace(" ", "\n"), size=13, pad=3)
    made.suptitle(title)
    height, width = pictures.shape[2:]
    said = f" They are: {', '.join(labels[: len(pictures)])}." if labels is not None else ""
    return finish(
        made,
        f"{sentence(title or 'Images')} {len(pictures)} images of {height}x{width} pixels.{said}",
        photos=True,
    )


def picture(axes: Any, image: Tensor, **kwargs: Any) -> None:
    """Show one image (3, H, W) in colour, or one map (H, W) or (1, H, W) in viridis."""
    image = image.detach().cpu()
    if image.ndim == 3 and image.shape[0] == 3:
        values = image.permute(1, 2, 0)
        axes.imshow(values.numpy() if image.dtype == torch.uint8 else values.clamp(0, 1).numpy())
    else:
        axes.imshow(image.reshape(image.shape[-2:]).numpy(), **kwargs)
    axes.axis("off")
