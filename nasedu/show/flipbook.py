"""A flip-book: an explorer's pictures, drawn beforehand, with sliders and Play that need no kernel.

    flipbook(explorer)    HTML that holds all it needs: a page, a deck or a reopened notebook flips through it
    still(explorer)       the same place with the first picture alone, which costs nothing to draw

A picture is drawn for every position of the sliders, at most `FRAMES` of them; where there are more, the
longest slider gets fewer stops. They are SVG where they can be and that is shorter, else WebP, as sharp as
fits into `BYTES` together. What is made of parts, one below the other, stays in parts: a deck gives each a
slide.
"""

import base64
import html
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import product
from typing import Any, Protocol

from PIL import Image

from nasedu.show.pictures import Shown

FRAMES = 40  # pictures in one book
BYTES = 200_000  # of one book's pictures; as text in a notebook they take a third more
# (scale, colours), each giving up a little more than the one before; letters stay sharp, there is no blur.
SETTINGS = ((1.0, 256), (1.0, 64), (1.0, 32), (2 / 3, 32), (2 / 3, 16))

# In JupyterLab an explorer leaves two outputs, the live sliders and this. Only one of them is shown: while
# the sliders live this one hides, and after a restart, when they are "model not found", they do.
ONE_OF_TWO = """<style>
.jp-OutputArea-child:has(.nasedu-live) + .jp-OutputArea-child:has(.nasedu-flip),
.jp-OutputArea-child:not(:has(.nasedu-live)):has(+ .jp-OutputArea-child .nasedu-flip)
  :is([data-mime-type*="widget-view"], .jupyter-widgets),
body:not(:has(.jp-OutputArea-child)):has(.nasedu-live) .nasedu-flip { display: none }
</style>"""


class Control(Protocol):
    """What a slider says of itself: its stops, where it begins, and its name on the page."""

    @property
    def values(self) -> Sequence[Any]:
        """Its stops."""

    @property
    def start(self) -> Any:
        """The stop it begins at."""

    @property
    def label(self) -> str:
        """Its name, empty where its keyword will do."""


class Explores(Protocol):
    """A pure function from the sliders' values to a picture, and the sliders."""

    @property
    def controls(self) -> Mapping[str, Control]:
        """The sliders by keyword."""

    @property
    def picture(self) -> Shown:
        """The picture of the first state."""

    def draw(self, **state: Any) -> Shown:
        """Draw the picture of a state."""


def said(value: Any) -> str:
    """Write a slider's value as its label does."""
    return value if isinstance(value, str) else f"{value:g}"


def thinned(controls: Mapping[str, Control], most: int = FRAMES) -> dict[str, list[Any]]:
    """Choose stops, at most `most` combinations: ends and start stay, the longest slider gives first."""
    stops = {name: list(control.values) for name, control in controls.items()}
    while math.prod(map(len, stops.values())) > most:
        name = max(stops, key=lambda name: len(stops[name]))
        values, start = stops[name], stops[name].index(controls[name].start)
        kept = [v for i, v in enumerate(values) if (i - start) % 2 == 0 or i in (0, len(values) - 1)]
        if len(kept) == len(values):
            raise ValueError(
                f"an explorer of {math.prod(map(len, stops.values()))} pictures; give fewer stops"
            )
        stops[name] = kept
    return stops


def webp(png: bytes, scale: float, colours: int) -> bytes:
    """Make WebP bytes of PNG bytes, smaller by `scale`, in at most `colours` colours."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    if scale != 1:
        size = (round(scale * image.width), round(scale * image.height))
        image = image.resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    # The octree keeps a colour that few pixels have, such as that of a line; the median cut loses it.
    few = image.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).convert("RGB")
    few.save(out, "WEBP", lossless=True, quality=60, method=4)
    return out.getvalue()


def packed(pictures: Sequence[Shown], most: int = BYTES) -> list[str] | None:
    """Compress pictures together to at most `most` bytes, giving up little; None where they are too many.

    Each is given as an address that holds it, "data:image/...".
    """
    for scale, colours in SETTINGS:
        files: list[str] = []
        size = 0
        for one in pictures:
            file, kind = webp(one.png, scale, colours), "webp"
            svg = getattr(one, "svg", "").encode()
            if 0 < len(svg) < len(file):
                file, kind = svg, "svg+xml"
            files.append(f"data:image/{kind};base64,{base64.b64encode(file).decode()}")
            size += len(file)
            if size > most:
                break
        else:
            return files
    return None


def states(stops: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """All combinations of the sliders' stops, the last slider moving fastest."""
    for values in product(*stops.values()):
        yield dict(zip(stops, values, strict=True))


def flipbook(explorer: Explores, most: int = BYTES) -> str:
    """Draw all the pictures and bind them: HTML with its own script, which loads nothing from elsewhere."""
    pngs: dict[tuple[Any, ...], Shown] = {}
    number, files = FRAMES, None
    while files is None:
        stops = thinned(explorer.controls, number)
        for state in states(stops):
            key = tuple(state.values())
            if key not in pngs:
                pngs[key] = explorer.draw(**state)
        shown = [parts_of(pngs[tuple(state.values())]) for state in states(stops)]
        files = packed([part for parts in shown for part in parts], most)
        number = len(shown) - 1
    first = list(states(stops)).index({name: one.start for name, one in explorer.controls.items()})
    left = iter(files)
    addresses = [[next(left) for _ in parts] for parts in shown]
    # The first frame's pictures stand on the page already.
    frames = [
        [
            {"src": "" if i == first else address, "words": part.words}
            for part, address in zip(parts, addresses[i], strict=True)
        ]
        for i, parts in enumerate(shown)
    ]
    controls = [
        {
            "name": control.label or name,
            "stops": [said(value) for value in stops[name]],
            "start": stops[name].index(control.start),
        }
        for name, control in explorer.controls.items()
    ]
    # Nothing in the words may end the script that carries them.
    store = json.dumps({"controls": controls, "frames": frames}, ensure_ascii=False).replace("<", "\\u003c")
    script = resources.files("nasedu.show").joinpath("flipbook.js").read_text(encoding="utf-8")
    return _place(
        shown[first],
        addresses[first],
        f"<script type='application/json'>{store}</script>\n<script>{{\n{script}}}</script>\n",
    )


def still(explorer: Explores) -> str:
    """Show the first picture alone, where the book would be."""
    parts = parts_of(explorer.picture)
    return _place(parts, [f"data:image/png;base64,{base64.b64encode(part.png).decode()}" for part in parts])


def parts_of(shown: Shown) -> Sequence[Shown]:
    """The pictures of which it is made, itself alone where it is one."""
    return getattr(shown, "parts", (shown,))


def _place(parts: Sequence[Shown], addresses: Sequence[str], script: str = "") -> str:
    pictures = "\n".join(
        f'<img src="{address}" alt="{html.escape(part.words)}" width="{part.size[0]}" '
        f'height="{part.size[1]}" data-letters="{part.letters:.2f}" '
        'style="display: block; max-width: 100%; height: auto; background: #fff">'
        for part, address in zip(parts, addresses, strict=True)
    )
    return f'<div class="nasedu-flip" data-prevent-swipe>\n{ONE_OF_TWO}\n{pictures}\n{script}</div>'
