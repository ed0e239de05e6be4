"""A whole step as one CUDA graph: what it asks of the GPU is recorded once, and asked again at one word.

A step of a search is thousands of small pieces of work, and a GPU may be faster at one than Python at asking
for it. Not run on a GPU yet: the tests hold the logic, with a graph that only plays one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nasedu.errors import ArgumentError

WARM_UP = 3  # steps before the recording: buffers of optimizers, choices of algorithms
Step = Callable[..., dict[str, Any]]


def capture(step: Callable[[], dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
    """Record what `step` asks of the GPU, which does none of it yet: the graph, and where its numbers go."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        numbers = step()
    return graph, numbers


class Graphed:
    """`step(*tensors)`, which gives numbers by name, as a graph that reads its tensors from fixed places.

    The first steps are done as they are, then one is recorded, and replayed from then on. A step with another
    `key` (the learning rates, which a graph holds as they were) begins anew. Raises ArgumentError for a
    device without such graphs, and for an optimizer whose count of steps lies on the CPU.
    """

    def __init__(self, step: Step, device: torch.device, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        if device.type != "cuda":
            raise ArgumentError(
                f"cuda_graph=True is for an NVIDIA GPU, and this run is on {device}; leave it out"
            )
        for optimizer in optimizers:
            if not optimizer.defaults.get("capturable", True):
                kind = type(optimizer).__name__
                raise ArgumentError(f"cuda_graph=True wants {kind}(..., capturable=True), or torch.optim.SGD")
        self.step, self.key, self.left = step, object(), 0
        self.graph: Any = None

    def __call__(self, key: object, *tensors: Tensor) -> dict[str, Any]:
        """Do the step on these tensors, whose shapes stay the same."""
        if key != self.key:
            self.key, self.left, self.graph = key, WARM_UP, None
        if self.left:
            self.left -= 1
            return on_a_stream_aside(lambda: self.step(*tensors))
        if self.graph is None:
            self.places = [x.clone() for x in tensors]
            self.graph, self.numbers = capture(lambda: self.step(*self.places))
        for place, x in zip(self.places, tensors, strict=True):
            place.copy_(x)
        self.graph.replay()
        # The next replay writes to the same places.
        return {k: x.clone() if isinstance(x, Tensor) else x for k, x in self.numbers.items()}


def on_a_stream_aside(step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do the step off the main stream: autograd remembers the one on which it first saw a weight."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        numbers = step()
    torch.cuda.current_stream().wait_stream(aside)
    return numbers
