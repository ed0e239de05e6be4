"""Does ENAS's controller learn? Cell searches, the working one and the same with one thing changed.

Each run trains a child and a controller, and at the end compares cells of the controller as taught with cells
of the controller as it was at the start (untaught), all scored in the same supernet on the same images.
"""

import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from nasedu.data.datasets import Augment, get_dataset, seeded
from nasedu.data.images import ImageDataset, checksum
from nasedu.search.base import reward_accuracy
from nasedu.search.enas import EnasTrainer
from nasedu.search.evaluation import accuracy
from nasedu.space.cells import CNN
from nasedu.study.recipe import Recipe
from nasedu.study.record import Record, conduct


@dataclass(frozen=True)
class EnasProtocol:
    """The working search; `VARIANTS` says what each other one changes. `images` / 4 are for rewards."""

    pixels: int = 16
    images: int = 8_000
    channels: int = 8
    layers: int = 4
    nodes: int = 3
    ops: tuple[str, ...] = ("max_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5")
    batch_size: int = 64
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 3e-4
    child_epochs: int = 20
    epochs: int = 36
    updates: int = 20
    samples: int = 10
    reward_images: int = 256
    ctrl_lr: float = 0.01
    entropy_weight: float = 1e-4
    tanh_constant: float = 2.5
    judged: int = 40
    judged_images: int = 512


WORKING = {"op_tanh_reduce": 1.0, "start_bias": 0.0, "normal_bias": 0.0}
# What is changed, one thing at a time; together they are the search that failed.
VARIANTS: dict[str, dict[str, Any]] = {
    "works": {},
    "own images": {"paired": False, "reward_images": None, "baseline_decay": 0.99},
    "together": {"child_epochs": 0},
    "released constants": {"ctrl_kwargs": {}},
    "slow Adam": {"ctrl_lr": 3.5e-3},
    "all four": {
        "paired": False, "reward_images": None, "baseline_decay": 0.99, "child_epochs": 0, "ctrl_kwargs": {},
        "ctrl_lr": 3.5e-3,
    },
}  # fmt: skip


def search(
    protocol: EnasProtocol, variant: str, train: ImageDataset, seed: int, **options: Any
) -> EnasTrainer:
    """The trainer of this variant, ready to fit."""
    torch.manual_seed(seed)
    model = CNN(
        protocol.pixels,
        3,
        protocol.channels,
        len(train.classes),
        protocol.layers,
        protocol.nodes,
        protocol.ops,
    )
    optimizer = torch.optim.SGD(
        model.parameters(), protocol.lr, momentum=protocol.momentum, weight_decay=protocol.weight_decay
    )
    working: dict[str, Any] = {
        "ctrl_lr": protocol.ctrl_lr,
        "child_epochs": protocol.child_epochs,
        "paired": True,
        "reward_images": protocol.reward_images,
        "ctrl_kwargs": {"tanh_constant": protocol.tanh_constant, **WORKING},
    }
    return EnasTrainer(
        model=model,
        loss=nn.CrossEntropyLoss(),
        metrics=accuracy,
        reward_function=reward_accuracy,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, protocol.epochs),
        num_epochs=protocol.epochs,
        dataset=train.take(range(protocol.images)),
        batch_size=protocol.batch_size,
        valid_share=0.25,
        augment=Augment(protocol.pixels // 8),
        entropy_weight=protocol.entropy_weight,
        ctrl_steps=protocol.updates,
        ctrl_steps_aggregate=protocol.samples,
        seed=seed,
        progress=False,
        **{**working, **VARIANTS[variant], **options},
    )


def enas_cells(protocol: EnasProtocol, train: ImageDataset) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """One search: key {"method": one of `VARIANTS`, "seed": ...} -> history, rewards taught and untaught."""

    def run(key: Mapping[str, Any]) -> dict[str, Any]:
        trainer = search(protocol, key["method"], train, key["seed"])
        untaught = deepcopy(trainer.controller)
        history = trainer.fit_to_the_end()
        trainer.candidate_images = protocol.judged_images
        rewards = {}
        for name, controller in (("taught", trainer.controller), ("untaught", untaught)):
            with torch.no_grad():
                sample = controller.sample(protocol.judged, seeded(key["seed"], 10))
            archs = [sample[i] for i in range(protocol.judged)]
            rewards[name] = [round(c.scores["reward"], 5) for c in trainer.rank(archs)]
        return {**rewards, "history": history.epochs}

    return run


COMMAND = "python -m nasedu study enas_cells --data FOLDER --out nasedu/study/results/enas_cells.json"
KEYS = [("works", seed) for seed in range(5)] + [(name, 0) for name in VARIANTS if name != "works"]


def recipe(protocol: EnasProtocol) -> Recipe:
    """The settings as a record keeps them: what all searches share, and what each variant changes."""
    shared = {
        "pixels",
        "images",
        "channels",
        "layers",
        "epochs",
        "batch_size",
        "lr",
        "momentum",
        "weight_decay",
    }
    settings = asdict(protocol)
    own = {name: value for name, value in settings.items() if name not in shared | {"nodes", "ops"}}
    methods = {name: {"method": "ENAS", **own, "changed": changed} for name, changed in VARIANTS.items()}
    model = {"n_nodes": protocol.nodes, "ops": list(protocol.ops)}
    return Recipe(**{name: settings[name] for name in shared}, methods=methods, model=model)


def conducted(
    protocol: EnasProtocol, train: ImageDataset, out: str | os.PathLike[str], progress: bool = True
) -> Record:
    """Do the runs of `KEYS` that `out` lacks, and write it after each."""
    data = f"{train.name}, {len(train):,} training images, {checksum(train)}"
    keys = [{"method": name, "seed": seed} for name, seed in KEYS]
    record = Record("enas_cells", recipe(protocol), data, COMMAND)
    return conduct(record, out, keys, enas_cells(protocol, train), progress)


def make(data: str, out: str | os.PathLike[str], progress: bool = True) -> Record:
    """Make the record on the images `data`, or go on with the one at `out`."""
    protocol = EnasProtocol()
    train, _ = get_dataset(data, subset=(protocol.images, 100), input_size=protocol.pixels)
    return conducted(protocol, train, out, progress)
