"""Studies: many runs under one protocol, kept in one file with all that is needed to run them again.

    study = study.load("small_space")          # a file of nasedu/studies
    study.runs                                 # a list of dicts, one for each run: its key, and what came
    study.select(method="DARTS", seed=0)       # those runs whose key has these values
    print(study.provenance)

`python -m nasedu study NAME --data FOLDER --out FILE` makes such a file; it goes on where it was stopped.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from nasedu.errors import NaseduError
from nasedu.files import save_text, shipped
from nasedu.study.recorded import stamp

FORMAT = "nasedu-study"


class StudyError(NaseduError, ValueError):
    """A file is no study, or one of another protocol; the message says what to do."""


@dataclass(frozen=True)
class Study:
    """`config` is the protocol that all runs share, `runs` are dicts: "key" (method, seed, ...), "date",
    "device", "versions", "cpu_seconds" (of the process, so other work on the machine does not count), and
    what the run gave.
    """

    name: str
    command: str
    data: str
    config: Mapping[str, Any]
    runs: tuple[Mapping[str, Any], ...] = ()

    def select(self, **key: Any) -> list[Mapping[str, Any]]:
        """The runs whose key has these values. Raises StudyError if there is none."""
        found = [run for run in self.runs if all(run["key"].get(k) == v for k, v in key.items())]
        if not found:
            there = sorted({json.dumps(run["key"]) for run in self.runs})
            raise StudyError(f"the study {self.name!r} has no run with {key}; it has {', '.join(there):.400}")
        return found

    @property
    def provenance(self) -> str:
        """Lines that go beside every figure made from this study."""
        settings = ", ".join(f"{key} {value}" for key, value in self.config.items())
        dates = sorted(run["date"][:10] for run in self.runs)
        devices = ", ".join(sorted({run["device"] for run in self.runs}))
        minutes = sum(run["cpu_seconds"] for run in self.runs) / 60
        return (
            f"{self.name}: {len(self.runs)} runs on {self.data}\n{settings}\n"
            f"recorded {dates[0]} to {dates[-1]} in {minutes:.0f} CPU minutes on {devices}; "
            f"again: {self.command}"
        )

    def to_json(self) -> str:
        """The study as JSON text, a line for each run."""
        head = {"format": FORMAT, "version": 1, **{k: v for k, v in asdict(self).items() if k != "runs"}}
        lines = ",\n".join(json.dumps(run) for run in self.runs)
        return f'{json.dumps(head)[:-1]}, "runs": [\n{lines}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> "Study":
        """Read what `to_json` wrote. Raises StudyError for anything else."""
        try:
            data = json.loads(text)
            if data.pop("format") != FORMAT or data.pop("version") != 1:
                raise StudyError(f'a study says "format": "{FORMAT}", "version": 1')
            runs = tuple(data.pop("runs"))
            for run in runs:
                if not {"key", "date", "device", "versions", "cpu_seconds"} <= set(run):
                    raise StudyError(f"not a study: a run lacks its key or its stamp: {run!r:.200}")
            return cls(**data, runs=runs)
        except StudyError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StudyError(f"not a study: {type(error).__name__}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON text to `path`, whole or not at all."""
        save_text(path, self.to_json())


def names() -> list[str]:
    """The studies that came with the package."""
    return list(shipped("studies"))


def load(name: str | os.PathLike[str]) -> Study:
    """The study of this name, or in the file at this path. Raises StudyError if it is none."""
    if isinstance(name, str) and name in shipped("studies"):
        return Study.from_json(shipped("studies")[name].read_text("utf-8"))
    if not Path(name).is_file():
        raise StudyError(f"no study {str(name)!r}; there are {', '.join(names())}, or give a file")
    return Study.from_json(Path(name).read_text(encoding="utf-8"))


def conduct(
    study: Study,
    out: str | os.PathLike[str],
    keys: Sequence[Mapping[str, Any]],
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    progress: bool = True,
) -> Study:
    """Do the runs of these keys that `out` lacks, one after the other, and write the file after each.

    `run(key)` gives a dict that JSON can hold. Raises StudyError if `out` holds another protocol.
    """
    if Path(out).exists():
        kept = load(Path(out))
        if (kept.name, kept.config, kept.data) != (study.name, _plain(study.config), study.data):
            raise StudyError(
                f"{out} holds the study {kept.name!r} of {dict(kept.config)} on {kept.data}, not "
                f"{study.name!r} of {dict(study.config)} on {study.data}; use the same arguments, or give "
                "another file"
            )
        study = kept
    done = [run["key"] for run in study.runs]
    todo: Iterable[Mapping[str, Any]] = [key for key in keys if dict(key) not in done]
    for key in tqdm(todo, desc=study.name, unit="run", disable=not progress):
        started = time.process_time()
        result = _plain(run(key))
        seconds = round(time.process_time() - started, 1)
        line = {"key": dict(key), **stamp(torch.device("cpu")), "cpu_seconds": seconds, **result}
        study = replace(study, runs=(*study.runs, line))
        study.save(out)
    return study


def _plain(data: Any) -> Any:
    """What JSON gives back: tuples become lists, keys strings."""
    return json.loads(json.dumps(data))
