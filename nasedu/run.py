"""What `make run` does: search with DARTS and with ENAS, train what they found and two cells drawn blindly,
all from scratch by one recipe, and show whether the searches were worth it.

A record, run.json, holds all of it: the recipe, the searches, the trainings. Two processes of one thread do
half of it each, where there are two cores: a search, and the trainings of its cell and of a blind one.
"""

import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, variance
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from nasedu.data.datasets import get_dataset
from nasedu.data.images import DatasetError, ImageDataset
from nasedu.errors import NaseduError
from nasedu.files import locked, try_place
from nasedu.processes import deaf_to_ctrl_c
from nasedu.profiles import Profile
from nasedu.search.history import History
from nasedu.search.registry import METHODS
from nasedu.show import page
from nasedu.space.genotype import Genotype
from nasedu.study.protocols import FEW_CHOICES, TAUGHT, blind, train_cell
from nasedu.study.recipe import Recipe
from nasedu.study.record import Record, RecordError, conduct, load, plain, stamp
from nasedu.study.statistics import binomial_interval, student
from nasedu.study.truth import described

SEARCHES = {"DARTS": "DARTS 1st", "ENAS": "ENAS"}  # what the page calls them -> the method's name
HALVES = {"DARTS": ("DARTS", "blind 1"), "ENAS": ("ENAS", "blind 2")}  # search -> the cells trained with it
CELLS = (*SEARCHES, "blind 1", "blind 2")
LEAST = (20, 10)  # training and test images, under which nothing can be said


class RunError(NaseduError, RuntimeError):
    """The half of the run that another process did came to nothing; the message says what is known."""


