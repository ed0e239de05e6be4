"""How long does it take? Sides that take turns, medians, and how far this machine is from its own limits.

A time says little by itself: it is of one machine on one day. So sides are measured in turns, in one run, and
what is reported is their ratio.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count


def take_turns(
    sides: Mapping[str, Callable[[], object]],
    rounds: int = 7,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each side in each of `rounds` rounds; in a round every side runs once, one after the other.

    Whatever slows the machine for a while slows all of them. On a GPU each side is waited for.
    """
    if rounds < 1 or not sides:
        raise ValueError(f"wanted one side and one round or more, got {len(sides)} sides and rounds={rounds}")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm_up + rounds):
        for name, run in sides.items():
            _wait()
            started = clock()
            run()
            _wait()
            if number >= warm_up:
                seconds[name].append(clock() - started)
    return seconds


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(seconds: Mapping[str, Sequence[float]], after: str, before: str) -> tuple[float, float, float]:
    """How long `after` takes, in units of `before`: the median over the rounds, and their quartiles."""
    each = sorted(a / b for a, b in zip(seconds[after], seconds[before], strict=True))
    if len(each) < 2:
        return each[0], each[0], each[0]
    low, middle, high = statistics.quantiles(each, n=4)
    return middle, low, high


@dataclass(frozen=True)
class Limits:
    """What a machine can do at best: `flops` a second of a matrix product, `bytes` a second of a copy."""

    flops: float
    bytes: float

    @property
    def ridge(self) -> float:
        """The arithmetic intensity, in FLOP a byte, from which on arithmetic and not memory is the limit."""
        return self.flops / self.bytes

    def seconds(self, flops: float, moved: float) -> float:
        """The shortest time for work of so many FLOP that moves so many bytes (Williams et al. 2009)."""
        return max(flops / self.flops, moved / self.bytes)


def measured_limits(device: torch.device | str = "cpu", size: int = 1024, rounds: int = 5) -> Limits:
    """Measure them: the best of a product of two (size, size) float32 matrices, and of a copy of 64 MiB."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    source = torch.ones(16 * 2**20, device=device)
    target = torch.empty_like(source)
    best = {
        k: min(v)
        for k, v in take_turns({"mm": lambda: a @ b, "copy": lambda: target.copy_(source)}, rounds).items()
    }
    return Limits(2 * size**3 / best["mm"], 2 * source.numel() * source.element_size() / best["copy"])


@dataclass(frozen=True)
class Work:
    """FLOP and bytes of a layer: every map that goes in or out counts once, in float32."""

    flops: float
    moved: float

    @property
    def intensity(self) -> float:
        """FLOP a byte."""
        return self.flops / self.moved


def work_of(kind: str, batch: int, channels: int, size: int, kernel: int = 3) -> Work:
    """The forward work of a layer on maps (batch, channels, size, size), float32.

    `kind` is "pointwise" (1x1 convolution), "depthwise" (kernel x kernel, a channel at a time), "norm" (batch
    norm in training: it reads its input twice) or "sum" (two maps into one).
    """
    numbers = batch * channels * size * size
    flops = {
        "pointwise": 2 * numbers * channels,
        "depthwise": 2 * numbers * kernel**2,
        "norm": 5 * numbers,
        "sum": numbers,
    }
    weights = {"pointwise": channels**2, "depthwise": channels * kernel**2, "norm": 0, "sum": 0}
    if kind not in flops:
        raise ValueError(f"no layer {kind!r}; there are {', '.join(flops)}")
    maps = 2 if kind in ("pointwise", "depthwise") else 3
    return Work(flops[kind], 4 * (maps * numbers + weights[kind]))


class _Moved(TorchDispatchMode):
    """Adds up the bytes of what each kernel reads and writes; a view moves nothing."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and not func.name().startswith(("aten::empty", "aten::new_empty")):
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
            self.total += sum(min(x.nbytes, x.untyped_storage().nbytes()) for x in tensors)  # expanded: once
        return out


def _conv_backward_flop(g: Any, x: Any, weight: Any, *rest: Any, out_shape: Any = None, **_: Any) -> int:
    """Each gradient is as much work as the convolution; torch counts a grouped weight's `groups` times."""
    return sum(rest[-1][:2]) * conv_flop_count(x, weight, g)


def counted(run: Callable[[], object]) -> Work:
    """The work of one call: FLOP of its convolutions and products, bytes of all that its kernels move.

    A map that a kernel reads or writes counts each time, also where a cache holds it.
    """
    own = {torch.ops.aten.convolution_backward: _conv_backward_flop}
    with FlopCounterMode(display=False, custom_mapping=own) as flops, _Moved() as moved:
        run()
    return Work(flops.get_total_flops(), moved.total)


FAMILIES = {
    "convolutions": ("conv",),
    "batch norm": ("batch_norm",),
    "pools": ("pool",),
    "ReLU": ("relu", "clamp", "threshold"),
    "copies": ("copy", "clone", "cat", "contiguous"),
    "products and sums": ("mul", "add", "sum", "div", "sub", "mm", "dot"),
}


def shares_of(profile: torch.autograd.profiler.profile) -> dict[str, float]:
    """Milliseconds of a profile by kind of work, each kernel counted once (its time less its children's)."""
    shares = dict.fromkeys((*FAMILIES, "the rest"), 0.0)
    for event in profile.key_averages():
        name = event.key.lower()
        family = next((f for f, parts in FAMILIES.items() if any(part in name for part in parts)), "the rest")
        shares[family] += event.self_cpu_time_total / 1e3
    return shares


def saved_bytes(forward: Callable[[], object]) -> int:
    """Bytes that `forward` keeps for its backward pass; a tensor that several layers keep counts once."""
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(size for size, _ in kept.values())
