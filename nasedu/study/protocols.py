"""The protocols of the course's studies: every search and every training that notebooks 10 to 12 report.

    small_space    searches of the small space, whose truth is known: DARTS, its remedies, ENAS, random
    cell_search    searches of the DARTS space at equal cost, to be judged by retraining
    retrain        the cells found, the published DARTS_V2 and cells drawn blindly, trained from scratch

Each is a `study.Study`; `python -m nasedu study NAME --data FOLDER --out FILE` makes it.
"""

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasedu.data.datasets import Augment
from nasedu.data.images import ImageDataset
from nasedu.search.base import SearchTrainer, arguments, gap_callback, reward_accuracy
from nasedu.search.darts import DartsTrainer
from nasedu.search.early_stop import Eigenvalues
from nasedu.search.enas import EnasTrainer
from nasedu.search.evaluation import batch_statistics, evaluate, modes_kept, reestimated
from nasedu.search.random_search import RandomSearch
from nasedu.search.relaxation import EdgeShares, Gumbel
from nasedu.space import small
from nasedu.space.network import CNN
from nasedu.study import study, truth
from nasedu.study.retraining import Retraining, cells_of, retrain
from nasedu.study.study import Study, StudyError

Datasets = tuple[ImageDataset, ImageDataset, ImageDataset]
Run = Callable[[Mapping[str, Any]], Mapping[str, Any]]

# Method -> the trainer's own arguments.
METHODS: dict[str, dict[str, Any]] = {
    "DARTS 1st": {},
    "DARTS 2nd": {"unrolled": True},
    "PC-DARTS": {"relaxation": EdgeShares()},
    "GDAS": {"relaxation": Gumbel(10.0, 0.1)},
    "ENAS": {"ctrl_lr": 3.5e-3, "ctrl_steps": 10, "ctrl_steps_aggregate": 10, "baseline_decay": 0.95},
    "random": {},
}


@dataclass(frozen=True)
class Protocol:
    """What all searches of a study share. `epochs` are those of first-order DARTS, see `epochs_of`.

    `layers` counts the cells of the DARTS space's supernet; of random search's `candidates` the best is kept.
    """

    pixels: int = 16
    images: int = 5_000
    channels: int = 16
    batch_size: int = 32
    epochs: int = 25
    lr: float = 0.025
    lr_min: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    alpha_lr: float = 0.01
    partial: int = 4
    hessian_images: int = 128
    layers: int = 0
    candidates: int = 100

    def epochs_of(self, method: str) -> int:
        """The epochs of this method, so that all cost about as much as first-order DARTS."""
        return max(1, round(self.epochs * EPOCHS.get(method, 1.0)))


# Epochs relative to first-order DARTS, chosen before the studies for about equal cost in the small space.
# What the runs cost in fact is in the files, as "cpu_seconds": less alike, and in the DARTS space not alike.
EPOCHS = {"DARTS 2nd": 0.4, "PC-DARTS": 1.1, "GDAS": 2.5, "ENAS": 2.3, "random": 4.0}


