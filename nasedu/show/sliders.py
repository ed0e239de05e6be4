"""Explorers: a picture with sliders, each around a pure function from the sliders' values to a picture.

    explore(draw, xi=Slider([0, 0.1, 0.5]))   your own: draw(xi=0.1) gives a Picture or a CellDrawing
    xi_explorer()                             notebook 02: the toy problem's path for every xi
    temperature_explorer(logits)              notebook 04: softmax over operations, colder and hotter
    epoch_scrubber(history, "normal")         notebook 07: the derived cell and its matrix at each epoch
    search_scrubber(history, "normal")        notebook 06: the cell, and the curves of the search so far
    LiveCurves()                              notebook 06: a trainer's callback, curves that grow with it

With a kernel behind the page the sliders move the picture. The same cell leaves the picture of the first
state for when there is none: in a notebook that is opened again, on a page, in a deck. Where NASEDU_FRAMES is
1, as in `tools/notebooks.py execute`, it leaves a flip-book, whose sliders move without a kernel.
"""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

if TYPE_CHECKING:
    import ipywidgets

from nasedu.show.cells import CellDrawing, draw_cell
from nasedu.show.flipbook import flipbook, said, still
from nasedu.show.histories import alpha_heatmap, epochs_of, learning_curves, no_curves_yet, search_until
from nasedu.show.lessons import bilevel_paths, softmax_bars, toy_path
from nasedu.show.pictures import SHARP, Numbers, Picture, Shown, array, img, in_256_colors, png_bundle
from nasedu.space.genotype import Genotype
from nasedu.space.ops import PRIMITIVES

VIEW = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Slider:
    """A control with a stop at each of `values`, beginning at `start` (the first of them where not given)."""

    values: Sequence[Any]
    start: Any = None
    label: str = ""

    def __post_init__(self) -> None:
        if not len(self.values):
            raise ValueError("a slider needs one value or more")
        if self.start is None:
            object.__setattr__(self, "start", self.values[0])
        if self.start not in self.values:
            raise ValueError(f"a slider begins at one of its values {list(self.values)}, got {self.start!r}")


@dataclass(frozen=True)
class Stack:
    """Pictures one below the other, shown as one with the words of all."""

    parts: tuple[Shown, ...]
    width: int = 1000  # pixels on a page; a wider part is made smaller

    @property
    def words(self) -> str:
        """What the parts show."""
        return " ".join(part.words for part in self.parts)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on a page, in pixels."""
        return self.width, sum(height for _, height in self._sizes())

    @cached_property
    def png(self) -> bytes:
        """The parts on one white sheet, as PNG bytes."""
        sheet = Image.new("RGB", (round(SHARP * self.size[0]), round(SHARP * self.size[1])), "white")
        top = 0
        for part, (width, height) in zip(self.parts, self._sizes(), strict=True):
            image = Image.open(io.BytesIO(part.png)).convert("RGB")
            image = image.resize((round(SHARP * width), round(SHARP * height)), Image.Resampling.LANCZOS)
            sheet.paste(image, ((sheet.width - image.width) // 2, round(SHARP * top)))
            top += height
        return in_256_colors(sheet)

    @property
    def letters(self) -> float:
        """Size of the smallest text on a page, in pixels."""
        return min(
            part.letters * width / part.size[0]
            for part, (width, _) in zip(self.parts, self._sizes(), strict=True)
        )

    def _sizes(self) -> list[tuple[int, int]]:
        scales = [min(1.0, self.width / part.size[0]) for part in self.parts]
        return [
            (round(scale * part.size[0]), round(scale * part.size[1]))
            for scale, part in zip(scales, self.parts, strict=True)
        ]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict, dict]:
        return png_bundle(self)

    def __repr__(self) -> str:
        return self.words


@dataclass(frozen=True)
class Explorer:
    """What `explore` gives: `.draw(**state)` is the pure function, `.state` where the sliders begin."""

    draw: Callable[..., Shown]
    controls: Mapping[str, Slider]

    @property
    def state(self) -> dict[str, Any]:
        """The sliders' first values, by name."""
        return {name: control.start for name, control in self.controls.items()}

    @cached_property
    def picture(self) -> Shown:
        """The picture of the first state."""
        return self.draw(**self.state)

    def widget(self) -> "ipywidgets.VBox":
        """Build the live sliders with the picture below; `draw`'s errors appear under it."""
        import ipywidgets  # here, since pictures need none of it

        view, errors = ipywidgets.HTML(_html(self.picture)), ipywidgets.Output()
        sliders = {name: _slider(name, control) for name, control in self.controls.items()}

        @errors.capture(clear_output=True)
        def redraw(_: object) -> None:
            view.value = _html(self.draw(**{name: slider.value for name, slider in sliders.items()}))

        for slider in sliders.values():
            slider.observe(redraw, "value")
        box = ipywidgets.VBox([*sliders.values(), view, errors])
        box.add_class("nasedu-live")  # the flip-book hides where it sees this
        return box

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict, dict]:
        data, metadata = png_bundle(self.picture)
        if os.environ.get("NASEDU_FRAMES") == "1":
            # The book holds the first picture too; once is enough for a file.
            return {"text/html": flipbook(self), "text/plain": data["text/plain"]}, {}
        return {**data, "text/html": still(self)}, metadata

    def _ipython_display_(self) -> None:
        """Show the live sliders, then what stays when they are gone; a page shows one of the two."""
        from IPython.display import display

        live = self.widget()._repr_mimebundle_()
        display({VIEW: live[VIEW], "text/plain": self.picture.words}, raw=True)
        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)

    def __repr__(self) -> str:
        return self.picture.words


