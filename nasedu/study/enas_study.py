"""Does ENAS's controller learn? Cell searches, the working one and the same with one thing changed.

Each run trains a child and a controller, and at the end compares cells of the controller as taught with cells
of the controller as it was at the start (untaught), all scored in the same supernet on the same images.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nasedu.data.datasets import Augment, seeded
from nasedu.data.images import ImageDataset
from nasedu.search.base import reward_accuracy
from nasedu.search.enas import EnasTrainer
from nasedu.search.evaluation import accuracy
from nasedu.space.cells import CNN


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
    epochs: int = 27
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
    """One search: key {"variant": one of `VARIANTS`, "seed": ...} -> history, rewards taught and untaught."""

    def run(key: Mapping[str, Any]) -> dict[str, Any]:
        trainer = search(protocol, key["variant"], train, key["seed"])
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