def search(
    protocol: Protocol, method: str, model: nn.Module, train: ImageDataset, seed: int, **more: Any
) -> SearchTrainer:
    """The trainer of this method by this protocol, ready to fit."""
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; there are {', '.join(METHODS)}")
    common: dict[str, Any] = {
        **arguments(protocol, model, train, protocol.epochs_of(method), seed),
        "augment": Augment(protocol.pixels // 8),
        "progress": False,
        **METHODS[method],
        **more,
    }
    if method == "ENAS":
        return EnasTrainer(reward_function=reward_accuracy, **common)
    if method == "random":
        return RandomSearch(n_candidates=protocol.candidates, **common)
    return DartsTrainer(arc_learning_rate=protocol.alpha_lr, **common)


def shared_scores(trainer: SearchTrainer, valid: ImageDataset, batches: int = 10) -> dict[str, list[float]]:
    """Accuracy on `valid` of all 125 architectures by the supernet's weights, in the order of `small`.

    With batch norms "running" (the averages that training left), "reestimated" (made anew for each
    architecture from `batches` training batches) and "batch" (of each validation batch itself).
    """
    model, device = trainer.model, trainer.device
    images = [trainer.train_batch(0, number)[0] for number in range(batches)]
    scores: dict[str, list[float]] = {"running": [], "reestimated": [], "batch": []}
    for names in small.architectures():
        arch = small.matrix(names)

        def forward(x: Tensor, arch: Mapping[str, Tensor] = arch) -> Tensor:
            return model(x, arch)

        with modes_kept(model):
            model.eval()
            scores["running"].append(evaluate(forward, valid, device=device)["acc1"])
        with reestimated(model, [functools.partial(forward, x) for x in images]):
            scores["reestimated"].append(evaluate(forward, valid, device=device)["acc1"])
        with batch_statistics(model):
            scores["batch"].append(evaluate(forward, valid, device=device)["acc1"])
    return {name: [round(value, 5) for value in values] for name, values in scores.items()}


def small_space(protocol: Protocol, datasets: Datasets) -> Run:
    """Search the small space by one method with one seed."""
    train, valid, _ = datasets
    images = valid.take(range(min(1500, len(valid))))

    def run(key: Mapping[str, Any]) -> dict[str, Any]:
        method, seed = key["method"], key["seed"]
        torch.manual_seed(seed)
        partial = protocol.partial if method == "PC-DARTS" else 1
        model = small.SmallCNN(protocol.channels, len(train.classes), partial=partial)
        more: dict[str, Any] = {}
        if method == "DARTS 1st":
            more["callbacks"] = [Eigenvalues(protocol.hessian_images), gap_callback(images)]
        if method == "PC-DARTS":
            more["relaxation"] = EdgeShares({"cell": [node for _, node in small.EDGES]})
        trainer: Any = search(protocol, method, model, train.take(range(protocol.images)), seed, **more)
        history = trainer.fit_to_the_end()
        arch = trainer.best() if method in ("ENAS", "random") else trainer.arch()
        result: dict[str, Any] = {"names": small.names_of(arch), "history": history.epochs}
        if method in ("DARTS 1st", "random"):
            result["scores"] = shared_scores(trainer, images)
        return result

    return run


def cell_search(protocol: Protocol, datasets: Datasets) -> Run:
    """Search the DARTS space by one method with one seed."""
    train = datasets[0].take(range(protocol.images))

    def run(key: Mapping[str, Any]) -> dict[str, Any]:
        torch.manual_seed(key["seed"])
        model = CNN(protocol.pixels, 3, protocol.channels, len(train.classes), protocol.layers)
        trainer: Any = search(protocol, key["method"], model, train, key["seed"])
        history = trainer.fit_to_the_end()
        return {"genotype": asdict(trainer.genotype()), "history": history.epochs}

    return run


SMALL_SPACE = Protocol()
CELL_SEARCH = Protocol(channels=8, layers=3, epochs=4, batch_size=64, candidates=20)
RETRAIN = Retraining()
NAMES = ("small_space", "cell_search", "retrain")


def make(
    name: str,
    data: str,
    out: str | os.PathLike[str],
    seeds: int | None = None,
    cells: str | os.PathLike[str] = "cell_search",
    progress: bool = True,
) -> Study:
    """Make the study of this name on the images `data`, or go on with the one at `out`.

    `retrain` reads the cells of the study `cells`. Raises StudyError as `study.conduct` does.
    """
    if name not in NAMES:
        raise StudyError(f"no study {name!r}; there are {', '.join(NAMES)}")
    datasets = truth.Setting().datasets(data)
    protocol: Protocol | Retraining
    if name == "retrain":
        protocol, found = RETRAIN, cells_of(study.load(cells))
        keys = [{"cell": cell, "seed": s} for s in range(seeds or 2) for cell in found]
        run = retrain(protocol, datasets, found)
    elif name == "cell_search":
        protocol = CELL_SEARCH
        methods = ("DARTS 1st", "DARTS 2nd", "ENAS", "random")
        keys = [{"method": method, "seed": s} for s in range(seeds or 2) for method in methods]
        run = cell_search(protocol, datasets)
    else:
        protocol = SMALL_SPACE
        keys = [{"method": method, "seed": s} for method in METHODS for s in range(seeds or 5)]
        run = small_space(protocol, datasets)
    command = f"python -m nasedu study {name} --data FOLDER --out nasedu/study/results/studies/{name}.json"
    return study.conduct(
        Study(name, command, truth.described(datasets), asdict(protocol)), out, keys, run, progress
    )
