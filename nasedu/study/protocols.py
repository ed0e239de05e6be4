"""The studies of the course: every search and every training that notebooks 10 to 12 report.

    small_space    searches of the small space, whose truth is known: DARTS, its remedies, ENAS, random; with
                   what happened on the way: histories, eigenvalues, scores by shared weights
    many_seeds     the same space, many seeds, and what was found alone; all methods cost the same
    cell_search    searches of the DARTS space
    retrain        the cells found by cell_search, DARTS_V2 and cells drawn blindly, trained from scratch
    equal_cost     the DARTS space again: searches of the same cost, each cell found trained at once, and as
                   many blind ones
    lengths        the first-order searches of equal_cost, 4 and 16 times as long
    long_search    DARTS with its paper's 50 epochs, small enough for a CPU: how alpha goes, epoch by epoch
    enas_cells     does ENAS's controller learn? A cell search in which it does, and the same with one thing
                   changed, each judged by cells of the controller as taught and as it was at the start

`python -m nasedu study NAME --data FOLDER --out FILE` makes a study: a `record.Record`, row by row. Runs of
one seed come before those of the next, so that a study that was stopped is balanced over the methods.
"""

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nasedu.data.datasets import seeded
from nasedu.data.images import ImageDataset
from nasedu.search.base import SearchTrainer, gap_callback
from nasedu.search.evaluation import batch_statistics, evaluate, modes_kept, reestimated
from nasedu.space import small
from nasedu.space.cells import CNN
from nasedu.space.choice import random_arch
from nasedu.space.derive import cells
from nasedu.space.genotype import PUBLISHED, Genotype
from nasedu.space.network import Network, n_parameters
from nasedu.study import record, truth
from nasedu.study.recipe import Datasets, Recipe
from nasedu.study.record import Record, RecordError

Key = Mapping[str, Any]
Run = Callable[[Key], Mapping[str, Any]]

