"""Checkpoints: all that a killed run needs to go on, bit for bit, in one file.

A file is what `torch.save` writes, and behind it a line with the format's version and the sha256 of all
before. What does not add up is refused before anything is read from it; what is read is checked before the
trainer takes it; and if taking it fails, the trainer gets back what it had.
"""

import copy
import hashlib
import io
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nasedu.errors import NaseduError
from nasedu.files import FileError, try_place, whole
from nasedu.search.evaluation import Mean
from nasedu.search.history import History

FORMAT, VERSION = "nasedu-checkpoint", 2
ANEW = "remove it to start anew, or give another path"
SIZE_OF_LINE = 200  # bytes at the end among which the line is looked for


class CheckpointError(NaseduError, RuntimeError):
    """A checkpoint can't be read, or belongs to another run; the message says which and what to do."""


def save(trainer: Any, path: str | os.PathLike[str]) -> None:
    """Write everything a resumed run needs to `path`: whole or not at all, even if killed in between."""
    content = _content(trainer)
    line = f"\n{FORMAT} {VERSION} {hashlib.sha256(content.getbuffer()).hexdigest()}\n"
    with whole(path) as temporary:
        temporary.write_bytes(content.getvalue() + line.encode())


def try_to_save(trainer: Any, path: str | os.PathLike[str]) -> None:
    """Raises FileError if there is no room for a checkpoint at `path`, which stays as it is.

    And CheckpointError if this run keeps what could not be read again.
    """
    content = _content(trainer)
    try:
        torch.load(content, weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise CheckpointError(
            f"{path} could not be read again, since this run keeps {named[1] if named else error} in it; "
            "give the trainer, its optimizer and scheduler plain numbers, as float(rate), texts and tensors"
        ) from error
    try_place(path, 2**20 + 3 * len(content.getbuffer()))  # an optimizer keeps up to two numbers a weight


def load(trainer: Any, path: str | os.PathLike[str]) -> None:
    """Take the state back that `save` wrote.

    Raises CheckpointError, changing nothing, if the file is broken or belongs to another run.
    """
    state = _read(Path(path), trainer.device)
    try:
        _check(trainer, state)
        mean, history = Mean(state["mean"]), History.from_json(state["history"])
        _take(trainer, state)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from error.__cause__
    except Exception as error:  # a file that adds up, and yet was not written by `save`
        raise CheckpointError(
            f"{path} is no readable checkpoint ({type(error).__name__}: {error!s:.200}); {ANEW}"
        ) from error
    trainer.epoch, trainer.step, trainer.mean, trainer.history = state["epoch"], state["step"], mean, history


def _content(trainer: Any) -> io.BytesIO:
    content = io.BytesIO()
    torch.save(_state(trainer), content)
    content.seek(0)
    return content


def _state(trainer: Any) -> dict[str, Any]:
    """All that a file holds."""
    return {
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


# ---- reading


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """The content of the file, if it is what was written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FileError(f"there is no checkpoint {path}: give the path of one") from error
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}; give another path") from error
    line = re.search(rf"\n{FORMAT} (\d+) ([0-9a-f]{{64}})\n\Z".encode(), data[-SIZE_OF_LINE:])
    if line is None:
        # The end of a zip archive: a torch file that is complete.
        if data[-22:].startswith(b"PK\x05\x06"):
            if FORMAT.encode() in data:
                raise CheckpointError(
                    f"{path} was written by an older nasedu, which this one can't go on from: go on with the "
                    f"older one, or {ANEW}"
                )
            raise CheckpointError(f"{path} is a torch file, but no nasedu checkpoint; give another path")
        raise CheckpointError(f"{path} is no readable checkpoint: cut off, or another kind of file; {ANEW}")
    if int(line[1]) != VERSION:
        raise CheckpointError(
            f"{path} was written by another nasedu, in format {int(line[1])}; this one reads {VERSION}: go "
            f"on with the other one, or {ANEW}"
        )
    content = memoryview(data)[: len(data) - len(line[0])]
    if hashlib.sha256(content).hexdigest().encode() != line[2]:
        raise CheckpointError(
            f"{path} is no readable checkpoint: its content is not what was saved (another sha256); {ANEW}"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = archive.infolist()
            # torch writes its parts as they are; packed ones could be of any size.
            if any(p.compress_type for p in parts) or sum(p.file_size for p in parts) > len(content):
                raise ValueError("packed parts")
            # Of a part that is shorter than it says torch takes whatever lies in memory.
            if broken := archive.testzip():
                raise ValueError(f"a broken part, {broken}")
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a broken file
        raise CheckpointError(
            f"{path} is no readable checkpoint ({type(error).__name__}: {error!s:.200}); {ANEW}"
        ) from error
    return state


# ---- checking


def _check(trainer: Any, state: Any) -> None:
    """Raises CheckpointError for all that can be told before the trainer takes it."""
    ours = _state(trainer)
    if not isinstance(state, dict) or set(state) != set(ours):
        parts = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"wants the parts {', '.join(ours)}, and has {parts!s:.200}; {ANEW}")
    if not isinstance(state["config"], dict):
        raise CheckpointError(f"does not say of which run it is ({state['config']!r:.80}); {ANEW}")
    mine, theirs = dict(_leaves(ours["config"])), dict(_leaves(state["config"]))
    saved = {key: value for key, value in theirs.items() if key not in mine or not _same(mine[key], value)}
    wanted = {key: value for key, value in mine.items() if key not in theirs or not _same(theirs[key], value)}
    if saved or wanted:
        raise CheckpointError(
            f"belongs to another run: it has {saved or 'nothing else'!s:.1000}, this run has "
            f"{wanted or 'nothing else'!s:.1000}; "
            "use the same arguments, remove the file, or give another path"
        )
    for name, end in (("epoch", trainer.num_epochs + 1), ("step", trainer.steps_per_epoch)):
        number = state[name]
        if type(number) is not int or not 0 <= number < end:
            raise CheckpointError(f"is at {name} {number!r:.80}; this run has 0 to {end - 1}; {ANEW}")
    lines = History.from_json(state["history"]).epochs
    if [line.get("epoch") for line in lines] != list(range(1, state["epoch"] + 1)):
        raise CheckpointError(f"is at epoch {state['epoch']}, but its history has {len(lines)} lines; {ANEW}")
    for name, pair in state["mean"].items():
        if type(name) is not str or [type(number) for number in pair] != [float, int] or pair[1] < 1:
            raise CheckpointError(f"has no mean of {name!r:.40}: a sum and a count, got {pair!r:.80}; {ANEW}")
    if (ours["scheduler"] is None) != (state["scheduler"] is None):
        raise CheckpointError(
            f"was saved {'without' if trainer.scheduler else 'with'} a scheduler; use the same"
        )
    _alike(ours["model"], state["model"], "the weights of another model: ")
    _alike(ours["scheduler"], state["scheduler"], "the state of another scheduler: ")
    _fits(_made_by(trainer.optimizer), state["optimizer"])
    _finite(ours["extra"], state["extra"], "extra")


def _leaves(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The settings with their names: {"optimizer": {"lr": 0.1}} gives ("optimizer.lr", 0.1)."""
    if isinstance(config, Mapping) and config:
        for key, value in config.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, config


def _alike(ours: Any, theirs: Any, where: str) -> None:
    """Raises CheckpointError unless they have the same names, types, shapes, and finite numbers."""
    if isinstance(ours, Tensor):
        _finite(ours, theirs, where)
        fits = isinstance(theirs, Tensor) and (ours.shape, ours.dtype, ours.layout) == (
            theirs.shape, theirs.dtype, theirs.layout
        )  # fmt: skip
    elif isinstance(ours, Mapping):
        fits = isinstance(theirs, Mapping) and ours.keys() == theirs.keys()
        if isinstance(theirs, Mapping) and not fits:
            names = ", ".join(str(name) for name in list(ours.keys() ^ theirs.keys())[:5])
            raise CheckpointError(f"holds {where}{names} on one side only; {ANEW}")
        for name in ours if fits else ():
            _alike(ours[name], theirs[name], f"{where}{name} ")
    elif isinstance(ours, list | tuple):
        fits = type(ours) is type(theirs) and len(ours) == len(theirs)
        for i in range(len(ours) if fits else 0):
            _alike(ours[i], theirs[i], f"{where}{i} ")
    elif type(ours) in (int, float):
        fits = type(theirs) in (int, float) and abs(theirs) < float("inf")
    else:
        fits = type(ours) is type(theirs)
    if not fits:
        raise CheckpointError(f"holds {where}differs: {_said(theirs)}, and here {_said(ours)}; {ANEW}")


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r:.60}"


def _finite(ours: Any, theirs: Any, where: str) -> None:
    """Raises CheckpointError for a number that is not finite where ours is; for nan where we have none."""
    if isinstance(theirs, Tensor):
        odd = ~theirs.isfinite() if isinstance(ours, Tensor) else theirs.isnan()
        if isinstance(ours, Tensor) and ours.shape == odd.shape:
            odd = odd & ours.isfinite()
        if odd.any():
            raise CheckpointError(f"holds {where}: {int(odd.sum())} numbers are not finite; {ANEW}")
    elif isinstance(theirs, Mapping):
        for name, value in theirs.items():
            _finite(ours.get(name) if isinstance(ours, Mapping) else None, value, f"{where} {name}")
    elif isinstance(theirs, list | tuple):
        for i, value in enumerate(theirs):
            mine = ours[i] if isinstance(ours, list | tuple) and i < len(ours) else None
            _finite(mine, value, f"{where} {i}")


def _fits(made: Mapping[str, Any], state: Any) -> None:
    """Raises CheckpointError unless `state` is like what the optimizer makes, see `_made_by`."""
    if not isinstance(state, dict) or set(state) != {"state", "param_groups"}:
        raise CheckpointError(f"has no optimizer's state, but {state!r:.80}; {ANEW}")
    _alike(made["param_groups"], state["param_groups"], "the settings of another optimizer: group ")
    params = [[group["params"] for group in each["param_groups"]] for each in (made, state)]
    if params[0] != params[1]:
        raise CheckpointError(f"holds the state of an optimizer of other parameters; {ANEW}")
    for number, own in state["state"].items():
        if number not in made["state"]:
            raise CheckpointError(f"holds the state of a parameter {number!r:.40} that is not there; {ANEW}")
        _alike(made["state"][number], own, f"the state of another optimizer: parameter {number} ")


def _made_by(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What the optimizer's state looks like after one more step, which a copy of it takes."""
    probe = copy.copy(optimizer)
    probe.state, probe.param_groups = copy.copy(optimizer.state), []
    for group in optimizer.param_groups:
        copies = [torch.zeros_like(p, requires_grad=True) for p in group["params"]]
        for p, mine in zip(group["params"], copies, strict=True):
            mine.grad = torch.zeros_like(mine)
            if p in optimizer.state:
                probe.state[mine] = copy.deepcopy(probe.state.pop(p))
        probe.param_groups.append({**group, "params": copies})
    type(optimizer).step(probe)
    return probe.state_dict()


# ---- taking


def _take(trainer: Any, state: Mapping[str, Any]) -> None:
    """Weights, optimizers, scheduler and what a subclass adds; all of it, or the trainer stays as it was."""
    others = [each for each in vars(trainer).values() if isinstance(each, torch.optim.Optimizer)]
    made = [_made_by(each) for each in others]
    before = copy.deepcopy(_state(trainer))
    try:
        _give(trainer, state)
        now = _state(trainer)
        for part in ("model", "optimizer", "extra"):
            if not _same(now[part], state[part]):
                raise CheckpointError(f"holds a part that this run can't take as it is: {part}; {ANEW}")
        for wanted, own in zip(made, others, strict=True):
            _fits(wanted, own.state_dict())
    except BaseException:
        _give(trainer, before)
        raise


def _give(trainer: Any, state: Mapping[str, Any]) -> None:
    trainer.model.load_state_dict(state["model"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    if trainer.scheduler is not None:
        trainer.scheduler.load_state_dict(state["scheduler"])
        # It warns if the optimizer has not made a step yet; it has, before the file was saved.
        trainer.optimizer._opt_called = True
    trainer.load_extra_state(state["extra"])


def _same(a: Any, b: Any) -> bool:
    """Equal bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return False
        left, right = (t.detach().cpu().contiguous().flatten().view(torch.uint8) for t in (a, b))
        return torch.equal(left, right)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and bool(a == b)
