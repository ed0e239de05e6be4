"""Odd values, and what mutates a tree of lists and dicts; used by the attacks, each from its own dice."""

import copy
import json
import random
from pathlib import Path

import numpy as np
import torch
from torch import nn

SCALARS = [
    0, -1, 1, 2, 3, 7, 10**6, 10**30, 10**400, 0.0, -1.0, 0.5, 1.5, float("nan"), float("inf"), 1e308, 1j, "",
    "5", "x", "normal", "none", "skip_connect", "\ud800", "<script>", "a" * 5000, b"x", None, True, False,
]  # fmt: skip


class Hostile:
    """Not a number, not a text, and its repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def value(dice: random.Random) -> object:
    """Any value an argument can be given."""
    more = [
        [], [1], {}, {"a": 1}, (1, 2), set(), [None, "x"], object(), Hostile(), int, len,
        lambda *a, **k: None, np.int64(2), np.float32(0.5), np.array([1, 2]), torch.tensor(2),
        torch.tensor(float("nan")), torch.ones(2, 3), torch.zeros(0), nn.Identity(), Path("nowhere/x"),
        range(3), iter([1, 2]),
    ]  # fmt: skip
    return dice.choice(SCALARS if dice.random() < 0.6 else more)


PLAIN = [
    0, -1, 1, 2, 5, 10**30, 0.5, -0.0, 1e308, "", "x", "none", "skip_connect", "1", "2026-13-40", None, True,
    False, [], {}, [[]], {"a": 1}, [1, 2], "\u0000", [["x", 0], ["x", 1]], "<b>",
]  # fmt: skip


def places(tree: object, path: tuple = ()) -> list[tuple]:
    """The paths of all values in lists and dicts."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


def spoiled(tree: object, dice: random.Random, times: int = 2) -> object:
    """A copy of a JSON tree with up to `times` values replaced, removed, doubled or moved."""
    tree = copy.deepcopy(tree)
    for _ in range(dice.randint(0, times)):
        path = dice.choice(places(tree))
        if not path:
            continue
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        what = dice.random()
        if what < 0.6:
            parent[path[-1]] = copy.deepcopy(dice.choice(PLAIN))
        elif what < 0.75:
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[dice.choice(["x", "", "cells", "epoch", "normal", "key"])] = parent[path[-1]]
        else:
            parent.insert(0, parent[path[-1]])
    return tree


def text(tree: object, dice: random.Random) -> bytes:
    """The JSON of a tree, as bytes, now and then broken as a text."""
    made = json.dumps(tree)
    what = dice.random()
    if what < 0.55:
        return made.encode()
    at = dice.randrange(len(made) + 1)
    if what < 0.6:
        return made[:at].encode()
    if what < 0.7:
        numbers = [i for i, c in enumerate(made) if c.isdigit()] or [0]
        i = dice.choice(numbers)
        odd = dice.choice(
            ["9" * 400, "1e400", "-" + "9" * 5000, "NaN", "-Infinity", "1e-400", "0x1", "9" * 30]
        )
        return (made[:i] + odd + made[i + 1 :]).encode()
    if what < 0.8:
        return made[:at].encode() + dice.choice([b"\xff\xfe", b"\x00", b"\xed\xa0\x80"]) + made[at:].encode()
    if what < 0.85:
        return b"\xef\xbb\xbf" + made.encode()
    if what < 0.9:
        brackets = dice.choice(["[", '{"a":', "[{"]) * 100_000
        return (made[:at] + brackets + made[at:] if dice.random() < 0.5 else brackets).encode()
    i = dice.randrange(max(1, len(made)))
    return (made[:i] + dice.choice('{}[]",:0 ') + made[i + 1 :]).encode(dice.choice(["utf-8", "utf-16"]))
