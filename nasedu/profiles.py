"""The sizes of every experiment: one table, and the row that NASEDU_PROFILE picks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from nasedu.errors import NaseduError


class ProfileError(NaseduError, ValueError, RuntimeError):
    """NASEDU_PROFILE names no profile, or one that this machine can't run; the message says which it can."""


@dataclass(frozen=True)
class Profile:
    """The sizes of the notebooks' experiments on one kind of machine; the table below has the values."""

    name: str
    dataset: str  # what `get_dataset` is asked for
    images: int  # training images, before a search splits them in two
    test_images: int
    image_size: int  # pixels a side
    batch_size: int
    channels: int  # of the supernet's first cell
    layers: int  # cells of the supernet
    epochs: int  # of a search
    train_epochs: int  # of a derived network, trained from scratch
    draws: int  # random architectures, each trained from scratch
    seeds: int  # repetitions where a result has a spread
    table_seeds: int  # of a search in the truth table, which trains nothing
    run_images: int  # of `make run`, which has five minutes for two searches and the trainings of four cells
    run_layers: int  # cells of its supernets
    run_epochs: int  # of its DARTS search
    run_enas_epochs: int  # of its ENAS search, the last three with updates of the controller
    run_train_epochs: int  # of each training from scratch
    run_seeds: int  # trainings of each cell
    run_processes: int  # at most so many at once, each on a core of its own

    @property
    def device(self) -> torch.device:
        """The device the experiments of this profile run on."""
        return torch.device("cuda" if self.name == "gpu" else "cpu")

    def __str__(self) -> str:
        return (
            f"profile {self.name}: dataset {self.dataset}, {self.images:,} training images "
            f"of {self.image_size}x{self.image_size}, batch {self.batch_size}, {self.channels} channels, "
            f"{self.layers} cells, {self.epochs} epochs, on {self.device.type}"
        )


NAMES = ("ci", "laptop", "gpu")

# A new experiment adds a line here and a field above; a notebook never tests for a profile's name.
# fmt: off
TABLE: dict[str, tuple[Any, Any, Any]] = {
    #                ci          laptop  gpu
    "dataset":      ("shapes10", "auto", "auto"),  # ci must give the same bytes on every machine
    "images":       (1_000,      4_000,  20_000),
    "test_images":  (500,        1_000,  10_000),
    "image_size":   (16,         16,     32),
    "batch_size":   (32,         64,     64),
    "channels":     (4,          8,      16),
    "layers":       (3,          5,      8),
    "epochs":       (2,          3,      8),
    "train_epochs": (2,          4,      10),
    "draws":        (8,          12,     24),
    "seeds":        (2,          3,      3),
    "table_seeds":  (200,        5_000,  5_000),
    "run_images":   (200,        4_000,  20_000),
    "run_layers":   (3,          4,      8),
    "run_epochs":   (1,          8,      10),
    "run_enas_epochs":  (2,      15,     30),
    "run_train_epochs": (1,      3,      10),
    "run_seeds":        (1,      2,      3),
    "run_processes":    (1,      2,      1),
}
# fmt: on

PROFILES = {
    name: Profile(name=name, **{field: row[column] for field, row in TABLE.items()})
    for column, name in enumerate(NAMES)
}


def profile() -> Profile:
    """Return the row that NASEDU_PROFILE names; unset or empty: `gpu` where torch sees one, else `laptop`.

    Raises ProfileError for an unknown name, and for `gpu` on a machine where torch sees none.
    """
    name = os.environ.get("NASEDU_PROFILE", "")
    if not name:
        name = "gpu" if torch.cuda.is_available() else "laptop"
    if name not in PROFILES:
        raise ProfileError(
            f"NASEDU_PROFILE is {name!r}, which is no profile: "
            f"use one of {', '.join(NAMES)}, or unset it to take what fits this machine"
        )
    if name == "gpu" and not torch.cuda.is_available():
        raise ProfileError(
            "NASEDU_PROFILE is 'gpu', but torch sees no CUDA device: "
            "unset it or use 'laptop', or install a torch built for your GPU (https://pytorch.org/get-started)"
        )
    return PROFILES[name]
