"""The judge of cells: each trained from scratch, by one protocol, with several seeds.

What notebook 10 reports: the cells that a `cell_search` study found, the published DARTS_V2, and cells that
were drawn without any search.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nasedu.data.datasets import Augment, seeded
from nasedu.data.images import ImageDataset
from nasedu.search.standalone import StandaloneTrainer
from nasedu.space.choice import random_arch
from nasedu.space.genotype import PUBLISHED, Genotype
from nasedu.space.network import CNN, Network, n_parameters
from nasedu.study.study import Study


@dataclass(frozen=True)
class Retraining:
    """How a cell is judged: DARTS's evaluation (arXiv:1806.09055, section 3.2), much smaller and shorter."""

    pixels: int = 16
    images: int = 10_000
    channels: int = 8
    layers: int = 5
    epochs: int = 5
    batch_size: int = 64
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 3e-4


def retrain(
    protocol: Retraining, datasets: tuple[ImageDataset, ...], cells: Mapping[str, Genotype]
) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Train one of `cells` from scratch with one seed: key {"cell": its name, "seed": ...}."""
    train, valid, test = datasets

    def run(key: Mapping[str, Any]) -> dict[str, Any]:
        torch.manual_seed(key["seed"])
        network = Network(cells[key["cell"]], protocol.channels, len(train.classes), protocol.layers)
        optimizer = torch.optim.SGD(
            network.parameters(), protocol.lr, momentum=protocol.momentum, weight_decay=protocol.weight_decay
        )
        trainer = StandaloneTrainer(
            network,
            optimizer,
            protocol.epochs,
            train.take(range(protocol.images)),
            valid,
            protocol.batch_size,
            augment=Augment(protocol.pixels // 8),
            seed=key["seed"],
            progress=False,
        )
        history = trainer.fit_to_the_end()
        return {
            "parameters": n_parameters(network),
            "test_accuracy": round(trainer.evaluate(test)["acc1"], 5),
            "history": history.epochs,
        }

    return run


def cells_of(found: Study, blind: int = 3) -> dict[str, Genotype]:
    """The cells to retrain: those of a `cell_search` study, DARTS_V2, and `blind` drawn without a search."""
    cells = {
        f"{run['key']['method']} {run['key']['seed']}": Genotype(**run["genotype"]) for run in found.runs
    }
    model = CNN(8, 3, 2, 10, 3)
    for i in range(blind):
        cells[f"blind {i}"] = Genotype.from_arch(random_arch(model, seeded(1000 + i)))
    return {**cells, "DARTS_V2": PUBLISHED["DARTS_V2"]}
