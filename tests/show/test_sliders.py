"""Explorers: pure draw functions behind sliders, which leave the same picture wherever there is no kernel."""

import io

import ipywidgets
import nbformat
import pytest
import torch
from PIL import Image

from nasedu.show import sliders
from nasedu.show.cells import draw_cell
from nasedu.show.histories import search_until
from nasedu.show.pictures import Picture, lines
from nasedu.show.sliders import VIEW, Slider, Stack, explore
from nasedu.space.genotype import Genotype
from nasedu.space.ops import PRIMITIVES


def history(n_epochs: int = 3) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    logits = {label: torch.randn(14, 8, generator=generator) for label in ("normal", "reduce")}
    return [
        {"epoch": epoch, "arch": {k: torch.softmax(v * epoch, 1).tolist() for k, v in logits.items()}}
        for epoch in range(1, n_epochs + 1)
    ]


def with_gap(epochs: list[dict]) -> list[dict]:
    return [{**line, "supernet_acc1": 0.1 * line["epoch"], "derived_acc1": 0.1} for line in epochs]


EXPLORERS = {
    "xi": lambda: sliders.xi_explorer(),
    "temperature": lambda: sliders.temperature_explorer(torch.arange(8.0)),
    "epoch": lambda: sliders.epoch_scrubber(history()),
    "search": lambda: sliders.search_scrubber(with_gap(history())),
}


def parts(widget: ipywidgets.VBox) -> tuple[list[ipywidgets.SelectionSlider], ipywidgets.HTML]:
    *sliders, view, _ = widget.children
    return sliders, view


@pytest.mark.parametrize("name", EXPLORERS)
def test_an_explorer_leaves_the_picture_of_its_first_state(name):
    explorer = EXPLORERS[name]()
    data, metadata = explorer._repr_mimebundle_()
    assert set(data) == {"image/png", "text/html", "text/plain"}
    first = explorer.draw(**explorer.state)
    assert data["text/plain"] == metadata["image/png"]["alt"] == repr(explorer) == first.words
    again, _ = EXPLORERS[name]()._repr_mimebundle_()
    assert again["image/png"] == data["image/png"], "the same cell leaves the same picture"


@pytest.mark.parametrize("name", EXPLORERS)
def test_the_sliders_move_the_picture_and_nothing_else(name):
    explorer = EXPLORERS[name]()
    (slider,), view = parts(explorer.widget())
    ((control, start),) = explorer.state.items()
    assert slider.value == start
    before = view.value
    other = next(value for value in explorer.controls[control].values if value != slider.value)
    slider.value = other
    assert view.value == sliders._html(explorer.draw(**{control: other})) != before
    slider.value = start
    assert view.value == before, "draw is a pure function: the way back gives the first picture"


def test_xi_says_its_fixed_point():
    explorer = sliders.xi_explorer()
    assert explorer.draw(xi=0.5).words.startswith("ξ = 0.5: the fixed point is a = w = 1.")
    assert "to (1.00, 1.00)" in explorer.draw(xi=0.5).words
    assert "to (2.00, 2.00)" in explorer.draw(xi=0).words


def test_the_scrubber_derives_the_cell_of_its_epoch():
    epochs = history()
    explorer = sliders.epoch_scrubber(epochs, "reduce")
    assert explorer.state == {"epoch": 3}
    arch = {label: torch.tensor(matrix) for label, matrix in epochs[1]["arch"].items()}
    derived = draw_cell(Genotype.derive(arch), "reduce", title="Reduction cell derived at epoch 2")
    stack = explorer.draw(epoch=2)
    assert stack.parts[0].svg == derived.svg
    assert stack.words.startswith(derived.words)
    scales = {
        float(explorer.draw(epoch=e).parts[1].figure.axes[0].images[0].get_clim()[1]) for e in (1, 2, 3)
    }
    assert len(scales) == 1, "a colour must mean the same at every epoch"


