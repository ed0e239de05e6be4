"""The pictures that the course is built from say what they are given, and are plain SVG."""

import xml.etree.ElementTree as ElementTree

import pytest
import torch
from matplotlib.patches import Circle, FancyArrowPatch

from nasedu.show import building
from nasedu.show.graphs import PAGE
from nasedu.space.choice import ArchError
from nasedu.space.ops import PRIMITIVES

OPS = ("none", "max_pool_3x3", "skip_connect")
FIRST = torch.tensor([[0.0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 1, 0]])  # a cell of two nodes
SECOND = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]])
ALL = {
    "mixed edge": building.mixed_edge_picture,
    "build up": building.build_up,
    "two roads": building.two_roads,
    "loop": building.bilevel_loop,
    "children": lambda: building.children_of([{"normal": FIRST}, {"normal": SECOND}], OPS),
}


def arrows(axes) -> list[FancyArrowPatch]:
    return [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]


def letters(picture) -> str:
    return "\n".join(text.get_text() for axes in picture.figure.axes for text in axes.texts)


@pytest.mark.parametrize("name", ALL)
def test_each_is_svg_with_words_and_the_same_bytes_each_time(name):
    picture = ALL[name]()
    root = ElementTree.fromstring(picture.svg)
    assert root.get("role") == "img" and root.get("aria-label") == picture.words
    assert (int(root.get("width")), int(root.get("height"))) == picture.size
    assert picture.size[0] <= PAGE
    assert picture.svg == ALL[name]().svg
    data, metadata = picture._repr_mimebundle_()
    assert set(data) == {"image/svg+xml", "image/png", "text/plain"}
    assert metadata["image/png"]["alt"] == picture.words and len(picture.words.split()) > 25


def test_an_edge_shows_each_weight_as_a_number_and_as_a_width():
    row = torch.tensor([0.05, 0.1, 0.05, 0.1, 0.4, 0.2, 0.05, 0.05])
    picture = building.mixed_edge_picture(row)
    assert all(f"{weight:.2f} × {op}(x)" in picture.words for op, weight in zip(PRIMITIVES, row, strict=True))
    widths = [arrow.get_linewidth() for arrow in arrows(picture.figure.axes[0])[3::3]]
    assert widths.index(max(widths)) == 4 and max(widths) == pytest.approx(14 * 0.4)


def test_an_edge_wants_a_weight_for_each_operation():
    with pytest.raises(ArchError, match="wanted 8 weights"):
        building.mixed_edge_picture(torch.ones(7))
    with pytest.raises(ArchError, match="from 0 up"):
        building.mixed_edge_picture(torch.tensor([-1.0] + [0.0] * 7))


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_build_up_draws_as_many_steps_as_asked(steps):
    picture = building.build_up(steps)
    drawn = [axes.get_title(loc="left") for axes in picture.figure.axes if arrows(axes)]
    assert drawn == [f"{i + 1} · {building.STEPS[i]}" for i in range(steps)]
    assert f"{steps}. " in picture.words and f"{steps + 1}. " not in picture.words


def test_the_cell_of_the_build_up_has_every_edge():
    cell = building.build_up(3).figure.axes[2]
    assert len(arrows(cell)) == 14 * len(PRIMITIVES)
    assert sum(isinstance(patch, Circle) for patch in cell.patches) == 6
    with pytest.raises(ValueError, match="1, 2, 3 or 4"):
        building.build_up(5)


def test_the_loop_moves_alpha_on_validation_and_w_on_training_images():
    first, second = building.bilevel_loop(3), building.bilevel_loop(3, order=2)
    assert letters(first).count("α moves") == letters(first).count("w moves") == 3
    assert letters(first).count("batch") == 6 and letters(second).count("batch") == 9
    assert "thrown away" not in letters(first) + first.words
    assert letters(second).count("thrown away") == 3 and "thrown away" in second.words
    with pytest.raises(ValueError, match="order 1 or 2"):
        building.bilevel_loop(2, order=3)


def test_the_children_share_what_was_trained_before():
    picture = ALL["children"]()
    panels = picture.figure.axes
    wide = [sum(arrow.get_linewidth() > 2 for arrow in arrows(axes)) for axes in panels]
    assert wide == [4, 4] and [len(arrows(axes)) for axes in panels] == [10, 10]
    # 0→2 max_pool and 2→3 max_pool are in both: 4 + 4 - 2
    assert "4 of 10 trained so far" in letters(picture) and "6 of 10 trained so far" in letters(picture)
    assert (
        "Child 1 uses 0→2 max_pool_3x3; 1→2 skip_connect; 1→3 max_pool_3x3; 2→3 max_pool_3x3" in picture.words
    )


def test_children_must_be_matrices_of_one_cell():
    with pytest.raises(ArchError, match="of one cell"):
        building.children_of([{"normal": FIRST}, {"normal": FIRST[:3]}], OPS)
