"""Records: what was run, kept in one file with all that is needed to run it again.

    record = load("small_space")                       # a file of nasedu/study/results, or a path
    record.recipe, record.data, record.command         # what was asked, of what, and how again
    record[0]["key"], record[0]["seconds"]             # a row: which run it is, what it cost, what it gave
    record.select(method="DARTS 1st")                  # the rows whose key has these values
    print(record.provenance)                           # what goes beside every figure made from it

A search, a study of many, a truth table and `make run` all write such files: a JSON object, a line for each
row. `conduct` makes one, row by row, and goes on where it was stopped.
"""

import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from nasedu.errors import NaseduError, parsed
from nasedu.files import locked, save_text
from nasedu.search.history import History
from nasedu.study.recipe import LINE, Recipe, RecipeError, wrapped

FORMAT = "nasedu-record"
Row = Mapping[str, Any]


class RecordError(NaseduError, ValueError):
    """A file is no record, or one of something else; the message says what is wrong where."""


@dataclass(frozen=True)
class Record(Sequence[Row]):
    """`rows` are dicts: "key" (method, seed, ...), "seconds", "date", and what the run gave.

    Seconds are of `clock`: "CPU" (of the process, so other work on the machine does not count) or "wall".
    `date` (UTC), `device` and `versions` are those of the beginning; a row that was made on another device
    or with other versions says so itself.
    """

    name: str
    recipe: Recipe
    data: str
    command: str
    date: str = ""
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    clock: str = "CPU"
    rows: tuple[Row, ...] = ()

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def select(self, **key: Any) -> list[Row]:
        """The rows whose key has these values. Raises RecordError if there is none."""
        found = [row for row in self.rows if all(row["key"].get(k) == v for k, v in key.items())]
        if not found:
            there = sorted({json.dumps(row["key"]) for row in self.rows})
            raise RecordError(f"{self.name!r} has no run with {key}; it has {', '.join(there):.400}")
        return found

    @property
    def seeds(self) -> list[int]:
        """The seeds there are, in order."""
        return sorted({row["key"]["seed"] for row in self.rows if "seed" in row["key"]})

    @property
    def minutes(self) -> float:
        """What all rows cost, in minutes of `clock`."""
        return sum(row["seconds"] for row in self.rows) / 60

    @property
    def history(self) -> History:
        """The history of a record that holds a single run. Raises RecordError for another."""
        if len(self.rows) != 1 or "history" not in self.rows[0]:
            raise RecordError(f'{self.name!r} has {len(self.rows)} runs; take one row\'s "history"')
        return History([dict(line) for line in self.rows[0]["history"]], float(self.rows[0]["seconds"]))

    @property
    def provenance(self) -> str:
        """What was run, when, where, and how again: lines that go beside every figure of this record."""
        dates = sorted({self.date[:10], *(row.get("date", self.date)[:10] for row in self.rows)})
        devices = sorted({self.device, *(row.get("device", self.device) for row in self.rows)})
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        clock = "CPU minutes" if self.clock == "CPU" else "min"
        runs = f"{len(self.rows)} run{'s' if len(self.rows) != 1 else ''}"
        what = f"{self.name}: {runs} on {self.data}"
        where = f"recorded {when} in {self.minutes:.0f} {clock} on {', '.join(devices)}"
        again = " \\\n    ".join(wrapped(f"again: {self.command}", LINE - 6))  # as a shell takes it
        return "\n".join([*wrapped(what), str(self.recipe), *wrapped(where), again])

    def to_json(self) -> str:
        """The record as JSON text, a line for each row."""
        head = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "rows"}
        head = {"format": FORMAT, "version": 1, **head, "recipe": asdict(self.recipe)}
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in self.rows)
        return f'{json.dumps(head)[:-1]}, "rows": [\n{lines}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Read what `to_json` wrote. Raises RecordError for anything else, and says what is wrong where."""
        data = parsed(text, "a record", RecordError)
        if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != 1:
            raise RecordError(f'a record is a JSON object with "format": "{FORMAT}", "version": 1')
        wanted = {f.name for f in fields(cls)} | {"format", "version"}
        if set(data) != wanted:
            raise RecordError(f"a record wants the fields {sorted(wanted)}, got {sorted(data)!r:.400}")
        for name in ("name", "data", "command", "date", "device", "clock"):
            _want(isinstance(data[name], str), f"{name} wants text", data[name])
        _want(data["clock"] in ("CPU", "wall"), 'clock wants "CPU" or "wall"', data["clock"])
        _check_stamp(data, "the record")
        _want(isinstance(data["rows"], list), "rows wants a list", data["rows"])
        for i, row in enumerate(data["rows"]):
            _check_row(row, f"row {i}")
        keys = [json.dumps(row["key"], sort_keys=True) for row in data["rows"]]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise RecordError(f"the run {twice} is there twice")
        try:
            recipe = Recipe.from_dict(data["recipe"])
        except RecipeError as error:
            raise RecordError(f"recipe: {error}") from error
        given = {f.name: data[f.name] for f in fields(cls)}
        return cls(**{**given, "recipe": recipe, "rows": tuple(data["rows"])})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON text to `path`, whole or not at all."""
        save_text(path, self.to_json())


# ---- reading


def _want(fits: bool, wanted: str, got: Any) -> None:
    if not fits:
        raise RecordError(f"{wanted}, got {got!r:.80}")


def _check_stamp(data: Mapping[str, Any], where: str) -> None:
    """Date, device and versions, as far as they are there."""
    if "date" in data:
        _want(isinstance(data["date"], str), f"{where}: date wants an ISO date", data["date"])
        try:
            datetime.fromisoformat(data["date"])
        except ValueError as error:
            raise RecordError(f"{where}: date wants an ISO date, got {data['date']!r:.80}") from error
    _want(isinstance(data.get("device", ""), str), f"{where}: device wants text", data.get("device"))
    versions = data.get("versions", {})
    fits = isinstance(versions, dict) and all(isinstance(v, str) for v in versions.values())
    _want(fits, f"{where}: versions wants names and texts", versions)


def _check_row(row: Any, where: str) -> None:
    _want(
        isinstance(row, dict) and isinstance(row.get("key"), dict) and bool(row["key"]),
        f'{where} wants a "key"',
        row,
    )
    for name, value in row["key"].items():
        parts = value if isinstance(value, list) else [value]
        fits = all(isinstance(part, str | int) and not isinstance(part, bool) for part in parts)
        _want(
            fits and not (name == "seed" and not isinstance(value, int)),
            f"{where}: key: {name} wants a name or a whole number",
            value,
        )
    seconds = row.get("seconds")
    fits = isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds >= 0
    _want(fits, f"{where}: seconds wants a number, 0 or more", seconds)
    _check_stamp(row, where)
    if "history" in row:
        lines = row["history"]
        fits = isinstance(lines, list) and all(isinstance(line, dict) and "epoch" in line for line in lines)
        _want(fits, f'{where}: history wants a list of objects, each with its "epoch"', lines)


def shipped() -> dict[str, Any]:
    """The records that came with the package, by name, in alphabetical order."""
    place = resources.files("nasedu") / "study" / "results"
    found = {file.name.removesuffix(".json"): file for file in place.iterdir() if file.name.endswith(".json")}
    return dict(sorted(found.items()))


def load(name: str | os.PathLike[str]) -> Record:
    """The record of this name, or in the file at this path. Raises RecordError if it is none."""
    place = shipped().get(str(name), Path(name)) if isinstance(name, str) else Path(name)
    if not place.is_file():
        raise RecordError(f"no record {str(name)!r}; there are {', '.join(shipped())}, or give a file")
    try:
        return Record.from_json(place.read_bytes().decode("utf-8"))
    except (RecordError, UnicodeDecodeError) as error:
        raise RecordError(f"{place}: {error}") from error


# ---- making


def processor() -> str:
    """The name that the processor gives itself, or else the kind of machine."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a processor that does not say its name
    return model


