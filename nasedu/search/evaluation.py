"""Measuring: accuracy, means over an epoch, and the evaluation of a model over a dataset."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm.auto import tqdm

from nasedu.data.datasets import batches
from nasedu.data.images import InMemory
from nasedu.errors import ArgumentError, short

Number = float | Tensor  # a tensor of one number may lie on another device
Metrics = Callable[[Tensor, Tensor], Mapping[str, Any]]


def read(rows: Sequence[Mapping[str, Number]]) -> list[dict[str, float]]:
    """The same numbers on the host: those on another device come in one copy, so it is waited for once."""
    tensors = [x.detach() for row in rows for x in row.values() if isinstance(x, Tensor)]
    far = [x.double().reshape(()) for x in tensors if x.device.type != "cpu"]
    came = iter(torch.stack(far).cpu().tolist() if far else ())
    numbers = iter(float(x) if x.device.type == "cpu" else next(came) for x in tensors)
    return [{k: next(numbers) if isinstance(x, Tensor) else float(x) for k, x in r.items()} for r in rows]


def accuracy(output: Tensor, target: Tensor, topk: Sequence[int] = (1,)) -> dict[str, Any]:
    """The share of images whose class is among the k largest logits, for each k: {"acc1": ...}.

    `output` is (B, C), `target` (B,). On a GPU the shares stay there, unread; else they are floats.
    """
    ranked = output.topk(max(topk), dim=1).indices  # (B, max k)
    hits = ranked == target[:, None]
    shares = {f"acc{k}": hits[:, :k].any(dim=1).float().mean() for k in topk}
    return shares if hits.device.type != "cpu" else {name: share.item() for name, share in shares.items()}


def told(metrics: Metrics) -> Metrics:
    """The same metrics; they raise ArgumentError, naming what came, where that is no dict of numbers."""

    def measure(output: Tensor, target: Tensor) -> Mapping[str, Any]:
        numbers = metrics(output, target)
        if isinstance(numbers, Mapping) and all(map(_is_number, numbers.values())):
            return numbers
        raise ArgumentError(
            f'metrics gave {short(numbers)}; wanted numbers by name, such as {{"acc1": 0.5}}: one float, or '
            "tensor of one number, for each"
        )

    return measure


def _is_number(x: object) -> bool:
    return x.numel() == 1 if isinstance(x, Tensor) else isinstance(x, Real)


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Whatever happens inside, the buffers (averages of batch norms) are afterwards what they were."""
    buffers = list(model.buffers())
    saved = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, saved, strict=True):
                buffer.copy_(value)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Whatever happens inside, each module is afterwards in training, or not, as it was."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Evaluate `model` with the batch's own mean and variance in batch norms, and leave no trace.

    The running averages of a supernet belong to no single architecture, so both DARTS and ENAS judge by the
    batch. Everything but batch norm is in eval mode; buffers and modes are afterwards what they were.
    """
    with modes_kept(model), buffers_kept(model):
        model.eval()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.train()
        yield


@contextmanager
def reestimated(model: nn.Module, passes: Iterable[Callable[[], object]]) -> Iterator[None]:
    """Evaluate `model` with batch norms whose averages are made anew from these forward passes.

    Each of `passes` is a function that calls the model on one batch, with the architecture that is to be
    judged; the averages are their plain means. As SPOS does before it ranks children (Guo et al., ECCV 2020,
    arXiv:1904.00420, section 3.4). Buffers and modes are afterwards what they were.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    with modes_kept(model), buffers_kept(model):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain mean over all passes
            model.train()
            with torch.no_grad():
                for forward in passes:
                    forward()
            model.eval()
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


@torch.no_grad()
def evaluate(
    forward: Callable[[Tensor], Tensor],
    dataset: InMemory,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    metrics: Metrics = accuracy,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> dict[str, float]:
    """Mean loss and metrics of `forward(x) -> logits` over a dataset, each item counted once: {"loss":
    ..., "acc1": ...}.

    The caller chooses the mode of the model (`model.eval()`, or `batch_statistics(model)` for a supernet).
    """
    loss = loss or nn.CrossEntropyLoss()
    rows: list[dict[str, Number]] = []
    counts: list[int] = []
    total = -(-len(dataset) // batch_size)
    pairs = batches(dataset, batch_size, drop_last=False, device=device)
    for x, y in tqdm(pairs, total=total, desc="evaluating", disable=not progress, leave=False):
        logits = forward(x)
        rows.append({"loss": loss(logits, y), **metrics(logits, y)})
        counts.append(len(y))
    mean = Mean()
    for row, count in zip(read(rows), counts, strict=True):
        mean.add(row, count)
    return mean.value()


class Mean:
    """A running mean of several numbers by name, weighted by counts; `state` goes into a checkpoint."""

    def __init__(self, state: Mapping[str, Sequence[float]] | None = None):
        self.state: dict[str, list[float]] = {name: list(pair) for name, pair in (state or {}).items()}

    def add(self, values: Mapping[str, float], count: int = 1) -> None:
        """Count each value `count` times."""
        for name, value in values.items():
            pair = self.state.setdefault(name, [0.0, 0])
            pair[0] += float(value) * count
            pair[1] += count

    def value(self) -> dict[str, float]:
        """The means so far."""
        return {name: total / count for name, (total, count) in self.state.items()}


def prefixed(prefix: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """{"acc1": v} -> {"train_acc1": v}."""
    return {f"{prefix}_{name}": value for name, value in numbers.items()}
