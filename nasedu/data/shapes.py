"""shapes10: a dataset that the package draws itself, of ten classes told apart by shape, texture and scale.

Five classes are plain shapes. Five are textures inside an outline that says nothing: stripes and checks, each
fine or coarse, and circles of either scale. Position, angle, size, colours, and which of two colours is the
lighter, are random; so are the blotches and lines of the background and the noise. So no pixel means anything
by itself: a linear classifier is near chance, and a convolution helps.

The same seed gives the same bytes on every machine. Randomness is the raw output of PCG64, which numpy
promises to keep as it is. The arithmetic is +, -, *, /, sqrt and floor, element by element, which IEEE 754
rounds the same everywhere; cos and sin, which it does not, are used once, for a table rounded to 1/4096.
"""

from collections.abc import Callable

import numpy as np

from nasedu.errors import ArgumentError, check_whole, short

SHAPES = ("disc", "square", "triangle", "cross", "tee")
TEXTURES = ("fine stripes", "coarse stripes", "fine checks", "coarse checks", "circles")
CLASSES = SHAPES + TEXTURES
FINE, COARSE = 4.4, 8.0  # periods of the textures; all lengths are in 32nds of the image
N_TRAIN, N_VALID = 10_000, 2_000
SPLITS = {"train": 0, "valid": 1}
N_LINES = 4  # scattered over the background
N_WORDS = 128  # random words an image may use, besides its noise
CHUNK = 250  # images drawn at a time, few enough for the processor's cache
_TURN = np.arange(256) * (2 * np.pi / 256)
COS, SIN = ((np.round(f(_TURN) * 4096) / 4096).astype(np.float32) for f in (np.cos, np.sin))
HALF = np.float32(0.5)


