"""Ground truth: every architecture of the small space, trained alone, three times.

    table = truth.load()               # 125 architectures x 3 seeds, on CIFAR-10 images
    row = table[0]
    row.names, row.seed, row.test_accuracy, row.seconds, row.parameters, row.curve
    table.mean("test_accuracy")        # (125,), in the order of small.architectures()

`python -m nasedu truth --data FOLDER --out FILE` makes such a file, see `truth_job`. As NAS-Bench-201 did for
15,625 architectures (Dong, Yang, ICLR 2020, arXiv:2001.00326).
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from nasedu.data.images import ImageDataset, checksum
from nasedu.space import small
from nasedu.space.choice import ArchError
from nasedu.study import record
from nasedu.study.recipe import Datasets, Recipe
from nasedu.study.record import Record, RecordError


class TruthError(RecordError):
    """A file is no truth table, or belongs to another recipe; the message says what to do."""


# How each architecture is trained: SGD with momentum, the rate up and down once.
TRUTH = Recipe(
    pixels=16, images=10_000, valid_images=2_500, test_images=10_000, channels=16, layers=0, epochs=8,
    batch_size=64, lr=0.1, weight_decay=5e-4, schedule="one_cycle", crop_padding=2,
)  # fmt: skip
# For a test on any machine: a tenth of a second a row, float64, images that the package draws itself. Nothing
# is learnt in six steps; the losses tell whether the code still does the same.
SMALL = Recipe(
    pixels=8, images=96, valid_images=64, test_images=64, channels=4, layers=0, epochs=2, batch_size=32,
    lr=0.05, weight_decay=5e-4, schedule="one_cycle", crop_padding=1, precision="float64",
)  # fmt: skip


def described(parts: Sequence[ImageDataset]) -> str:
    """The images of `Recipe.datasets` in a line: name, how many, and a checksum that no path changes."""
    counts = " + ".join(f"{len(part):,}" for part in parts)
    kinds = "training + validation + test" if len(parts) == 3 else "training + test"
    return f"{parts[0].name}, {counts} images ({kinds}), {checksum(*parts)}"


@dataclass(frozen=True)
class Row:
    """One architecture, trained once. Accuracies are shares from 0 to 1, `seconds` are of the training.

    `curve` has the validation accuracy after each epoch, `losses` the mean training loss of each.
    """

    names: tuple[str, ...]
    seed: int
    valid_accuracy: float
    test_accuracy: float
    seconds: float
    parameters: int
    curve: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def arch(self) -> dict[str, Tensor]:
        """The architecture as {"cell": zeros and ones (3, 5)}."""
        return small.matrix(self.names)


def train(
    recipe: Recipe, datasets: Datasets, names: Sequence[str], seed: int, device: torch.device | str = "cpu"
) -> Row:
    """Train one architecture from scratch. The same arguments give the same row on one machine.

    `seed` chooses the weights at the start (the same for an operation wherever it is chosen), the batches
    and their crops. The caller's random state is kept.
    """
    training, valid, test = datasets
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = small.SmallCNN(recipe.channels, len(training.classes), search=False)
    model = model.to(device)
    trainer = recipe.training(model, training, valid, seed, device=device, arch=small.matrix(names))
    epochs = trainer.fit_to_the_end().epochs
    seconds = time.perf_counter() - started
    return Row(
        names=tuple(names),
        seed=seed,
        valid_accuracy=round(epochs[-1]["valid_acc1"], 6),
        test_accuracy=round(trainer.evaluate(test)["acc1"], 6),
        seconds=round(seconds, 2),
        parameters=small.parameters_of(names, recipe.channels, len(training.classes)),
        curve=tuple(round(line["valid_acc1"], 6) for line in epochs),
        losses=tuple(round(line["train_loss"], 9) for line in epochs),
    )


@dataclass(frozen=True)
class Table(Sequence[Row]):
    """The rows, architecture by architecture in the order of `small.architectures()`, and how they came.

    `provenance` says what was run, on what, when: command, source of the images, devices, versions, dates.
    """

    recipe: Recipe
    rows: tuple[Row, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @property
    def seeds(self) -> list[int]:
        """The seeds there are, in order."""
        return sorted({row.seed for row in self.rows})

    def missing(self, seeds: Sequence[int]) -> list[tuple[small.Names, int]]:
        """The (architecture, seed) that have no row yet, all architectures of one seed before the next."""
        there = {(row.names, row.seed) for row in self.rows}
        return [
            (names, seed) for seed in seeds for names in small.architectures() if (names, seed) not in there
        ]

    def values(self, what: str) -> Tensor:
        """A column as (125, seeds), float64; "curve" and "losses" as (125, seeds, epochs).

        Raises TruthError while rows are missing.
        """
        if lacking := self.missing(self.seeds or [0]):
            raise TruthError(f"{len(lacking)} rows are missing, {lacking[0]} first: run the command again")
        by_key = {(row.names, row.seed): getattr(row, what) for row in self.rows}
        rows = [[by_key[names, seed] for seed in self.seeds] for names in small.architectures()]
        return torch.tensor(rows, dtype=torch.float64)

    def mean(self, what: str) -> Tensor:
        """A column's mean over the seeds, (125,) or (125, epochs)."""
        return self.values(what).mean(dim=1)

    def with_row(self, row: Row) -> "Table":
        """The table with one row more, in its place. Raises TruthError if it is there already."""
        if (row.names, row.seed) in {(other.names, other.seed) for other in self.rows}:
            raise TruthError(f"the table has {row.names} with seed {row.seed} already")
        order = {names: i for i, names in enumerate(small.architectures())}
        rows = sorted((*self.rows, row), key=lambda row: (order[row.names], row.seed))
        return Table(self.recipe, tuple(rows), self.provenance)

    def to_record(self, name: str = "truth") -> Record:
        """The table as a record: its file's form."""
        rows = []
        for row in self.rows:
            given = asdict(row)
            rows.append(record.plain({"key": {key: given.pop(key) for key in ("names", "seed")}, **given}))
        head = {f.name: self.provenance[f.name] for f in fields(Record) if f.name in self.provenance}
        head = {"data": "", "command": "", **head, "clock": "wall"}
        return Record(name=name, recipe=self.recipe, rows=tuple(rows), **head)

    @classmethod
    def from_record(cls, found: Record) -> "Table":
        """Read what `to_record` gave. Raises TruthError for a record of something else."""
        rows = []
        for i, line in enumerate(found.rows):
            given = {**line["key"], **{name: value for name, value in line.items() if name != "key"}}
            rows.append(_read(given, f"row {i}"))
            _check(rows[-1], found.recipe, f"row {i}, {'|'.join(rows[-1].names)}, seed {rows[-1].seed}")
        head = ("date", "device", "versions", "data", "command")
        return cls(found.recipe, tuple(rows), {name: getattr(found, name) for name in head})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table's record to `path`, whole or not at all."""
        self.to_record().save(path)


