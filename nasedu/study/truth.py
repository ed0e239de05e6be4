"""Ground truth: every architecture of the small space, trained alone, three times.

    table = truth.load()               # 125 architectures x 3 seeds, on CIFAR-10 images
    row = table[0]
    row.names, row.seed, row.test_accuracy, row.seconds, row.parameters, row.curve
    table.mean("test_accuracy")        # (125,), in the order of small.architectures()

`python -m nasedu truth --data FOLDER --out FILE` makes such a file, see `truthjob`. As NAS-Bench-201 did for
15,625 architectures (Dong, Yang, ICLR 2020, arXiv:2001.00326).
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from nasedu.data.datasets import Augment, get_dataset
from nasedu.data.images import ImageDataset, checksum
from nasedu.errors import NaseduError
from nasedu.files import save_text
from nasedu.search.standalone import StandaloneTrainer, one_cycle
from nasedu.space import small
from nasedu.space.choice import ArchError

FORMAT = "nasedu-truth"


class TruthError(NaseduError, ValueError):
    """A file is no truth table, or belongs to other settings; the message says what to do."""


@dataclass(frozen=True)
class Setting:
    """How each architecture is trained: SGD with momentum, the rate up and down once (`one_cycle`).

    `images` for training and `valid_images` for validation are disjoint parts of the dataset's training
    images; `test_images` are of its test images. `precision` is "float32" or "float64".
    """

    images: int = 10_000
    valid_images: int = 2_500
    test_images: int = 10_000
    pixels: int = 16
    channels: int = 16
    epochs: int = 8
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    crop_padding: int = 2
    precision: str = "float32"
    data_seed: int = 0

    def datasets(self, name: str) -> tuple[ImageDataset, ImageDataset, ImageDataset]:
        """(train, valid, test) of the dataset `name`, as `get_dataset` knows it."""
        subset = (self.images + self.valid_images, self.test_images)
        rest, test = get_dataset(name, subset=subset, seed=self.data_seed, input_size=self.pixels)
        return *rest.split(self.images), test


def described(parts: Sequence[ImageDataset]) -> str:
    """The images of `Setting.datasets` in a line: name, how many, and a checksum that no path changes."""
    counts = " + ".join(f"{len(part):,}" for part in parts)
    return f"{parts[0].name}, {counts} images (training + validation + test), {checksum(*parts)}"


# For a test on any machine: a tenth of a second a row, float64, images that the package draws itself. Nothing
# is learnt in six steps; the losses tell whether the code still does the same.
SMALL = Setting(
    images=96, valid_images=64, test_images=64, pixels=8, channels=4, epochs=2, batch_size=32, lr=0.05,
    crop_padding=1, precision="float64",
)  # fmt: skip


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
    setting: Setting,
    datasets: tuple[ImageDataset, ImageDataset, ImageDataset],
    names: Sequence[str],
    seed: int,
    device: torch.device | str = "cpu",
) -> Row:
    """Train one architecture from scratch. The same arguments give the same row on one machine.

    `seed` chooses the weights at the start (the same for an operation wherever it is chosen), the batches
    and their crops. The caller's random state is kept.
    """
    training, valid, test = datasets
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = small.SmallCNN(setting.channels, len(training.classes), search=False)
    model = model.to(getattr(torch, setting.precision)).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), setting.lr, momentum=setting.momentum, weight_decay=setting.weight_decay
    )
    trainer = StandaloneTrainer(
        model,
        optimizer,
        setting.epochs,
        training,
        valid,
        setting.batch_size,
        device,
        arch=small.matrix(names),
        schedule=one_cycle,
        augment=Augment(setting.crop_padding),
        seed=seed,
        progress=False,
    )
    epochs = trainer.fit_to_the_end().epochs
    seconds = time.perf_counter() - started
    return Row(
        names=tuple(names),
        seed=seed,
        valid_accuracy=round(epochs[-1]["valid_acc1"], 6),
        test_accuracy=round(trainer.evaluate(test)["acc1"], 6),
        seconds=round(seconds, 2),
        parameters=small.parameters_of(names, setting.channels, len(training.classes)),
        curve=tuple(round(line["valid_acc1"], 6) for line in epochs),
        losses=tuple(round(line["train_loss"], 9) for line in epochs),
    )


@dataclass(frozen=True)
class Table(Sequence[Row]):
    """The rows, architecture by architecture in the order of `small.architectures()`, and how they came.

    `provenance` says what was run, on what, when: command, source of the images, devices, versions, dates.
    """

    setting: Setting
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
        return Table(self.setting, tuple(rows), self.provenance)

    def to_json(self) -> str:
        """The table as JSON text, a line for each row."""
        head = json.dumps(
            {
                "format": FORMAT,
                "version": 1,
                "setting": asdict(self.setting),
                "provenance": dict(self.provenance),
            }
        )
        lines = ",\n".join(json.dumps(asdict(row)) for row in self.rows)
        return f'{head[:-1]}, "rows": [\n{lines}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> "Table":
        """Read what `to_json` wrote. Raises TruthError for anything else, and says what is wrong where."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TruthError(f"a truth table is JSON text, and this is not: {error}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != 1:
            raise TruthError(f'a truth table is a JSON object with "format": "{FORMAT}", "version": 1')
        setting = _read(Setting, data.get("setting"), "setting")
        lines, provenance = data.get("rows"), data.get("provenance")
        if not isinstance(lines, list) or not isinstance(provenance, dict):
            raise TruthError('a truth table has a list of "rows" and an object "provenance"')
        rows = tuple(_read(Row, line, f"row {i}") for i, line in enumerate(lines))
        for i, row in enumerate(rows):
            _check(row, setting, f"row {i}, {'|'.join(row.names)}, seed {row.seed}")
        counts = Counter((row.names, row.seed) for row in rows)
        if twice := [key for key, count in counts.items() if count > 1]:
            raise TruthError(f"{twice[0]} is there twice")
        return cls(setting, rows, provenance)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON text to `path`, whole or not at all."""
        save_text(path, self.to_json())


def _read(kind: type, data: Any, where: str) -> Any:
    """The dataclass `kind` from JSON's values, each of the type that the field says."""
    hints = get_type_hints(kind)
    if not isinstance(data, dict) or set(data) != set(hints):
        got = f"{sorted(data)}" if isinstance(data, dict) else f"{data!r:.80}"
        raise TruthError(f"{where} wants the fields {sorted(hints)}, got {got}")
    return kind(**{name: _typed(hint, data[name], f"{where}: {name}") for name, hint in hints.items()})


