"""Checkpoints: all that a killed run needs to go on, bit for bit, in one file."""

import os
from pathlib import Path
from typing import Any

import torch

from nasedu.errors import NaseduError
from nasedu.files import whole
from nasedu.search.evaluation import Mean
from nasedu.search.history import History

FORMAT = "nasedu-checkpoint"


class CheckpointError(NaseduError, RuntimeError):
    """A checkpoint can't be read, or belongs to another run; the message says which and what to do."""


def save(trainer: Any, path: str | os.PathLike[str]) -> None:
    """Write everything a resumed run needs to `path`: whole or not at all, even if killed in between."""
    state = {
        "format": FORMAT,
        "config": trainer.config(),
        "epoch": trainer.epoch,
        "step": trainer.step,
        "mean": trainer.mean.state,
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict() if trainer.scheduler is not None else None,
        "extra": trainer.extra_state(),
        "history": trainer.history.to_json(),
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def load(trainer: Any, path: str | os.PathLike[str]) -> None:
    """Take the state back that `save` wrote.

    Raises CheckpointError, changing nothing, if the file is broken or belongs to another run.
    """
    try:
        state = torch.load(path, map_location=trainer.device, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises many kinds for a broken file
        raise CheckpointError(
            f"{path} is no readable checkpoint ({type(error).__name__}: {str(error):.200}); "
            "remove it to start anew, or give another path"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a torch file, but no nasedu checkpoint; give another path")
    ours, theirs = trainer.config(), state["config"]
    differing = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    if differing:
        saved = {key: theirs.get(key) for key in differing}
        wanted = {key: ours.get(key) for key in differing}
        raise CheckpointError(
            f"{path} belongs to another run: it has {saved}, this run has {wanted}; "
            "use the same arguments, remove the file, or give another path"
        )
    if (trainer.scheduler is None) != (state["scheduler"] is None):
        raise CheckpointError(
            f"{path} was saved {'without' if trainer.scheduler else 'with'} a scheduler; use the same"
        )
    shapes = [
        {name: tuple(t.shape) for name, t in s.items()} for s in (trainer.model.state_dict(), state["model"])
    ]
    if shapes[0] != shapes[1]:
        names = [name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)]
        raise CheckpointError(f"{path} holds the weights of another model: {', '.join(names[:5])} differ")
    trainer.model.load_state_dict(state["model"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    if trainer.scheduler is not None:
        trainer.scheduler.load_state_dict(state["scheduler"])
    trainer.load_extra_state(state["extra"])
    trainer.epoch, trainer.step, trainer.mean = state["epoch"], state["step"], Mean(state["mean"])
    trainer.history = History.from_json(state["history"])
