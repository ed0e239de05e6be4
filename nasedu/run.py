"""What `make run` does: search with DARTS and with ENAS, train what they found and two cells drawn blindly,
all from scratch by one recipe, and show whether the searches were worth it.

A record, run.json, holds all of it: the recipe, the searches, the trainings.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, variance
from typing import Any

from nasedu.data.datasets import get_dataset
from nasedu.data.images import DatasetError, ImageDataset
from nasedu.files import locked, try_place
from nasedu.profiles import Profile
from nasedu.search.history import History
from nasedu.search.registry import METHODS
from nasedu.show import page
from nasedu.space.genotype import Genotype
from nasedu.study.protocols import blind, train_cell
from nasedu.study.recipe import Recipe
from nasedu.study.record import Record, RecordError, conduct, load, plain, stamp
from nasedu.study.statistics import binomial_interval, student
from nasedu.study.truth import described

SEARCHES = {"DARTS": "DARTS 1st", "ENAS": "ENAS"}  # what the page calls them -> the method's name
LEAST = (20, 10)  # training and test images, under which nothing can be said


def recipes(sizes: Profile, train: int, seed: int) -> tuple[Recipe, Recipe]:
    """How `make run` searches and how it trains, on so many training images; a profile's sizes are bounds."""
    batch = min(sizes.batch_size, max(2, train // 10))  # five batches in each half, at least
    updates = {"paired": True, "ctrl_lr": 0.01, "ctrl_steps": 20, "ctrl_steps_aggregate": 10}
    alone = max(0, sizes.run_enas_epochs - 3)
    search = Recipe(
        pixels=sizes.image_size, images=train, valid_images=0, test_images=sizes.test_images,
        data_seed=seed, channels=sizes.channels, layers=sizes.layers, epochs=sizes.run_epochs,
        batch_size=batch, lr_min=0.001, crop_padding=sizes.image_size // 8,
        methods={
            "DARTS 1st": {"arc_learning_rate": 0.02},
            "ENAS": {
                **updates, "epochs": sizes.run_enas_epochs, "child_epochs": alone,
                "reward_images": min(256, train // 4),
                "ctrl_kwargs": {
                    "tanh_constant": 2.5, "op_tanh_reduce": 1.0, "start_bias": 0.0, "normal_bias": 0.0,
                },
            },
        },
    )  # fmt: skip
    return search, replace(search, epochs=sizes.run_train_epochs, lr=0.05, lr_min=0.0, methods={})


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


def _make(sizes: Profile, data: str, out: Path, seed: int) -> Path:
    train, test, said = images(sizes, data, seed)
    search, judge = recipes(sizes, len(train), seed)
    cells = [*SEARCHES, "blind 1", "blind 2"]
    keys: list[dict[str, Any]] = [{"search": name, "seed": seed} for name in SEARCHES]
    keys += [{"cell": cell, "seed": seed + s} for s in range(sizes.run_seeds) for cell in cells]
    new = Record("run", search, described((train, test)), "python -m nasedu run")
    part, found = out / "run.part.json", {f"blind {i + 1}": blind(seed * 2 + i) for i in range(2)}
    kept = _begun(part, new, out)
    found.update({row["key"]["search"]: _cell(row) for row in kept if "search" in row["key"]})
    datasets = (train, test, test)

    def run(key: Mapping[str, Any]) -> dict[str, Any]:
        if "cell" in key:
            print(f"training {key['cell']}'s cell from scratch, seed {key['seed']}")
            more = {"progress": True, "device": sizes.device}
            return train_cell(judge, datasets, found[key["cell"]], key["seed"], **more)
        name = key["search"]
        options = {"checkpoint": _checkpoint(out, name), "progress": True, "device": sizes.device}
        trainer = search.search(SEARCHES[name], train, seed, **options)
        history = trainer.fit()
        if not trainer.finished():
            raise KeyboardInterrupt
        found[name] = Genotype.from_dict(trainer.export())
        shared = trainer.score(found[name].arch(), test)["acc1"]
        return {"genotype": asdict(found[name]), "shared_acc1": shared, "history": history.epochs}

    try:
        record = conduct(new, part, keys, run, progress=False)
    except KeyboardInterrupt:
        print("to go on: the same command again")
        raise
    written = show(record, judge, found, (train, test), out, sizes.name, said)
    record.save(out / "run.json")
    for path in (part, *(_checkpoint(out, name) for name in SEARCHES)):
        path.unlink(missing_ok=True)
    return written


def _checkpoint(out: Path, name: str) -> Path:
    return out / f"{name.lower()}.checkpoint.pt"


def _cell(row: Mapping[str, Any]) -> Genotype:
    return Genotype.from_dict({"format": "nasedu-genotype", "version": 1, **row["genotype"]})


def _begun(part: Path, new: Record, out: Path) -> Sequence[Mapping[str, Any]]:
    """The rows of the run that was interrupted here, if it was the same; else it is forgotten, and said."""
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
    for path in (part, *(_checkpoint(out, name) for name in SEARCHES)):
        path.unlink(missing_ok=True)
    return ()


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
) -> Path:
    """Write the page of a whole run."""
    train, test = data
    searches, accuracies = [], {}
    for name in SEARCHES:
        (row,) = record.select(search=name)
        history, last = History(list(row["history"]), row["seconds"]), row["history"][-1]
        results = {
            "Time": f"{row['seconds']:.0f} CPU seconds, {len(history)} epochs",
            "Accuracy on the training half, last epoch": f"{last['train_acc1']:.1%}",
            "Accuracy on the architecture half, last epoch": f"{last['valid_acc1']:.1%}",
            f"Accuracy in the supernet, on {len(test):,} other images": f"{row['shared_acc1']:.1%}",
        }
        about = METHODS[SEARCHES[name]].about
        searches.append(page.Search(name, about, found[name], last["arch"], history, results))
    judged = []
    for name, cell in found.items():
        rows = record.select(cell=name)
        accuracies[name] = [row["test_accuracy"] for row in rows]
        whole = mean(accuracies[name])
        interval = binomial_interval(whole, len(test))
        judged.append(page.Judged(name, cell, tuple(accuracies[name]), interval[1:], rows[0]["parameters"]))
    judged.sort(key=lambda each: [*SEARCHES, "blind 1", "blind 2"].index(each.name))
    recipe, enas = record.recipe, record.recipe.methods["ENAS"]
    facts = {
        "Data": f"{train.source}: {len(train):,} training images of {len(train.classes)} classes, of which a "
        f"search gives half to the weights and half to the architecture; {len(test):,} test images",
        "Searches": f"{recipe.channels} channels, {recipe.layers} cells, images of {recipe.pixels}x"
        f"{recipe.pixels} pixels, batches of {recipe.batch_size}; DARTS {recipe.epochs} epochs, ENAS "
        f"{enas['epochs']}, of which the controller learns in {enas['epochs'] - enas['child_epochs']}",
        "Training": f"each of the four cells from scratch: {judge.epochs} epochs on all training images, the "
        "same recipe for all",
        "Time": f"{record.minutes:.1f} CPU minutes on {stamp()['device']}",
        "Profile": f"{profile}, seed {recipe.data_seed}",
    }
    if said:
        facts["Sizes"] = " ".join(said)
    verdicts = [verdict(accuracies, len(test), name) for name in SEARCHES]
    for line in verdicts:
        print(line)
    return page.write(out, "Two cells, searched for and judged", facts, verdicts, judged, searches)