# Epochs were chosen before the study for about equal cost; what the runs cost in fact is in the record.
SMALL_SPACE = Recipe(
    pixels=16, images=5_000, pool=10_000, channels=16, layers=0, epochs=25, batch_size=32, lr_min=0.001,
    methods={
        "DARTS 1st": {"arc_learning_rate": 0.01, "hessian_images": 128},
        "DARTS 2nd": {"arc_learning_rate": 0.01, "epochs": 10},
        "PC-DARTS": {"arc_learning_rate": 0.01, "epochs": 28},
        "GDAS": {"arc_learning_rate": 0.01, "epochs": 62},
        "ENAS": {
            "epochs": 57, "ctrl_lr": 3.5e-3, "ctrl_steps": 10, "ctrl_steps_aggregate": 10,
            "baseline_decay": 0.95,
        },
        "random": {"epochs": 100, "n_candidates": 100},
    },
)  # fmt: skip
CELL_SEARCH = replace(
    SMALL_SPACE, channels=8, layers=3, epochs=4, batch_size=64,
    methods={
        "DARTS 1st": {"arc_learning_rate": 0.01},
        "DARTS 2nd": {"arc_learning_rate": 0.01, "epochs": 2},
        "ENAS": {**SMALL_SPACE.methods["ENAS"], "epochs": 9},
        "random": {"epochs": 16, "n_candidates": 20},
    },
)  # fmt: skip
# Searches of the same cost: epochs by the CPU seconds that an epoch of each method took here, on 2026-11-24,
# so that all take about as long as 5 epochs of first-order DARTS; the rows say what they took.
MANY_SEEDS = replace(
    SMALL_SPACE, epochs=5, batch_size=64,
    methods={
        "DARTS 1st": {"arc_learning_rate": 0.02},
        "DARTS 2nd": {"arc_learning_rate": 0.02, "epochs": 2},
        "PC-DARTS": {"arc_learning_rate": 0.02, "epochs": 6},
        "GDAS": {"arc_learning_rate": 0.02, "epochs": 16},
        "ENAS": {**SMALL_SPACE.methods["ENAS"], "epochs": 13},
        "random": {"epochs": 20, "n_candidates": 30},
    },
)  # fmt: skip
# A cell search in which the controller learns, and what is changed in the others, one thing at a time; all
# four together are the search of ENAS's released constants, in which it does not.
TAUGHT: dict[str, Any] = {
    "ctrl_steps": 20, "ctrl_steps_aggregate": 10, "paired": True, "ctrl_lr": 0.01,
    "ctrl_kwargs": {"tanh_constant": 2.5, "op_tanh_reduce": 1.0, "start_bias": 0.0, "normal_bias": 0.0},
}  # fmt: skip
LEARNING = {"method": "ENAS", "valid_share": 0.25, "child_epochs": 20, "reward_images": 256, **TAUGHT}
OWN_IMAGES = {"paired": False, "reward_images": None, "baseline_decay": 0.99}
CHANGED: dict[str, dict[str, Any]] = {
    "works": {},
    "own images": OWN_IMAGES,
    "together": {"child_epochs": 0},
    "released constants": {"ctrl_kwargs": {}},
    "slow Adam": {"ctrl_lr": 3.5e-3},
    "all four": {**OWN_IMAGES, "child_epochs": 0, "ctrl_kwargs": {}, "ctrl_lr": 3.5e-3},
}
# A smaller space of cells: a supernet that is trained for minutes only has to learn something in them.
FEW_CHOICES: dict[str, Any] = {
    "n_nodes": 3, "ops": ["max_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5"],
}  # fmt: skip
ENAS_CELLS = Recipe(
    pixels=16, images=8_000, valid_images=0, test_images=100, channels=8, layers=4, epochs=36, batch_size=64,
    lr=0.05,
    methods={name: {**LEARNING, **changed} for name, changed in CHANGED.items()},
    model=FEW_CHOICES,
)  # fmt: skip
# The same in the DARTS space: epochs by CPU seconds on a core of its own (Intel Xeon, 2026-11-24, 1 thread),
# 39 to 40 s a search: 7.8 an epoch of DARTS 1st, 20.2 of 2nd; ENAS 1.5 and 8.4 more where its controller
# learns, 2.3 to choose; random 1.05 and 10.5 for its candidates. The rows say what they took.
EQUAL_COST = replace(
    CELL_SEARCH, images=1_500, epochs=5,
    methods={
        "DARTS 1st": {"arc_learning_rate": 0.02},
        "DARTS 2nd": {"arc_learning_rate": 0.02, "epochs": 2},
        "ENAS": {"epochs": 14, "child_epochs": 12, "reward_images": 128, **TAUGHT},
        "random": {"epochs": 28, "n_candidates": 40},
    },
)  # fmt: skip
LENGTHS = replace(
    EQUAL_COST,
    methods={
        f"DARTS 1st {times}x": {"method": "DARTS 1st", "arc_learning_rate": 0.02, "epochs": 5 * times}
        for times in (4, 16)
    },
)
# The paper's search (arXiv:1806.09055, section 3.1.1), five times fewer steps: 50 epochs of 78 steps for 50
# of 390. Adam moves alpha by about its rate a step, so the rate is five times the paper's 3e-4.
LONG_SEARCH = Recipe(
    pixels=16, images=10_000, channels=8, layers=5, epochs=50, batch_size=64, lr_min=0.001,
    methods={
        "DARTS 1st": {"arc_learning_rate": 1.5e-3},
        "DARTS 2nd": {"arc_learning_rate": 1.5e-3, "epochs": 20},
    },
)  # fmt: skip
# How a cell is judged: DARTS's evaluation (arXiv:1806.09055, section 3.2), much smaller and shorter.
RETRAIN = Recipe(pixels=16, images=10_000, channels=8, layers=5, epochs=5, batch_size=64, lr=0.05)
QUICK = replace(RETRAIN, images=5_000, layers=3, epochs=4)


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


def small_space(recipe: Recipe, datasets: Datasets) -> Run:
    """Search the small space by one method with one seed; look closely at DARTS 1st and random search."""
    train, valid, _ = datasets
    images = valid.take(range(min(1500, len(valid))))

    def run(key: Key) -> dict[str, Any]:
        method = key["method"]
        watched = [gap_callback(images)] if method == "DARTS 1st" else []
        trainer = recipe.search(method, train, key["seed"], callbacks=watched)
        history = trainer.fit_to_the_end()
        result: dict[str, Any] = {"names": small.names_of(trainer.best()), "history": history.epochs}
        if method in ("DARTS 1st", "random"):
            result["scores"] = shared_scores(trainer, images)
        return result

    return run


