"""A GPU without a GPU: where does a step wait for the device?

torch's `meta` device plays the GPU: tensors without content, on which every `.item()`, `.tolist()` and
`float()` fails, and whose gradients are computed all the same. (A cuda tensor under FakeTensorMode is more
like one, but a torch that was built for CUDA can't go backward without a driver.) Inside `FakeGpu()` an
operation on tensors of both devices raises, as on a GPU; a copy to the host is counted in `reads`, and gives
random numbers; a copy from the host that does not say `non_blocking`, which waits, too, is counted in
`blocking`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("meta")


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Tensors made here have no content and may claim to be on "cuda"; an operation across devices raises."""
    if torch.__version__.startswith("2.6.") and torch.version.cuda and not torch.cuda.is_available():
        pytest.skip("torch 2.6 built for CUDA asks the driver even for tensors without content")
    with FakeTensorMode():
        yield


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


class FakeGpu(TorchDispatchMode):
    """Counts what waits for the device; raises where tensors of two devices meet."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[int, ...]] = []  # the shape of each tensor that came to the host
        self.blocking: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do `func`, if it needs no waiting and no second device."""
        kwargs = kwargs or {}
        name, given = func.overloadpacket.__name__, list(tensors([args, kwargs]))
        if name == "_to_copy" and (target := kwargs.get("device")) is not None:
            source = given[0]
            if source.device == GPU and target.type == "cpu":
                self.reads.append(tuple(source.shape))
                return torch.rand(source.shape, dtype=torch.float64).to(kwargs.get("dtype") or source.dtype)
            if source.device.type == "cpu" and target == GPU and not kwargs.get("non_blocking"):
                self.blocking.append(tuple(source.shape))
        elif name in ("copy_", "_local_scalar_dense", "equal", "is_nonzero") or name.startswith("nonzero"):
            assert all(x.device == given[0].device for x in given), f"{name} waits for the GPU"
            assert name == "copy_" or given[0].device.type == "cpu", f"{name} waits for the GPU"
        elif any(x.device == GPU for x in given):
            alone = [tuple(x.shape) for x in given if x.device != GPU and x.ndim > 0]
            assert not alone or name in ("index", "_index_put_impl_"), f"{name} of two devices: {alone}"
            assert not alone, f"{name}: an index from the host is a copy that waits"
        return func(*args, **kwargs)
