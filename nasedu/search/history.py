"""History: what a run measured, one line for each epoch, as JSON."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nasedu.errors import NaseduError, check_number, parsed, short
from nasedu.files import save_text

FORMAT = "nasedu-history"


class HistoryError(NaseduError, ValueError):
    """A text is not a history; the message says why."""


@dataclass
class History:
    """`epochs` holds a dict for each finished epoch: "epoch" (from 1), "lr", losses, metrics, and for a
    search "arch".

    `seconds` is the time that the steps took, all together; it differs from run to run, so it does not
    count when two histories are compared.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = field(default=0.0, compare=False)

    def __len__(self) -> int:
        """The number of finished epochs."""
        return len(self.epochs)

    def column(self, name: str) -> list[Any]:
        """The values of `name`, one for each epoch; for an unknown name a KeyError says which there are."""
        for line in self.epochs:
            if name not in line:
                raise KeyError(f"epoch {line.get('epoch')} has no {name!r}; it has {', '.join(line)}")
        return [line[name] for line in self.epochs]

    def __repr__(self) -> str:
        """One line: how many epochs, and the numbers of the last."""
        if not self.epochs:
            return "History(no finished epoch)"
        last = ", ".join(f"{k}={v:.4g}" for k, v in self.epochs[-1].items() if isinstance(v, float))
        return f"History({len(self)} epochs, {self.seconds:.0f} s; last: {last})"

    def to_json(self) -> str:
        """The history as JSON text; numbers keep all their digits.

        Raises HistoryError for a number that JSON has no word for: nan, or infinite.
        """
        for line in self.epochs:
            try:
                json.dumps(line, allow_nan=False)
            except ValueError as error:
                raise HistoryError(
                    f"epoch {line.get('epoch')} of the history holds {line!s:.300}, which strict JSON can't "
                    f"({error}); let callbacks and metrics write finite numbers, or None"
                ) from error
        return json.dumps({"format": FORMAT, "version": 1, "seconds": self.seconds, "epochs": self.epochs})

    @classmethod
    def from_json(cls, text: str) -> "History":
        """Read what `to_json` wrote. Raises HistoryError for anything else."""
        data = parsed(text, "a history", HistoryError)
        if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != 1:
            raise HistoryError(f'a history is a JSON object that says "format": "{FORMAT}", "version": 1')
        epochs, seconds = data.get("epochs"), data.get("seconds")
        if not isinstance(epochs, list) or not all(isinstance(line, dict) for line in epochs):
            raise HistoryError(f"a history's epochs are a list of objects, got {short(epochs)}")
        return cls(epochs, check_number("a history's seconds", seconds, 0.0, error=HistoryError))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON text to `path`, whole or not at all."""
        save_text(path, self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "History":
        """Read a file that `save` wrote."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (HistoryError, UnicodeDecodeError) as error:
            raise HistoryError(f"{path}: {error}") from error
