"""Flip-books: an explorer's pictures in one piece of HTML, which needs neither a kernel nor a network."""

import base64
import html
import io
import json
import re

import pytest
from PIL import Image

from nasedu.show.cells import draw_cell, op_color
from nasedu.show.flipbook import BYTES, flipbook, packed, states, still, thinned, webp
from nasedu.show.pictures import Picture, lines
from nasedu.show.sliders import VIEW, Slider, Stack, explore
from nasedu.space.genotype import PUBLISHED


def draw(slope: float, name: str = "a") -> Picture:
    return lines({name: [0, slope]}, title=f"{slope} < {name}", xlabel="x", ylabel="y")


def store(page: str) -> dict:
    return json.loads(re.search(r"<script type='application/json'>(.*?)</script>", page, re.S)[1])


def test_a_book_has_a_picture_and_words_for_every_position():
    explorer = explore(draw, slope=Slider([1, 2, 3], 2), name=Slider(["one", "two"], label="which"))
    page = flipbook(explorer)
    book = store(page)
    assert book["controls"] == [
        {"name": "slope", "stops": ["1", "2", "3"], "start": 1},
        {"name": "which", "stops": ["one", "two"], "start": 0},
    ]
    wanted = [draw(slope, name).words for slope in (1, 2, 3) for name in ("one", "two")]
    assert [frame["words"] for (frame,) in book["frames"]] == wanted
    assert [frame["src"] == "" for (frame,) in book["frames"]] == [False, False, True, False, False, False]
    for (frame,) in book["frames"]:
        if frame["src"]:
            file = base64.b64decode(frame["src"].removeprefix("data:image/webp;base64,"))
            assert Image.open(io.BytesIO(file)).format == "WEBP"


def test_what_is_made_of_parts_stays_in_parts():
    def both(slope):
        return Stack((draw(slope), draw(-slope, "b")))

    explorer = explore(both, slope=Slider([1, 2], 2))
    for page in (flipbook(explorer), still(explorer)):
        alts = re.findall(r'<img src="[^"]+" alt="([^"]+)" width="880" height="440" data-letters="', page)
        assert alts == [html.escape(part.words) for part in both(2).parts]
    frames = store(flipbook(explorer))["frames"]
    assert [[part["words"] for part in frame] for frame in frames] == [
        [part.words for part in both(slope).parts] for slope in (1, 2)
    ]
    assert [[part["src"] == "" for part in frame] for frame in frames] == [[False, False], [True, True]]
    assert len({part["src"] for part in frames[0]}) == 2


def test_a_drawing_stays_an_svg_where_that_is_shorter():
    cell = draw_cell(PUBLISHED["DARTS_V2"])
    (address,) = packed([cell])
    assert base64.b64decode(address.removeprefix("data:image/svg+xml;base64,")).decode() == cell.svg


def test_few_colours_keep_that_of_a_thin_line():
    few = Image.open(io.BytesIO(webp(draw_cell(PUBLISHED["DARTS_V2"]).png, 1.0, 16))).convert("RGB")
    colours = [colour for _, colour in few.getcolors()]
    for family in ("skip_connect", "sep_conv_3x3", "dil_conv_3x3"):
        wanted = [int(op_color(family)[i : i + 2], 16) for i in (1, 3, 5)]
        away = min(max(abs(a - b) for a, b in zip(wanted, one, strict=True)) for one in colours)
        assert away < 24, f"the lines of {family} lost their colour"


def test_a_book_asks_nobody_for_anything():
    page = flipbook(explore(draw, slope=Slider([1, 2])))
    assert "http" not in page and 'src="data:' in page


def test_without_frames_the_first_picture_is_there():
    explorer = explore(draw, slope=Slider([1, 2], 2))
    page = still(explorer)
    assert base64.b64encode(explorer.picture.png).decode() in page and "application/json" not in page


def test_many_positions_are_thinned_and_ends_and_start_stay():
    stops = thinned({"seed": Slider(range(5)), "epoch": Slider(range(1, 26), 18)})
    assert len(list(states(stops))) <= 40
    assert stops["seed"] == [0, 1, 2, 3, 4]
    assert {1, 18, 25} <= set(stops["epoch"])


def test_a_book_keeps_to_its_bytes_by_giving_up_stops():
    explorer = explore(draw, slope=Slider([1, 2, 3, 4, 5], 3))
    one = len(base64.b64decode(packed([draw(1)])[0].split(",")[1]))
    book = store(flipbook(explorer, most=2 * one))
    assert {"1", "3", "5"} <= set(book["controls"][0]["stops"])
    total = sum(len(base64.b64decode(frame["src"].split(",")[-1])) for (frame,) in book["frames"])
    assert total <= 2 * one < BYTES


@pytest.mark.parametrize("frames", ["1", None])
def test_the_output_follows_the_environment(monkeypatch, frames):
    if frames:
        monkeypatch.setenv("NASEDU_FRAMES", frames)
    else:
        monkeypatch.delenv("NASEDU_FRAMES", raising=False)
    data, _ = explore(draw, slope=Slider([1, 2]))._repr_mimebundle_()
    assert ("application/json" in data["text/html"]) == bool(frames)
    assert ("image/png" in data) == (not frames)


def test_jupyter_gets_the_live_sliders_and_what_stays(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    explore(draw, slope=Slider([1, 2]))._ipython_display_()
    assert VIEW in shown[0] and "nasedu-flip" in shown[1]["text/html"]