def test_the_replay_shows_a_search_until_its_epoch_and_not_further():
    epochs = with_gap(history())
    explorer = sliders.search_scrubber(epochs)
    cell, curves = explorer.draw(epoch=2).parts
    assert cell.words.startswith("Normal cell derived at epoch 2.")
    assert all(list(line.get_xdata()) == [1, 2] for axes in curves.figure.axes for line in axes.lines)
    arch = torch.tensor(epochs[1]["arch"]["normal"])  # (14, 8)
    bits = -(arch * arch.log2()).sum(dim=1).mean()
    assert f"none {arch[:, 0].mean():.3f}, " in curves.words
    assert f"Entropy of a row {bits:.2f} bits. Supernet 20.0 %, derived cell 10.0 %." in curves.words
    limits = [[axes.get_ylim() for axes in explorer.draw(epoch=e).parts[1].figure.axes] for e in (1, 3)]
    assert limits[0] == limits[1], "the axes stay where they are while the slider moves"
    with pytest.raises(ValueError, match="no epoch 4; the history has 1 to 3"):
        search_until(epochs, 4)


def test_temperature_keeps_the_logits_it_was_given():
    logits = torch.zeros(8, dtype=torch.float64)
    explorer = sliders.temperature_explorer(logits)
    before = explorer.draw(temperature=1).words
    logits[0] = 100.0
    assert explorer.draw(temperature=1).words == before
    assert all(name in before for name in PRIMITIVES)


def test_your_own_explorer_with_two_sliders():
    def draw(slope: float, name: str) -> Picture:
        return lines({name: [0, slope]}, title="T", xlabel="x", ylabel="y")

    explorer = explore(draw, slope=Slider([1, 2.5], 2.5, "how steep"), name=Slider(["one", "two"]))
    assert explorer.state == {"slope": 2.5, "name": "one"}
    (slope, name), view = parts(explorer.widget())
    assert slope.description == "how steep" and name.description == "name"
    name.value = "two"
    assert "two: from 0 to 2.5" in view.value


def test_a_slider_begins_at_one_of_its_values():
    with pytest.raises(ValueError, match=r"\[1, 2\], got 3"):
        Slider([1, 2], 3)
    with pytest.raises(ValueError, match="one value or more"):
        Slider([])


def test_a_stack_puts_its_parts_below_each_other():
    square = lines({"a": [0, 1]}, title="T", xlabel="x", ylabel="y")
    stack = Stack((square, square), width=440)
    assert stack.size == (440, 440)
    with Image.open(io.BytesIO(stack.png)) as image:
        upper, lower = image.crop((0, 0, 660, 330)).tobytes(), image.crop((0, 330, 660, 660)).tobytes()
    assert upper == lower and len(set(upper)) > 1
    assert stack.words == f"{square.words} {square.words}"


def test_live_curves_show_themselves_at_once_and_redraw_in_place(monkeypatch):
    import IPython.display

    class Trainer:
        history = [{"epoch": 1, "train_loss": 1.0}]

    class Place:
        def update(self, data, metadata, raw):
            shown.append(data)

    def display(data, metadata, raw, display_id):
        assert raw and display_id
        shown.append(data)
        return Place()

    shown = []
    monkeypatch.setattr(IPython.display, "display", display)
    live, trainer = sliders.LiveCurves("Mine"), Trainer()
    live(trainer)  # nobody looks: nothing is drawn
    assert shown == []
    live._ipython_display_()
    assert shown[0]["text/plain"] == "Mine. No epoch has ended yet."
    live(trainer)
    trainer.history = [*trainer.history, {"epoch": 2, "train_loss": 0.5}]
    live(trainer)
    pictures = [data["image/png"] for data in shown]
    assert len(set(pictures)) == 3 and "training loss" in shown[2]["text/plain"]


def test_a_page_without_a_kernel_shows_the_picture():
    nbconvert = pytest.importorskip("nbconvert")
    data, metadata = EXPLORERS["xi"]()._repr_mimebundle_()
    output = nbformat.v4.new_output("execute_result", data, metadata=metadata, execution_count=1)
    cell = nbformat.v4.new_code_cell("widgets.xi_explorer()", outputs=[output], execution_count=1)
    page, _ = nbconvert.HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert f"data:image/png;base64,{data['image/png'].strip()[:100]}" in page
    assert VIEW not in page
