"""What decides the result of a run, in words and numbers: a checkpoint of another run is told by it.

Each part is something that a message can show; only images, and code that has no name, are a checksum. What
a function reads from outside itself (a global variable, a file) is not seen.
"""

import functools
import re
import types
import zlib
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasedu.data.images import ImageDataset, InMemory, crc32

# What a learning rate's scheduler counts while it runs.
COUNTS = {"optimizer", "last_epoch", "_step_count", "_last_lr", "_is_initial", "_get_lr_called_within_step"}


def data(*parts: InMemory) -> dict[str, Any]:
    """Of datasets: how many items, the inputs, the labels, and what normalises them."""
    images = [part for part in parts if isinstance(part, ImageDataset)]
    return {
        "inputs": f"{sum(map(len, parts))} images, {crc32(*(part.inputs for part in parts))}",
        "labels": crc32(*(part.labels for part in parts)),
        **{name: getattr(part, name).tolist() for part in images[:1] for name in ("mean", "std")},
    }


def model(module: nn.Module) -> dict[str, Any]:
    """Of a model: its class, how many weights, and a checksum of what it prints as: all its layers."""
    return {
        "class": type(module).__qualname__,
        "weights": sum(p.numel() for p in module.parameters()),
        "layers": _crc(_without_addresses(repr(module))),
    }


def optimizer(own: torch.optim.Optimizer) -> dict[str, Any]:
    """Of an optimizer at the start of a run: its class, and the settings of each group of parameters."""
    groups: list[Any] = []
    for group in own.param_groups:
        settings = {name: described(value) for name, value in group.items() if name != "params"}
        settings["lr"] = described(group.get("initial_lr", group["lr"]))
        groups.append({**settings, "tensors": len(group["params"])})
    first = groups[0] if len(groups) == 1 else {f"group {i}": group for i, group in enumerate(groups)}
    return {"class": type(own).__qualname__, **first}


def described(value: Any, depth: int = 4) -> Any:
    """A number or a text as it is; of anything else what makes it do what it does, as plain data.

    Of a function its name, of one without a name its code and the numbers, texts and functions it was made
    with; of an object its class and its attributes.
    """
    if value is None or isinstance(value, bool):
        return value
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)  # a float of NumPy could not be read from a checkpoint
    if isinstance(value, type):
        return value.__qualname__
    if isinstance(value, Tensor):
        return value.tolist() if value.numel() <= 16 else f"{tuple(value.shape)}, {crc32(value.detach())}"
    if depth == 0:
        return type(value).__qualname__
    if isinstance(value, list | tuple):
        return [described(item, depth - 1) for item in value]
    if isinstance(value, Mapping):
        return {str(key): described(item, depth - 1) for key, item in value.items()}
    if isinstance(value, functools.partial):
        given = {"of": value.func, "args": value.args, **value.keywords}
        return {name: described(item, depth - 1) for name, item in given.items()}
    if isinstance(value, types.MethodType):
        return {"method": value.__name__, "of": described(value.__self__, depth - 1)}
    if isinstance(value, types.FunctionType):
        return _function(value, depth)
    if isinstance(value, nn.Module):
        state = {name: described(tensor) for name, tensor in value.state_dict().items()}
        text = _without_addresses(repr(value))
        return {"module": text if len(text) < 200 else f"{type(value).__qualname__}, {_crc(text)}", **state}
    if isinstance(value, torch.optim.lr_scheduler.LRScheduler):
        settings = {name: item for name, item in vars(value).items() if name not in COUNTS}
        return {"class": type(value).__qualname__} | described(settings, depth)
    if is_dataclass(value):
        return _without_addresses(repr(value))
    name = getattr(value, "__qualname__", type(value).__qualname__)  # a function of C has a name of its own
    attributes = described(getattr(value, "__dict__", {}), depth)
    return {"class": name, **attributes} if attributes else name


def _function(function: types.FunctionType, depth: int) -> Any:
    name = function.__qualname__
    if "<" not in name and function.__module__ != "__main__":
        return f"{function.__module__}.{name}"
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_set(cell)]
    fixed = [
        described(cell, depth - 1) if isinstance(cell, _FIXED) else type(cell).__qualname__ for cell in cells
    ]
    given = described([function.__defaults__ or (), function.__kwdefaults__ or {}], depth - 1)
    return {"function": name, "code": _crc(_code(function.__code__)), "with": [*fixed, given]}


# What can't change while a run goes on.
_FIXED = (type(None), bool, int, float, str, tuple, Tensor, types.FunctionType, functools.partial)


def _is_set(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _code(code: types.CodeType) -> str:
    constants = [
        _code(each)
        if isinstance(each, types.CodeType)
        else sorted(map(repr, each))
        if isinstance(each, frozenset)
        else repr(each)
        for each in code.co_consts
    ]
    return repr((code.co_code, code.co_names, constants))


def _crc(text: str) -> str:
    return f"crc32 {zlib.crc32(text.encode()):08x}"


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