def recipes(sizes: Profile, train: int, seed: int) -> tuple[Recipe, Recipe]:
    """How `make run` searches and how it trains, on so many training images; a profile's sizes are bounds."""
    batch = min(sizes.batch_size, max(2, train // 10))  # five batches in each half, at least
    alone = max(0, sizes.run_enas_epochs - 3)
    search = Recipe(
        pixels=sizes.image_size, images=train, valid_images=0, test_images=sizes.test_images,
        data_seed=seed, channels=sizes.channels, layers=sizes.run_layers, epochs=sizes.run_epochs,
        batch_size=batch, lr=0.05, lr_min=0.001, crop_padding=sizes.image_size // 8, model=FEW_CHOICES,
        methods={
            "DARTS 1st": {"arc_learning_rate": 0.02},
            "ENAS": {
                **TAUGHT, "ctrl_steps": 10, "epochs": sizes.run_enas_epochs, "child_epochs": alone,
                "valid_share": 0.25, "reward_images": min(256, train // 8),
            },
        },
    )  # fmt: skip
    judge = replace(search, epochs=sizes.run_train_epochs, lr_min=0.0, methods={}, model={})
    return search, judge


def images(sizes: Profile, data: str, seed: int) -> tuple[ImageDataset, ImageDataset, list[str]]:
    """Training and test images, and what is to be said of them."""
    name = sizes.dataset if data == "auto" else data
    most = (sizes.run_images, sizes.test_images)
    train, test = get_dataset(name, subset=most, seed=seed, input_size=sizes.image_size, at_most=True)
    if len(train) < LEAST[0] or len(test) < LEAST[1] or len(train.classes) < 2:
        raise DatasetError(
            f"{train.source}: {len(train)} training and {len(test)} test images of {len(train.classes)} "
            f"classes; wanted {LEAST[0]} and {LEAST[1]} or more, of two classes or more: add images"
        )
    said = []
    if (len(train), len(test)) != most:
        said.append(
            f"This profile takes up to {most[0]:,} training and {most[1]:,} test images; there were "
            f"{len(train):,} and {len(test):,}."
        )
    if name != "auto":  # "auto" says it by itself
        print(f"data: {train.source}; {len(train):,} training and {len(test):,} test images")
    return train, test, said


def make(sizes: Profile, data: str, out: Path, seed: int) -> Path:
    """Search, train and write the page into the folder `out`; return the page's path.

    Interrupted, it goes on where it was: with the run that was under way, if it is asked for the same.
    Raises FileError if `out` can't be written, or another process is at it.
    """
    try_place(out / "run.json", 2**22)
    with locked(out / "run.json"):
        return _make(sizes, data, out, seed)


class Plan(NamedTuple):
    """All that a half of the run has to know; another process is sent it."""

    search: Recipe
    judge: Recipe
    data: tuple[ImageDataset, ImageDataset]
    seed: int
    seeds: int
    device: torch.device
    out: Path

    def keys(self, halves: Sequence[str]) -> list[dict[str, Any]]:
        """The runs of these halves: the searches, then the trainings, seed by seed."""
        cells = [cell for cell in CELLS if any(cell in HALVES[name] for name in halves)]
        return [{"search": name, "seed": self.seed} for name in halves] + [
            {"cell": cell, "seed": self.seed + s} for s in range(self.seeds) for cell in cells
        ]

    def found(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Genotype]:
        """The four cells by name, as far as they are known: the blind ones, and those of these rows."""
        drawn = {f"blind {i + 1}": blind(self.seed * 2 + i, self.search.model) for i in range(2)}
        return drawn | {row["key"]["search"]: _cell(row) for row in rows if "search" in row["key"]}


def _make(sizes: Profile, data: str, out: Path, seed: int) -> Path:
    train, test, said = images(sizes, data, seed)
    plan = Plan(*recipes(sizes, len(train), seed), (train, test), seed, sizes.run_seeds, sizes.device, out)
    processes = min(sizes.run_processes, os.cpu_count() or 1, 2)
    try:
        halves = _side_by_side(plan) if processes > 1 else [_half(plan, name) for name in SEARCHES]
    except KeyboardInterrupt:
        print("to go on: the same command again")
        raise
    rows = {str(row["key"]): row for half in halves for row in half}
    record = replace(halves[0], rows=tuple(rows[str(key)] for key in plan.keys(list(SEARCHES))))
    found = plan.found(record.rows)
    written = show(record, plan.judge, found, (train, test), out, sizes.name, said, processes)
    record.save(out / "run.json")
    for name in SEARCHES:
        _forget(out, name)
    return written


def _half(plan: Plan, name: str) -> Record:
    """Search by one method, and train its cell and a blind one; or go on with that."""
    new = Record("run", plan.search, described(plan.data), "python -m nasedu run")
    train, test = plan.data
    found = plan.found(_begun(plan.out, name, new))

    def run(key: Mapping[str, Any]) -> dict[str, Any]:
        options: dict[str, Any] = {"progress": True, "device": plan.device}
        if "cell" in key:
            _say(f"training {key['cell']}'s cell from scratch, seed {key['seed']}")
            return train_cell(plan.judge, (train, test, test), found[key["cell"]], key["seed"], **options)
        options["checkpoint"] = _checkpoint(plan.out, name)
        trainer = plan.search.search(SEARCHES[name], train, plan.seed, **options)
        history = trainer.fit()
        if not trainer.finished():
            raise KeyboardInterrupt
        found[name] = trainer.genotype()
        shared = trainer.score(trainer.best(), test)["acc1"]
        return {"genotype": asdict(found[name]), "shared_acc1": shared, "history": history.epochs}

    return conduct(new, _part(plan.out, name), plan.keys([name]), run, progress=False)


def _side_by_side(plan: Plan) -> list[Record]:
    """Both halves at once: DARTS's in this process, ENAS's in another one, their bars below each other."""
    context, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    lock = context.RLock()
    other = context.Process(target=_other_half, args=(plan, "ENAS", threads, lock), daemon=True)
    before = tqdm.get_lock()
    tqdm.set_lock(lock)
    # Ctrl-C is for this process, which passes it on once the other one can answer it.
    with deaf_to_ctrl_c():
        other.start()
    try:
        mine = _half(plan, "DARTS")
        other.join()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and other.pid and other.is_alive():
            os.kill(other.pid, signal.SIGINT)  # it saves its search, and ends
            other.join(20)
        raise
    finally:
        other.terminate()
        tqdm.set_lock(before)
    if other.exitcode == 130:
        raise KeyboardInterrupt
    if other.exitcode:
        raise RunError(
            f"ENAS's half ended with code {other.exitcode}; if no reason stands above, it was killed, as on "
            "a machine out of memory. To go on: the same command again"
        )
    return [mine, load(_part(plan.out, "ENAS"))]


def _other_half(plan: Plan, name: str, threads: int, lock: Any) -> None:
    """What the other process does: a half of the run, which it leaves in its file."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # out of the terminal's reach
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    tqdm.set_lock(lock)
    try:
        with tqdm(bar_format=" ", total=0, leave=False):  # the line of the first process's bar
            _half(plan, name)
    except KeyboardInterrupt:
        sys.exit(130)
    except NaseduError as error:
        print(f"nasedu: {error}", file=sys.stderr)
        sys.exit(2)


def _say(text: str) -> None:
    """A line of its own, over what a bar of the other process may have left there."""
    tqdm.write("\r" + text.ljust(shutil.get_terminal_size().columns - 1))


def _end_with(parent: Any) -> None:
    """A process that is killed takes its child with it."""
    parent.join()
    os._exit(1)


def _part(out: Path, name: str) -> Path:
    return out / f"{name.lower()}.part.json"


def _checkpoint(out: Path, name: str) -> Path:
    return out / f"{name.lower()}.checkpoint.pt"


def _cell(row: Mapping[str, Any]) -> Genotype:
    return Genotype(**row["genotype"])


def _begun(out: Path, name: str, new: Record) -> Sequence[Mapping[str, Any]]:
    """The rows of the half that was interrupted here, if it was the same; else it is forgotten, and said."""
    part = _part(out, name)
    if not part.exists():
        return ()
    try:
        kept = load(part)
        if (kept.recipe, kept.data) == (Recipe.from_dict(plain(asdict(new.recipe))), new.data):
            return kept.rows
        why = "of other images or sizes"
    except RecordError as error:
        why = f"not readable ({error})"
    print(f"{part} is {why}: begun anew")
    _forget(out, name)
    return ()


def _forget(out: Path, name: str) -> None:
    for path in (_part(out, name), _checkpoint(out, name)):
        path.unlink(missing_ok=True)


# ---- what came of it


def verdict(accuracies: Mapping[str, Sequence[float]], n: int, searched: str) -> str:
    """Is the cell of this search better than the blind ones, by more than luck? In a sentence or two.

    `accuracies` are of each training, on `n` images. The luck of one training is the spread of the trainings
    of one cell, over all cells, or that of having drawn n images, if that is larger; two blind cells are no
    sample of all cells, so they are compared with each other, too.
    """
    mine, others = accuracies[searched], [v for name, v in accuracies.items() if name.startswith("blind")]
    blindly = [value for values in others for value in values]
    p = mean(value for values in accuracies.values() for value in values)
    drawn, df = p * (1 - p) / n, sum(len(values) - 1 for values in accuracies.values())
    spread = mean(variance(values) for values in accuracies.values()) if df else 0.0
    z = student(df) if df and spread > drawn else 1.96
    bound = z * math.sqrt(max(spread, drawn) * (1 / len(mine) + 1 / len(blindly)))
    difference = mean(mine) - mean(blindly)
    apart = abs(mean(others[0]) - mean(others[1]))
    side = "above" if difference >= 0 else "below"
    said = f"{searched}'s cell is {100 * abs(difference):.1f} points {side} the mean of the blind ones"
    luck = f"the luck of training and of having {n:,} test images makes up to {100 * bound:.1f}"
    if abs(difference) <= bound:
        return f"{said}; {luck}: the difference is inside the noise."
    return (
        f"{said}, and {luck}: more than noise. But there are only two blind cells, {100 * apart:.1f} points "
        "from each other; another pair could lie elsewhere."
    )


def show(
    record: Record,
    judge: Recipe,
    found: Mapping[str, Genotype],
    data: tuple[ImageDataset, ImageDataset],
    out: Path,
    profile: str,
    said: Sequence[str],
    processes: int = 1,
) -> Path:
    """Write the page of a whole run."""
    train, test = data
    searches, accuracies, recipe = [], {}, record.recipe
    for name in SEARCHES:
        (row,) = record.select(search=name)
        history, last = History(list(row["history"]), row["seconds"]), row["history"][-1]
        results = {
            "Time": f"{row['seconds']:.0f} CPU seconds, {len(history)} epochs",
            "Accuracy on the images of the weights, last epoch": f"{last['train_acc1']:.1%}",
            "Accuracy on those of the architecture, last epoch": f"{last['valid_acc1']:.1%}",
            f"Accuracy in the supernet, on {len(test):,} other images": f"{row['shared_acc1']:.1%}",
        }
        about = METHODS[SEARCHES[name]].about
        searches.append(
            page.Search(name, about, found[name], last["arch"], history, results, recipe.model["ops"])
        )
    judged = []
    for name, cell in found.items():
        rows = record.select(cell=name)
        accuracies[name] = [row["test_accuracy"] for row in rows]
        whole = mean(accuracies[name])
        interval = binomial_interval(whole, len(test))
        judged.append(page.Judged(name, cell, tuple(accuracies[name]), interval[1:], rows[0]["parameters"]))
    judged.sort(key=lambda each: CELLS.index(each.name))
    enas = recipe.methods["ENAS"]
    together = ", two processes at once" if processes > 1 else ""
    facts = {
        "Data": f"{train.source}: {len(train):,} training images of {len(train.classes)} classes, of which "
        f"DARTS gives half to the architecture, ENAS a quarter; {len(test):,} test images",
        "Space": f"cells of {recipe.model['n_nodes']} nodes, operations {', '.join(recipe.model['ops'])}",
        "Searches": f"{recipe.channels} channels, {recipe.layers} cells, images of {recipe.pixels}x"
        f"{recipe.pixels} pixels, batches of {recipe.batch_size}; DARTS {recipe.epochs} epochs, ENAS "
        f"{enas['epochs']}, of which the controller learns in {enas['epochs'] - enas['child_epochs']}",
        "Training": f"each of the four cells from scratch: {judge.epochs} epochs on all training images, the "
        "same recipe for all",
        "Time": f"{record.minutes:.1f} CPU minutes on {stamp()['device']}{together}",
        "Profile": f"{profile}, seed {recipe.data_seed}",
    }
    if said:
        facts["Sizes"] = " ".join(said)
    verdicts = [verdict(accuracies, len(test), name) for name in SEARCHES]
    for line in verdicts:
        print(line)
    return page.write(out, "Two cells, searched for and judged", facts, verdicts, judged, searches)
