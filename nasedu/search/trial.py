"""Before the first step: do model, optimizer, labels and memory fit together?

What does not is told at once and in the words of this package, instead of as an error from deep inside torch,
or, as with an optimizer of another model, never.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nasedu.data.images import DatasetError, InMemory
from nasedu.errors import ArgumentError, NaseduError
from nasedu.search.evaluation import buffers_kept, modes_kept

if TYPE_CHECKING:
    from nasedu.search.trainer import Trainer

IMAGES = 2  # that a trial takes: batch norm wants more than one
SURE = 0.8  # of an estimate: what does not scale with the batch counts for less


class TooLargeError(NaseduError, RuntimeError):
    """A run does not fit into memory; the message says how much it wants and what to lower."""


def check_optimizer(model: nn.Module, optimizer: Any, scheduler: Any = None) -> None:
    """Raises ArgumentError unless `optimizer` has all weights that want a gradient, `scheduler` this one."""
    wanted = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    missing = [name for name, weight in wanted.items() if id(weight) not in held]
    if missing:
        raise ArgumentError(
            f"the optimizer lacks {len(missing)} of the model's {len(wanted)} weights that want a gradient "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}), and they would never move; "
            "make it of this model's parameters(), after the last change of the model, or freeze what is to "
            "stay as it is by requires_grad_(False)"
        )
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise ArgumentError(
            "the scheduler belongs to another optimizer, whose learning rate it would change; make it of "
            "the optimizer that the trainer gets"
        )


def trial(trainer: Trainer, data: InMemory, x: Tensor) -> None:
    """One forward pass of `IMAGES` items x (B, ...), which changes nothing.

    Raises ArgumentError where the model's weights are of another type than x, DatasetError for labels that
    the model has no class for, TooLargeError where a batch can't fit into memory. What else goes wrong is
    left to the first step to tell.
    """
    own = {p.untyped_storage().data_ptr() for p in (*trainer.model.parameters(), *trainer.model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with modes_kept(trainer.model), buffers_kept(trainer.model), hooks:
        trainer.model.train()
        try:
            logits = trainer.trial(x)
        except Exception as error:
            check_memory(error, trainer)
            dtype = next((p.dtype for p in trainer.model.parameters()), x.dtype)
            if x.is_floating_point() and dtype not in (x.dtype, torch.bfloat16 if trainer.precision else 0):
                raise ArgumentError(
                    f"the model's weights are {dtype}, the images come as {x.dtype}; call model.float(), or "
                    "give a dataset (InMemory) whose inputs are of the model's type"
                ) from error
            return
        logits = logits[0] if isinstance(logits, tuple) else logits
    _check_labels(trainer, data, logits)
    want, free = SURE * sum(kept.values()) * trainer.batch_size / IMAGES, free_memory(trainer.device)
    if free is not None and want > free:
        fits = int(trainer.batch_size * free / want)
        raise TooLargeError(
            f"a step keeps {want / 1e9:.3g} GB of feature maps at least, and {free / 1e9:.3g} GB are free: "
            f"{advice(trainer, x)}"
            + (f"; batch_size={fits} may fit" if fits else "; not even one image fits")
        )


def _check_labels(trainer: Trainer, data: InMemory, logits: Any) -> None:
    """Of cross-entropy and its kin; what another loss makes of labels is its own affair."""
    loss, labels = getattr(trainer, "loss", None), data.labels
    usual = isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or loss is nn.functional.cross_entropy
    if not usual or not isinstance(logits, Tensor) or logits.ndim != 2 or labels.is_floating_point():
        return
    ignored = getattr(loss, "ignore_index", -100)
    counted = labels[labels != ignored]
    low, high, n = int(counted.min()), int(counted.max()), logits.shape[1]
    if low < 0 or high >= n:
        raise DatasetError(
            f"the labels go from {low} to {high}, and the model has {n} classes, numbered from 0 to {n - 1}; "
            f"build it with {high + 1} classes, or correct the labels"
        )


def check_memory(error: Exception, trainer: Trainer) -> None:
    """Raises TooLargeError if this error says that memory ran out."""
    said = re.search(r"can't allocate memory|not enough memory|out of memory", str(error))
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (isinstance(error, RuntimeError) and said):
        raise TooLargeError(
            f"{trainer.device} ran out of memory: {advice(trainer)} ({type(error).__name__}: {error!s:.150})"
        ) from error


def advice(trainer: Trainer, x: Tensor | None = None) -> str:
    """What to lower."""
    images = "smaller images" if x is None or x.ndim < 3 else f"smaller images than {tuple(x.shape[1:])}"
    return (
        f"lower batch_size={trainer.batch_size} first (memory grows with it), then the model's channels or "
        f"layers, or take {images}"
    )


def free_memory(device: torch.device) -> float | None:
    """Bytes that could be had on this device; None where that can't be known."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + cached)
    if device.type != "cpu":
        return None
    found = []
    with contextlib.suppress(OSError, ValueError):  # Linux
        text = Path("/proc/meminfo").read_text()
        found.append(1024.0 * sum(map(int, re.findall(r"^(?:MemAvailable|SwapFree): +(\d+)", text, re.M))))
    with contextlib.suppress(OSError, ValueError):  # a container's bound
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text() for name in ("max", "current"))
        cache = re.search(r"^inactive_file (\d+)", Path("/sys/fs/cgroup/memory.stat").read_text(), re.M)
        found.append(float(limit) - float(used) + float(cache[1] if cache else 0))
    with contextlib.suppress(ImportError, OSError, ValueError):  # this process's own
        import resource

        limit_as = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit_as != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            found.append(float(limit_as - pages * os.sysconf("SC_PAGE_SIZE")))
    return min(found, default=None)
