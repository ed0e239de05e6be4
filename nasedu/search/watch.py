"""Watching a run: the numbers of its steps, read at intervals, and the end of a run that has diverged.

A step leaves its numbers where they were computed; to read one from a GPU is to wait for all that was asked
of it. So the loop keeps them, and reads those of several steps in one copy: every `EVERY` steps (each step on
a CPU, where reading waits for nothing), at the end of an epoch, and before each checkpoint.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nasedu.errors import NaseduError
from nasedu.search.evaluation import Number, read

EVERY = 20  # steps between two readings of an accelerator
LARGEST = 1e19  # a sound state's norm is below: its square is a float32 still
ADVICE = (
    "try a learning rate ten times smaller, bound the gradient (grad_clip=5), and look for numbers that are "
    "not finite in the images, the augmentation, the loss and the metrics"
)


class DivergedError(NaseduError, RuntimeError):
    """A number of a run is no longer finite; the message says which, when, and what to try."""


class Watch:
    """The numbers of the steps since the last reading: `add` keeps them unread, `read` gives them."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, Any]] = []  # where, and the learning rate there
        self.rows: list[Mapping[str, Number]] = []

    def __len__(self) -> int:
        """How many steps wait to be read."""
        return len(self.rows)

    def add(self, where: str, lr: Any, numbers: Mapping[str, Number]) -> None:
        """Keep the numbers of the step at `where` ("epoch 1, step 2 of 3")."""
        self.steps.append((where, lr))
        self.rows.append(numbers)

    def read(self) -> list[dict[str, float]]:
        """The numbers of each step, in one copy from the device; nothing waits afterwards.

        Raises DivergedError for the first step with a number, or a learning rate, that is not finite.
        """
        steps, rows = self.steps, read(self.rows)
        self.steps, self.rows = [], []
        for (where, lr), row in zip(steps, rows, strict=True):
            bad = [f"{name} is {value}" for name, value in row.items() if not math.isfinite(value)]
            if bad or (isinstance(lr, float) and not math.isfinite(lr)):
                norms = [f"{name} {value:.3g}" for name, value in row.items() if is_norm(name)]
                context = ", ".join([f"learning rate {lr}", *norms])
                raise DivergedError(
                    f"{where}: {', '.join(bad) or f'the learning rate is {lr}'} ({context}); {ADVICE}"
                )
        return rows


def is_norm(name: str) -> bool:
    """Is this number of a step a gradient's norm? It is watched, and stays out of the history."""
    return name.endswith("grad_norm")


def check_sound(where: str, state: Mapping[str, Any], lr: object) -> None:
    """Raise DivergedError where tensors or numbers of a nested state have a norm from `LARGEST` up, or none.

    So large a weight is finite itself, but nothing that is computed from it. One reading of the device.
    """
    leaves = dict(_leaves(state))
    tensors = [leaf for leaf in leaves.values() if isinstance(leaf, Tensor)]
    numbers = [abs(leaf) for leaf in leaves.values() if isinstance(leaf, float)]
    with torch.no_grad():
        norms = [float(nn.utils.get_total_norm(tensors)) if tensors else 0.0, *numbers]
        if all(norm < LARGEST for norm in norms):  # false of nan, too
            return
        bad = [name for name, leaf in leaves.items() if not float(torch.as_tensor(leaf).norm()) < LARGEST]
    raise DivergedError(
        f"{where}: {len(bad)} of {len(leaves)} things learned or measured are not finite, or next to it "
        f"({', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''}; learning rate {lr}); {ADVICE}"
    )


def _leaves(state: object, name: str = "") -> Iterator[tuple[str, Tensor | float]]:
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from _leaves(value, f"{name} {key}".strip())
    elif isinstance(state, float) or (isinstance(state, Tensor) and state.is_floating_point()):
        yield name, state