def _typed(wanted: Any, value: Any, where: str) -> Any:
    if get_origin(wanted) is tuple:
        if not isinstance(value, list):
            raise TruthError(f"{where} wants a list, got {value!r:.80}")
        return tuple(_typed(get_args(wanted)[0], each, where) for each in value)
    fits = isinstance(value, int | float if wanted is float else wanted)
    if not fits or isinstance(value, bool):
        raise TruthError(f"{where} wants {wanted.__name__}, got {value!r:.80}")
    return value


def _check(row: Row, setting: Setting, where: str) -> None:
    try:
        small.matrix(row.names)
    except ArchError as error:
        raise TruthError(f"{where}: {error}") from error
    if {len(row.curve), len(row.losses)} != {setting.epochs}:
        raise TruthError(
            f"{where}: wanted {setting.epochs} numbers, one an epoch, got {len(row.curve)} in curve and "
            f"{len(row.losses)} in losses"
        )
    for accuracy in (row.valid_accuracy, row.test_accuracy, *row.curve):
        if not 0 <= accuracy <= 1:
            raise TruthError(f"{where}: an accuracy is a share from 0 to 1, got {accuracy}")


def load(path: str | os.PathLike[str] | None = None) -> Table:
    """The table that came with the package, or the one in the file `path`. TruthError if it is none."""
    return _load("cifar10.json") if path is None else _load(Path(path))


def load_small() -> Table:
    """All architectures once in the setting SMALL, on shapes10: to see that the code still does the same."""
    return _load("small.json")


def _load(file: Path | str) -> Table:
    place = (
        resources.files("nasedu") / "study" / "results" / "truth" / file if isinstance(file, str) else file
    )
    if not place.is_file():
        raise TruthError(f"no truth table {place}; `nasedu truth` makes one")
    try:
        return Table.from_json(place.read_text(encoding="utf-8"))
    except (TruthError, UnicodeDecodeError) as error:
        raise TruthError(f"{place}: {error}") from error
