"""Text in a picture, as large as a slide of 1280 x 720 shows it: the last row can read it."""

from itertools import pairwise

import pytest
import torch

from nasedu import show
from nasedu.show.pictures import LEGIBLE, on_a_slide
from nasedu.space import PUBLISHED


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
    assert on_a_slide(PICTURES[name]()) >= LEGIBLE - 0.05


@pytest.mark.parametrize("size", [(10, 5), (14, 6), (6, 9)])
def test_finish_makes_small_text_larger_and_leaves_the_rest(size):
    made, axes = show.figure(size=size)
    small = axes.text(0.5, 0.5, "small", size=6)
    large = axes.set_title("large", size=40)
    hidden = axes.text(0.5, 0.2, "hidden", size=6, visible=False)
    axes.tick_params(labelsize=5)
    picture = show.finish(made, "Words of two sizes.")
    assert on_a_slide(picture) == pytest.approx(LEGIBLE)
    label = axes.xaxis.get_major_ticks()[0].label1
    assert small.get_size() == label.get_size() > 14 and large.get_size() == 40 and hidden.get_size() == 6
    axes.text(0.1, 0.1, "later", size=small.get_size() / 2)
    assert on_a_slide(picture) == pytest.approx(LEGIBLE / 2)


def test_a_picture_without_text_is_legible():
    made, axes = show.figure()
    axes.axis("off")
    axes.tick_params(labelsize=5)
    assert show.finish(made, "Nothing to read.").letters == float("inf")


def test_rows_have_the_names_that_are_given():
    picture = show.alpha_heatmap({"one": torch.eye(2), "two": torch.eye(2)}, ops=("a", "b"), names=("x", "y"))
    assert "two, largest weight of each edge: x: a 1.00, y: b 1.00." in picture.words


def test_a_label_of_two_words_takes_two_lines_and_meets_no_other():
    blank = torch.zeros(10, 3, 8, 8, dtype=torch.uint8)
    picture = show.images(blank, ["coarse stripes", "disc"] * 5)
    picture.png  # noqa: B018  lays it out
    boxes = [axes.title.get_window_extent() for axes in picture.figure.axes]
    assert picture.figure.axes[0].get_title() == "coarse\nstripes"
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
