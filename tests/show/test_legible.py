"""Text in a picture, as large as a slide of 1280 x 720 shows it: the last row can read it."""

import matplotlib.text
import pytest
import torch

from nasedu import show
from nasedu.space import PUBLISHED

WIDE, HIGH = 1168, 590  # pixels that a deck gives to a picture under a title
LEAST = 18  # pixels


def smallest(picture):
    """Pixels of the smallest text of a picture on a slide, and that text."""
    picture.png  # noqa: B018  only what has been drawn has its ticks
    width, height = picture.figure.get_size_inches()
    pixels = min(WIDE / width, HIGH / height) / 72
    texts = [
        (text.get_size() * pixels, text.get_text())
        for axes in [picture.figure, *picture.figure.axes]
        if axes.get_visible()
        for text in axes.findobj(matplotlib.text.Text)
        if text.get_text() and text.get_visible() and (text.axes is None or text.axes.get_visible())
    ]
    return min(texts)


def history():
    dice = torch.Generator().manual_seed(0)
    return [
        {"epoch": e, "arch": {"normal": torch.rand(14, 8, generator=dice).softmax(1)}} for e in range(1, 11)
    ]


PICTURES = {
    "a cell's matrix": lambda: show.alpha_heatmap(PUBLISHED["DARTS_V2"].arch(), "normal"),
    "both matrices": lambda: show.alpha_heatmap(PUBLISHED["DARTS_V2"].arch()),
    "all edges over time": lambda: show.alpha_over_time(history()),
    "operations": lambda: show.operation_pictures(torch.rand(3, 16, 16)),
    "twelve groups": lambda: show.compare({str(i): [0.1 * i, 0.2] for i in range(12)}, title="t", label="l"),
    "two groups": lambda: show.compare({"a": [0.1, 0.2], "b": [0.1, 0.3]}, title="t", label="l"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_text_in_a_picture_can_be_read_from_the_last_row(name):
    size, text = smallest(PICTURES[name]())
    assert size >= LEAST, f"{text!r} has {size:.1f} px on a slide"


def test_rows_have_the_names_that_are_given():
    picture = show.alpha_heatmap({"one": torch.eye(2), "two": torch.eye(2)}, ops=("a", "b"), names=("x", "y"))
    assert "two, largest weight of each edge: x: a 1.00, y: b 1.00." in picture.words