def many_seeds(recipe: Recipe, datasets: Datasets) -> Run:
    """Search the small space by one method with one seed, and keep what was found."""

    def run(key: Key) -> dict[str, Any]:
        trainer = recipe.search(key["method"], datasets[0], key["seed"])
        line = trainer.fit_to_the_end().epochs[-1]
        last = {
            name: round(line[name], 4) for name in ("train_acc1", "valid_acc1", "entropy") if name in line
        }
        return {"names": small.names_of(trainer.best()), **last}

    return run


def cell_search(recipe: Recipe, datasets: Datasets) -> Run:
    """Search the DARTS space by one method with one seed."""

    def run(key: Key) -> dict[str, Any]:
        trainer = recipe.search(key["method"], datasets[0], key["seed"])
        history = trainer.fit_to_the_end()
        return {"genotype": asdict(trainer.genotype()), "history": history.epochs}

    return run


def long_search(recipe: Recipe, datasets: Datasets) -> Run:
    """As `cell_search`; with the gap after each epoch, and the cell found trained from scratch by RETRAIN."""
    images = datasets[1].take(range(min(1000, len(datasets[1]))))

    def run(key: Key) -> dict[str, Any]:
        trainer = recipe.search(key["method"], datasets[0], key["seed"], callbacks=[gap_callback(images)])
        history = trainer.fit_to_the_end()
        trained = train_cell(RETRAIN, datasets, trainer.genotype(), key["seed"])
        return {"genotype": asdict(trainer.genotype()), **trained, "history": history.epochs}

    return run


def train_cell(
    recipe: Recipe, datasets: Datasets, cell: Genotype, seed: int, **options: Any
) -> dict[str, Any]:
    """Train one cell from scratch with one seed: its weights, its test accuracy, its history.

    `options` go to the trainer (progress, device, ...).
    """
    train, valid, test = datasets
    torch.manual_seed(seed)
    network = Network(
        cell, recipe.channels, len(train.classes), recipe.layers, in_channels=train.images.shape[1]
    )
    trainer = recipe.training(network, train, valid, seed, **options)
    history = trainer.fit_to_the_end()
    return {
        "parameters": n_parameters(network),
        "test_accuracy": round(trainer.evaluate(test)["acc1"], 5),
        "history": history.epochs,
    }


def equal_cost(recipe: Recipe, datasets: Datasets, judge: Recipe = QUICK) -> Run:
    """Search the DARTS space by one method, or draw "blind", and train the cell from scratch at once.

    A row's "search_seconds" are the CPU seconds of the search alone.
    """

    def run(key: Key) -> dict[str, Any]:
        method, seed = key["method"], key["seed"]
        if method == "blind":
            cell, searched = blind(seed), 0.0  # there is no search to pay for
        else:
            started = time.process_time()
            trainer = recipe.search(method, datasets[0], seed)
            trainer.fit_to_the_end()
            cell, searched = trainer.genotype(), time.process_time() - started
        trained = train_cell(judge, datasets, cell, seed)
        curve = [round(line["valid_acc1"], 5) for line in trained.pop("history")]
        return {"search_seconds": round(searched, 1), "genotype": asdict(cell), **trained, "curve": curve}

    return run


def retrain(recipe: Recipe, datasets: Datasets, cells: Mapping[str, Genotype]) -> Run:
    """Train one of `cells` from scratch with one seed: key {"cell": its name, "seed": ...}."""
    return lambda key: train_cell(recipe, datasets, cells[key["cell"]], key["seed"])


def blind(seed: int, model: Mapping[str, Any] | None = None) -> Genotype:
    """A cell of the DARTS space, or that of a recipe's `model`, drawn without any search."""
    net = CNN(8, 3, 2, 10, 3, **(model or {}))
    return Genotype.from_arch(random_arch(net, seeded(1000 + seed)), cells(net))


