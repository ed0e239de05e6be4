"""Plant an operation and see whether a mixed edge finds it: the smallest search whose right answer is known.

A *teacher*, one operation with random weights, makes targets out of noise. A mixed edge, with all candidates
and random weights of its own, learns to give what the teacher gives, by the two steps of DARTS in turn:
alpha on one batch, w on another. Its softmax should come to rest on the operation that was planted.

    python -m nasedu.study.planted [seeds]      plant each operation with seeds 0, 1, ... (5); a second each

The candidates' function spaces are nested: `dil_conv_5x5` with zeros around its inner taps *is*
`dil_conv_3x3`. What decides between those two is who learns faster, and whose idle taps cost more, so the
optimizer's settings matter (notebook 04, section 4, measures it). The weights are trained by SGD, which turns
a kernel of 25 taps no faster than one of 9, while Adam does. Batches are small, since the noise of a gradient
harms a kernel in proportion to its taps. Weight decay on w keeps a candidate of small softmax weight able to
learn: batch norm makes it indifferent to the size of its weights, so as they shrink, a step turns them more.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nasedu.space.choice import LayerChoice
from nasedu.space.ops import PRIMITIVES, make_op


@dataclass(frozen=True)
class Planted:
    """One trial: what was planted, and the softmax's path, `weights` (steps + 1, operations)."""

    planted: str
    ops: tuple[str, ...]
    weights: Tensor
    loss: float  # mean squared error of the last step, in units of the targets' variance (none: of 1)

    @property
    def found(self) -> str:
        """The operation of the largest weight at the end."""
        return self.ops[int(self.weights[-1].argmax())]


def plant(
    op: str,
    seed: int = 0,
    steps: int = 180,
    ops: Sequence[str] = PRIMITIVES,
    channels: int = 8,
    size: int = 12,
    batch_size: int = 4,
    lr: float = 0.3,
    momentum: float = 0.9,
    weight_decay: float = 0.05,
    arc_learning_rate: float = 0.1,
) -> Planted:
    """Train a mixed edge of `ops` to imitate a fresh `op` on noise (batch_size, channels, size, size).

    Each step moves alpha (Adam, as in DARTS, arXiv:1806.09055, section 3.1) and then w (SGD), on batches of
    their own, first order. Torch's global random state is left as it was. Raises ValueError where `op` is
    not one of `ops`.
    """
    if op not in ops:
        raise ValueError(f"{op!r} can't be found among {', '.join(ops)}; plant one of these")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        teacher = make_op(op, channels)
        edge = LayerChoice({name: make_op(name, channels) for name in ops}, "edge")
        alpha = torch.zeros(1, len(ops), requires_grad=True)
        w = list(edge.parameters())
        w_optimizer = torch.optim.SGD(w, lr, momentum, weight_decay=weight_decay)
        alpha_optimizer = torch.optim.Adam([alpha], arc_learning_rate, betas=(0.5, 0.999))

        def loss() -> Tensor:
            x = torch.randn(batch_size, channels, size, size)
            with torch.no_grad():
                y = teacher(x)
            return (edge(x, {"edge": alpha.softmax(dim=1)}) - y).square().mean()

        path = [alpha.detach().softmax(dim=1)[0]]
        for _ in range(steps):
            (alpha.grad,) = torch.autograd.grad(loss(), [alpha])
            alpha_optimizer.step()
            last = loss()
            for weight, gradient in zip(w, torch.autograd.grad(last, w), strict=True):
                weight.grad = gradient
            w_optimizer.step()
            path.append(alpha.detach().softmax(dim=1)[0])
    return Planted(op, tuple(ops), torch.stack(path), last.item())


def main(seeds: int = 5) -> int:
    """Plant every operation with seeds 0, 1, ..., print a line for each, and return how many were found."""
    found = 0
    for op in PRIMITIVES:
        trials = [plant(op, seed) for seed in range(seeds)]
        ends = " ".join(
            f"{trial.weights[-1].max():.2f}" + ("" if trial.found == op else f" ({trial.found})")
            for trial in trials
        )
        print(f"{op:14}{ends}", flush=True)
        found += sum(trial.found == op for trial in trials)
    print(f"found {found} of {len(PRIMITIVES) * seeds}")
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