def draw(n: int, split: str = "train", seed: int = 0, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Draw the first n images (n, 3, size, size) uint8 of "train" or "valid", with labels (n,) int64.

    Image i shows class i % 10 and depends on (seed, split, i, size) alone: fewer images are a prefix of more.
    Raises ArgumentError if that cannot be drawn.
    """
    n, size = check_whole("n", n, 1), check_whole("size", size, 8, 1024)
    seed = check_whole("seed", seed, 0, 2**64 - 1)
    if split not in tuple(SPLITS):
        raise ArgumentError(f"split is {short(split)}; wanted one of {', '.join(SPLITS)}")
    stream = np.random.PCG64([seed, SPLITS[split]])
    labels = np.arange(n, dtype=np.int64) % len(CLASSES)
    n_bytes = 3 * size * size
    images = np.empty((n, 3, size, size), np.uint8)
    chunk = max(1, min(CHUNK, CHUNK * 32**2 // size**2))
    for start in range(0, n, chunk):
        part = labels[start : start + chunk]
        words = stream.random_raw(len(part) * (N_WORDS + -(-n_bytes // 8))).reshape(len(part), -1)
        noise = words[:, N_WORDS:].astype("<u8").view(np.uint8)[:, :n_bytes].reshape(-1, 3, size, size)
        images[start : start + chunk] = _draw(part, _Dice(words[:, :N_WORDS]), noise)
    return images, labels


class _Dice:
    """Random numbers for each image of a chunk, each taken from the next words of the image's own row."""

    def __init__(self, words: np.ndarray) -> None:
        self.words, self.used = words, 0

    def _next(self, shape: tuple[int, ...]) -> np.ndarray:
        start, self.used = self.used, self.used + int(np.prod(shape))
        return self.words[:, start : self.used].reshape(-1, *shape)

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """(n, *shape) float32 from low to high."""
        unit = (self._next(shape) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return np.float32(low) + np.float32(high - low) * unit

    def choice(self, k: int, *shape: int) -> np.ndarray:
        """(n, *shape) integers from 0 to k - 1."""
        return ((self._next(shape) >> np.uint64(32)) * np.uint64(k) >> np.uint64(32)).astype(np.int64)

    def sign(self) -> np.ndarray:
        """-1 or 1 for each image, (n, 1, 1, 1) float32."""
        return self.choice(2, 1, 1, 1).astype(np.float32) * 2 - 1

    def turn(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The coordinates x and y, turned by a random angle."""
        k = self.choice(256, 1, 1)
        return x * COS[k] + y * SIN[k], y * COS[k] - x * SIN[k]


def _draw(labels: np.ndarray, dice: _Dice, noise: np.ndarray) -> np.ndarray:
    """Background, lines, object, noise: (n, 3, H, W) uint8."""
    size = noise.shape[-1]
    axis = ((np.arange(size) + 0.5) * (32 / size) - 16).astype(np.float32)
    x, y = axis[None, :], axis[:, None]
    base = dice.uniform(70, 185, 3, 1, 1)
    image = base + _blotches(dice, size)
    for _ in range(N_LINES):
        image = _paint(image, _line(dice, x, y), base + dice.sign() * dice.uniform(30, 90, 3, 1, 1))

    contrast = dice.sign() * dice.uniform(25, 70, 3, 1, 1)
    centre, radius = dice.uniform(-5, 5, 2, 1, 1), dice.uniform(7.5, 10.5, 1, 1)
    x, y = x - centre[:, 0], y - centre[:, 1]
    outlines = np.where(
        labels < len(SHAPES), labels, dice.choice(3)
    )  # a texture fills a disc, square or triangle
    outline = _outline(outlines, *dice.turn(x, y), radius)
    weave = _weave(labels, *dice.turn(x, y), dice)
    image = _paint(image, outline, base + contrast * weave[:, None])

    image = image + (noise.astype(np.float32) - np.float32(127.5)) * dice.uniform(0.12, 0.3, 1, 1, 1)
    return np.floor(np.clip(image, 0, 255) + HALF).astype(np.uint8)


def _paint(image: np.ndarray, distance: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Colour wherever the signed distance (n, H, W) is negative, with a soft edge one unit wide."""
    cover = np.clip(HALF - distance, 0, 1)[:, None]
    return image + cover * (colour - image)


def _blotches(dice: _Dice, size: int) -> np.ndarray:
    """Smooth shades (n, 3, H, W): random numbers on a 5 x 5 lattice, interpolated."""
    lattice = dice.uniform(-45, 45, 5, 5)
    place = np.arange(size) * (4 / size)
    low = place.astype(np.int64)
    t = (place - low).astype(np.float32)
    rows = lattice[:, low] * (1 - t)[:, None] + lattice[:, low + 1] * t[:, None]  # (n, H, 5)
    shades = rows[:, :, low] * (1 - t) + rows[:, :, low + 1] * t  # (n, H, W)
    return shades[:, None] * dice.uniform(0.2, 1, 3, 1, 1)


def _line(dice: _Dice, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance (n, H, W) to a short line anywhere."""
    middle, half = dice.uniform(-15, 15, 2, 1, 1), dice.uniform(2, 7, 1, 1)
    along, across = dice.turn(x - middle[:, 0], y - middle[:, 1])
    beyond = along - np.clip(along, -half, half)
    return np.sqrt(beyond * beyond + across * across) - dice.uniform(0.5, 1.2, 1, 1)


def _disc(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.sqrt(u * u + v * v) - r


def _square(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.maximum(abs(u), abs(v)) - r * np.float32(0.88)


def _triangle(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.maximum(abs(u) * np.float32(0.866) + v * HALF, -v) - r * np.float32(0.65)


def _cross(u: np.ndarray, v: np.ndarray, r: np.ndarray, shift: float = 0.0) -> np.ndarray:
    arm, level = r * np.float32(0.32), v + r * np.float32(shift)
    return np.minimum(np.maximum(abs(u) - r, abs(level) - arm), np.maximum(abs(v) - r, abs(u) - arm))


def _tee(u: np.ndarray, v: np.ndarray, r: np.ndarray) -> np.ndarray:
    return _cross(u, v, r, shift=0.68)


_OUTLINES: tuple[Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], ...] = (
    _disc,
    _square,
    _triangle,
    _cross,
    _tee,
)


def _outline(kinds: np.ndarray, u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Signed distance (n, H, W) to each image's own outline."""
    distance = np.empty_like(u)
    for kind, shape in enumerate(_OUTLINES):
        mine = kinds == kind
        distance[mine] = shape(u[mine], v[mine], radius[mine])
    return distance


def _weave(labels: np.ndarray, u: np.ndarray, v: np.ndarray, dice: _Dice) -> np.ndarray:
    """The object's shade (n, H, W): 1 all over for a plain shape, 1 and -1 in the pattern of a texture."""
    names = np.array(CLASSES)[labels]
    coarse = np.where(names == "circles", dice.choice(2), np.char.startswith(names, "coarse"))
    period = np.where(coarse, COARSE, FINE).astype(np.float32)[:, None, None] * dice.uniform(0.9, 1.1, 1, 1)
    s, t, q = (_wave(w + dice.uniform(0, COARSE, 1, 1), period) for w in (u, v, np.sqrt(u * u + v * v)))
    weave = np.ones_like(u)
    for texture, pattern in (("stripes", s), ("checks", s * t), ("circles", q)):
        mine = np.char.endswith(names, texture)
        weave[mine] = pattern[mine]
    return weave


def _wave(x: np.ndarray, period: np.ndarray) -> np.ndarray:
    """A square wave between -1 and 1 with soft edges."""
    from_crest = x - period * np.floor(x / period + HALF)
    return np.clip(period * HALF - 2 * abs(from_crest), -1, 1)