def cells_of(found: Record, n_blind: int = 3) -> dict[str, Genotype]:
    """The cells to retrain: those of a `cell_search` record, `n_blind` drawn blindly, and DARTS_V2."""
    cells = {f"{row['key']['method']} {row['key']['seed']}": Genotype(**row["genotype"]) for row in found}
    cells.update({f"blind {i}": blind(i) for i in range(n_blind)})
    return {**cells, "DARTS_V2": PUBLISHED["DARTS_V2"]}


def keys(recipe: Recipe, seeds: int, *more: str) -> list[dict[str, Any]]:
    """All methods of a recipe, and `more`, with the seeds 0, 1, ...: seed by seed."""
    return [{"method": method, "seed": seed} for seed in range(seeds) for method in (*recipe.methods, *more)]


def enas_cells(recipe: Recipe, datasets: Datasets) -> Run:
    """Search by one variant with one seed; rewards of 40 cells of the taught and of 40 of the untaught
    controller, all in the same supernet on the same 512 images of those that give rewards.
    """

    def run(key: Key) -> dict[str, Any]:
        trainer = recipe.search(key["method"], datasets[0], key["seed"], candidate_images=512)
        untaught = deepcopy(trainer.controller)
        history = trainer.fit_to_the_end()
        rewards = {}
        for name, controller in (("taught", trainer.controller), ("untaught", untaught)):
            with torch.no_grad():
                sample = controller.sample(40, seeded(key["seed"], 10))
            candidates = trainer.rank(sample[i] for i in range(len(sample)))
            rewards[name] = [round(candidate.scores["reward"], 5) for candidate in candidates]
        return {**rewards, "history": history.epochs}

    return run


class Study(NamedTuple):
    """A study's recipe, how many seeds it is shipped with, what one run does, and what else has keys."""

    recipe: Recipe
    seeds: int
    run: Callable[[Recipe, Datasets], Run]
    more: tuple[str, ...] = ()


STUDIES: dict[str, Study] = {
    "small_space": Study(SMALL_SPACE, 5, small_space),
    "many_seeds": Study(MANY_SEEDS, 45, many_seeds),
    "cell_search": Study(CELL_SEARCH, 2, cell_search),
    "equal_cost": Study(EQUAL_COST, 12, equal_cost, ("blind",)),
    "lengths": Study(LENGTHS, 12, equal_cost),
    "long_search": Study(LONG_SEARCH, 4, long_search),
    "enas_cells": Study(ENAS_CELLS, 5, enas_cells),
}
NAMES = (*STUDIES, "retrain")


def make(
    name: str,
    data: str,
    out: str | os.PathLike[str],
    seeds: int | None = None,
    cells: str | os.PathLike[str] = "cell_search",
    progress: bool = True,
    methods: Sequence[str] = (),
) -> Record:
    """Make the study of this name on the images `data`, or go on with the one at `out`.

    `retrain` reads the cells of the record `cells`. `methods` are the only ones to run now (default: all).
    Raises RecordError as `record.conduct` does, and for a method that the study has not.
    """
    if name not in NAMES:
        raise RecordError(f"no study {name!r}; there are {', '.join(NAMES)}")
    datasets = (RETRAIN if name == "retrain" else STUDIES[name].recipe).datasets(data)
    if name == "retrain":
        found = cells_of(record.load(cells))
        recipe, run = RETRAIN, retrain(RETRAIN, datasets, found)
        todo = [{"cell": cell, "seed": seed} for seed in range(seeds or 2) for cell in found]
    else:
        study = STUDIES[name]
        recipe, run = study.recipe, study.run(study.recipe, datasets)
        todo = keys(recipe, seeds or study.seeds, *study.more)
        for method in methods:
            if method not in (*recipe.methods, *study.more):
                raise RecordError(f"{name} has no method {method!r}; wanted {', '.join(recipe.methods)}")
        todo = [key for key in todo if not methods or key["method"] in methods]
    command = f"python -m nasedu study {name} --data FOLDER --out nasedu/study/results/{name}.json"
    return record.conduct(Record(name, recipe, truth.described(datasets), command), out, todo, run, progress)
