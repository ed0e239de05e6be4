"""Recorded runs: searches too long for a lesson, really run, kept with all that is needed to run them again.

    run = load("darts_cifar10")       # a file of nasedu/recorded
    run.history, run.genotypes        # as a trainer gave them, epoch by epoch
    print(run.provenance)             # dataset, sizes, seed, device, date, minutes, command

`python -m nasedu record darts --data FOLDER` makes such a file; it goes on where it was stopped.
"""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from nasedu.errors import NaseduError
from nasedu.files import save_text, shipped
from nasedu.search.history import History, HistoryError
from nasedu.space.genotype import Genotype, GenotypeError

FORMAT = "nasedu-recorded"


class RecordedError(NaseduError, ValueError):
    """A file is not a recorded run, or there is none of that name; the message says which there are."""


@dataclass(frozen=True)
class Recorded:
    """A search that was run: what was asked (`config`), of what (`dataset`), where and when, and what came.

    `genotypes` are the cells derived after each epoch (for ENAS: the best sample at the end, alone).
    `results` are measurements after the search, by name, in plain numbers. `minutes` is the search's
    wall time.
    """

    name: str
    method: str
    command: str
    date: str
    device: str
    versions: Mapping[str, str]
    dataset: Mapping[str, Any]
    config: Mapping[str, Any]
    minutes: float
    history: History
    genotypes: tuple[Genotype, ...]
    results: Mapping[str, Any]

    @property
    def provenance(self) -> str:
        """Three lines that go beside every figure made from this run."""
        settings = ", ".join(f"{key} {value}" for key, value in self.config.items())
        images = f"{self.dataset['train']:,} training images"
        return (
            f"{self.name}: {self.method} on {self.dataset['source']}, {images}\n{settings}\n"
            f"recorded {self.date[:10]} in {self.minutes:.0f} min on {self.device}; again: {self.command}"
        )

    def to_json(self) -> str:
        """The run as JSON text."""
        data = {
            **{key: value for key, value in asdict(self).items() if key not in ("history", "genotypes")},
            "history": json.loads(self.history.to_json()),
            "genotypes": [json.loads(genotype.to_json()) for genotype in self.genotypes],
        }
        return json.dumps({"format": FORMAT, "version": 1, **data})

    @classmethod
    def from_json(cls, text: str) -> "Recorded":
        """Read what `to_json` wrote. Raises RecordedError for anything else."""
        try:
            data = json.loads(text)
            if data.pop("format") != FORMAT or data.pop("version") != 1:
                raise RecordedError(f'a recorded run says "format": "{FORMAT}", "version": 1')
            history = History.from_json(json.dumps(data.pop("history")))
            genotypes = tuple(Genotype.from_dict(genotype) for genotype in data.pop("genotypes"))
            return cls(**data, history=history, genotypes=genotypes)
        except RecordedError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, HistoryError, GenotypeError) as error:
            raise RecordedError(f"not a recorded run: {type(error).__name__}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON text to `path`, whole or not at all."""
        save_text(path, self.to_json() + "\n")


def names() -> list[str]:
    """The recorded runs that came with the package."""
    return list(shipped("recorded"))


def load(name: str | os.PathLike[str]) -> Recorded:
    """The recorded run of this name, or in the file at this path. Raises RecordedError if it is none."""
    if isinstance(name, str) and name in shipped("recorded"):
        return Recorded.from_json(shipped("recorded")[name].read_text("utf-8"))
    if not Path(name).is_file():
        raise RecordedError(f"no recorded run {str(name)!r}; there are {', '.join(names())}, or give a file")
    return Recorded.from_json(Path(name).read_text(encoding="utf-8"))


def this_machine(device: torch.device) -> str:
    """The device in words: a GPU's name, or the CPU's and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a processor that does not say its name
    return f"{model}, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def stamp(device: torch.device) -> dict[str, Any]:
    """Date (UTC), device and versions, as a recorded run keeps them."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": this_machine(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