def _read(data: Mapping[str, Any], where: str) -> Row:
    """A row from JSON's values, each of the type that the field says."""
    hints = get_type_hints(Row)
    if set(data) != set(hints):
        raise TruthError(f"{where} wants the fields {sorted(hints)}, got {sorted(data)}")
    return Row(**{name: _typed(hint, data[name], f"{where}: {name}") for name, hint in hints.items()})


def _typed(wanted: Any, value: Any, where: str) -> Any:
    if get_origin(wanted) is tuple:
        if not isinstance(value, list):
            raise TruthError(f"{where} wants a list, got {value!r:.80}")
        return tuple(_typed(get_args(wanted)[0], each, where) for each in value)
    fits = isinstance(value, int | float if wanted is float else wanted)
    if not fits or isinstance(value, bool):
        raise TruthError(f"{where} wants {wanted.__name__}, got {value!r:.80}")
    return value


def _check(row: Row, recipe: Recipe, where: str) -> None:
    try:
        small.matrix(row.names)
    except ArchError as error:
        raise TruthError(f"{where}: {error}") from error
    if {len(row.curve), len(row.losses)} != {recipe.epochs}:
        raise TruthError(
            f"{where}: wanted {recipe.epochs} numbers, one an epoch, got {len(row.curve)} in curve and "
            f"{len(row.losses)} in losses"
        )
    for accuracy in (row.valid_accuracy, row.test_accuracy, *row.curve):
        if not 0 <= accuracy <= 1:
            raise TruthError(f"{where}: an accuracy is a share from 0 to 1, got {accuracy}")


def load(path: str | os.PathLike[str] = "truth") -> Table:
    """The table that came with the package, or the one in the file `path`. TruthError if it is none."""
    try:
        found = record.load(path)
    except RecordError as error:
        raise TruthError(f"{error}; `nasedu truth` makes a table") from error
    try:
        return Table.from_record(found)
    except TruthError as error:
        raise TruthError(f"{path}: {error}") from error


def load_small() -> Table:
    """All architectures once by the recipe SMALL, on shapes10: to see that the code still does the same."""
    return load("truth_small")