def explore(draw: Callable[..., Shown], **controls: Slider) -> Explorer:
    """Put sliders before a pure function: `draw(name=value, ...)` with one keyword for each control."""
    return Explorer(draw, controls)


def _slider(name: str, control: Slider) -> "ipywidgets.SelectionSlider":
    import ipywidgets

    options = [(said(value), value) for value in control.values]
    return ipywidgets.SelectionSlider(
        options=options,
        value=control.start,
        description=control.label or name,
        layout=ipywidgets.Layout(width="95%", max_width="700px"),
        style={"description_width": "8em"},
    )


def _html(shown: Shown) -> str:
    if isinstance(shown, Stack):
        return "".join(map(_html, shown.parts))
    if isinstance(shown, CellDrawing):
        return shown.svg
    return img(shown)


def xi_explorer(
    values: Sequence[float] = (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1), start: float = 0
) -> Explorer:
    """Explore the toy problem of notebook 02: where does it end? At a = w = 2 / (1 + 2 xi)."""

    def draw(xi: float) -> Picture:
        title = f"ξ = {xi:g}: the fixed point is a = w = {2 / (1 + 2 * xi):.3g}"
        return bilevel_paths({f"path for ξ = {xi:g}": toy_path(xi)}, title)

    return explore(draw, xi=Slider(values, start, "ξ"))


def temperature_explorer(
    logits: Numbers,
    names: Sequence[str] = PRIMITIVES,
    values: Sequence[float] = (0.1, 0.2, 0.5, 1, 2, 5, 10),
    start: float = 1,
) -> Explorer:
    """Explore softmax(logits / temperature), as a mixed edge weighs its operations (notebook 04)."""
    fixed = array(logits).copy()
    return explore(
        lambda temperature: softmax_bars(fixed, temperature, names),
        temperature=Slider(values, start, "temperature"),
    )


def epoch_scrubber(history: Any, which: str = "normal", ops: Sequence[str] = PRIMITIVES) -> Explorer:
    """Scrub through a search (notebook 07): at each epoch the cell the DARTS rule derives, and the matrix.

    `history` is a History, or its epochs; it begins at the last of them.
    """
    archs = _archs(history)

    # One scale for all epochs, so that a colour means the same wherever the slider stands.
    top = max(float(arch[which].max()) for arch in archs.values())

    def draw(epoch: int) -> Stack:
        matrix = alpha_heatmap(archs[epoch], which, ops, title=f"Weights at epoch {epoch}", top=top)
        return Stack((_derived(archs[epoch], epoch, which, ops), matrix))

    return explore(draw, epoch=Slider(list(archs), list(archs)[-1]))


def search_scrubber(history: Any, which: str = "normal", ops: Sequence[str] = PRIMITIVES) -> Explorer:
    """Scrub through a search (notebook 06): the cell of each epoch, and `search_until` that epoch."""
    archs = _archs(history)

    def draw(epoch: int) -> Stack:
        cell = _derived(archs[epoch], epoch, which, ops)
        return Stack((cell, search_until(history, epoch, which, ops)))

    return explore(draw, epoch=Slider(list(archs), list(archs)[-1]))


def _archs(history: Any) -> dict[int, dict[str, torch.Tensor]]:
    return {
        epoch["epoch"]: {label: torch.tensor(matrix) for label, matrix in epoch["arch"].items()}
        for epoch in epochs_of(history)
    }


def _derived(arch: Mapping[str, torch.Tensor], epoch: int, which: str, ops: Sequence[str]) -> CellDrawing:
    cell = "Normal cell" if which == "normal" else "Reduction cell"
    return draw_cell(Genotype.derive(arch, ops), which, title=f"{cell} derived at epoch {epoch}")


class LiveCurves:
    """Learning curves that grow while a trainer works: show it, and give it to the trainer as a callback.

    What is shown is a picture that is replaced after each epoch, so a notebook that is saved keeps the last.
    """

    def __init__(self, title: str = "Learning curves") -> None:
        self.title = title
        self.place: Any = None  # on the page, from when it is shown

    def __call__(self, trainer: Any) -> None:
        """Draw the trainer's history so far, where it is shown."""
        if self.place is not None:
            data, metadata = png_bundle(learning_curves(trainer.history, self.title))
            self.place.update(data, metadata=metadata, raw=True)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        data, metadata = png_bundle(no_curves_yet(self.title))
        self.place = display(data, metadata=metadata, raw=True, display_id=True)