def this_machine(device: torch.device) -> str:
    """The device in words: a GPU's name, or the CPU's and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def stamp(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Date (UTC), device and versions, as a record keeps them."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": this_machine(torch.device(device)),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def begin(record: Record, out: str | os.PathLike[str]) -> Record:
    """The record at `out`, if that is of the same recipe and data; else `record`, stamped and written there.

    So a place that can't be written is told before the first run. Raises RecordError, or FileError.
    """
    if not Path(out).exists():
        record = replace(record, **stamp())
        record.save(out)
        return record
    kept = load(Path(out))
    asked = (record.name, replace(record.recipe, **plain(asdict(record.recipe))), record.data)
    if (kept.name, kept.recipe, kept.data) != asked:
        raise RecordError(
            f"{out} holds {kept.name!r} of {kept.recipe!r} on {kept.data}, not {record.name!r} of "
            f"{record.recipe!r} on {record.data}; use the same arguments, or give another file"
        )
    return kept


def conduct(
    record: Record,
    out: str | os.PathLike[str],
    keys: Sequence[Mapping[str, Any]],
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    progress: bool = True,
) -> Record:
    """Do the runs of these keys that `out` lacks, in this order, and write the file after each.

    `run(key)` gives a dict that JSON can hold. A bar says how long is left: as long as the runs of the same
    method took, here or before. Raises RecordError if `out` holds something else, FileError if it can't be
    written or another process is at it.
    """
    with locked(out):
        return _conduct(begin(record, out), out, keys, run, progress)


def _conduct(
    record: Record,
    out: str | os.PathLike[str],
    keys: Sequence[Mapping[str, Any]],
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    progress: bool,
) -> Record:
    done = [row["key"] for row in record]
    todo = [plain(dict(key)) for key in keys if plain(dict(key)) not in done]
    with tqdm(
        total=len(keys), initial=len(keys) - len(todo), desc=record.name, unit="run", disable=not progress
    ) as bar:
        for i, key in enumerate(todo):
            bar.set_postfix_str(f"{' '.join(map(str, key.values()))}, {left(record, todo[i:])}")
            started = time.process_time()
            result = plain(run(key))
            seconds = round(time.process_time() - started, 1)
            now = stamp()
            differs = {
                name: now[name] for name in ("device", "versions") if now[name] != getattr(record, name)
            }
            line = {"key": key, "date": now["date"], **differs, "seconds": seconds, **result}
            record = replace(record, rows=(*record.rows, line))
            record.save(out)
            bar.update()
    return record


def left(record: Record, todo: Sequence[Mapping[str, Any]]) -> str:
    """How long these runs will take, judged by those of the same method, or all: "about 1 h 5 min left"."""
    spent: dict[Any, list[float]] = defaultdict(list)
    for row in record:
        spent[str(row["key"].get("method"))].append(row["seconds"])
        spent[...].append(row["seconds"])
    if not spent:
        return "the first"
    seconds = 0.0
    for key in todo:
        like = spent.get(str(key.get("method"))) or spent[...]
        seconds += sum(like) / len(like)
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"about {f'{hours} h ' if hours else ''}{minutes} min left"


def plain(data: Any) -> Any:
    """What JSON gives back: tuples become lists, keys strings."""
    return json.loads(json.dumps(data))
