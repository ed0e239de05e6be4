"""How sharp is the minimum that a search sits in? The largest eigenvalue of d^2 L_val / d alpha^2.

Where DARTS fails it grows, since cutting the matrix down to a cell is a large step in alpha (Zela, Elsken,
Saikia, Marrakchi, Brox, Hutter, ICLR 2020, arXiv:1909.09656, "RobustDARTS"). `Eigenvalues` measures it
during a search, `EarlyStop` ends the search by it, too: `DartsTrainer(callbacks=[EarlyStop()])`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nasedu.data.datasets import batches
from nasedu.search.darts import DartsTrainer
from nasedu.search.evaluation import batch_statistics


def hessian_vector(loss: Callable[[dict[str, Tensor]], Tensor], alpha: Mapping[str, Tensor]) -> Callable:
    """The function v -> H v for the Hessian H of `loss` at `alpha`, exact; v and H v are flat, (n,).

    n is the number of entries of all of `alpha`'s tensors, in their order. H v is the gradient of the number
    grad(alpha) . v (Pearlmutter 1994), so it costs about two gradients, and H is never formed.
    """
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in alpha.items()}
    inputs = list(leaves.values())

    def flat(tensors: Sequence[Tensor | None]) -> Tensor:
        pairs = zip(tensors, inputs, strict=True)
        return torch.cat([(torch.zeros_like(x) if t is None else t).reshape(-1) for t, x in pairs])

    gradient = flat(torch.autograd.grad(loss(leaves), inputs, create_graph=True, allow_unused=True))

    def product(v: Tensor) -> Tensor:
        if not gradient.requires_grad:  # a loss that is linear in alpha
            return torch.zeros_like(v)
        return flat(torch.autograd.grad(gradient @ v, inputs, retain_graph=True, allow_unused=True))

    return product


def largest_eigenvalue(
    loss: Callable[[dict[str, Tensor]], Tensor],
    alpha: Mapping[str, Tensor],
    steps: int = 20,
    seed: int = 0,
) -> float:
    """The largest (most positive) eigenvalue of the Hessian of `loss` at `alpha`, by Lanczos iteration.

    At most `steps` products H v; with as many steps as `alpha` has entries it is exact but for rounding. Each
    new direction is made orthogonal to all before, twice, without which rounding brings old ones back.
    """
    product = hessian_vector(loss, alpha)
    n = sum(tensor.numel() for tensor in alpha.values())
    like = next(iter(alpha.values())).detach()
    v = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    basis = [v / v.norm()]
    tridiagonal = torch.zeros(min(steps, n), min(steps, n), dtype=torch.float64)
    for i in range(len(tridiagonal)):
        v = product(basis[i].to(like)).to("cpu", torch.float64)
        tridiagonal[i, i] = basis[i] @ v
        for _ in range(2):
            for q in basis:
                v = v - (q @ v) * q
        norm = v.norm()
        if i + 1 == len(tridiagonal) or norm <= 1e-10 * tridiagonal.abs().max():
            tridiagonal = tridiagonal[: i + 1, : i + 1]  # the directions found are all that H reaches
            break
        tridiagonal[i, i + 1] = tridiagonal[i + 1, i] = norm
        basis.append(v / norm)
    return torch.linalg.eigvalsh(tridiagonal)[-1].item()


def stop_epoch(
    eigenvalues: Sequence[float],
    ev_freq: int = 2,
    factor: float = 1.3,
    window: int = 5,
    delta: int = 4,
    start: int = 10,
) -> int | None:
    """Should a search with these eigenvalues have stopped? The epoch to go back to.

    Number i was measured after epoch i x ev_freq, counted from 0. A local average is the mean of `window`
    measurements (fewer at the start) and belongs to the epoch of the middle one. The search stops when a
    local average is more than `factor` times the one `delta` measurements before, and goes back to the
    epoch of that one, if it is `start` or later (from 0): with ev_freq=2 after epoch 22 at the earliest. The
    answer counts from 1, as a history does; None: go on. RobustDARTS as released (src/utils.py, EVLocalAvg);
    ours besides: an average that is not positive stops nothing.
    """
    half = window // 2

    def average(i: int) -> float:
        values = eigenvalues[max(i - half, 0) : i + half + 1]
        return sum(values) / len(values)

    for i in range(delta, len(eigenvalues) - half):
        epoch, before = (i - delta) * ev_freq, average(i - delta)
        if epoch >= start and before > 0 and average(i) > factor * before:
            return epoch + 1
    return None


@dataclass(frozen=True)
class Eigenvalues:
    """A callback of `DartsTrainer`: the Hessian's largest eigenvalue goes into the history.

    Measured after every `ev_freq`-th epoch, the first among them, on the first `images` images of alpha's
    half, by batch statistics; it changes nothing. In the history it is "eigenvalue".
    """

    images: int = 128
    ev_freq: int = 1

    def __post_init__(self) -> None:
        if self.images < 1 or self.ev_freq < 1:
            raise ValueError(f"images and ev_freq count from 1 up, got {self.images} and {self.ev_freq}")

    def measure(self, trainer: DartsTrainer) -> float:
        """The eigenvalue now."""
        images = trainer.valid_half.take(range(min(self.images, len(trainer.valid_half))))
        x, y = next(batches(images, len(images), device=trainer.device))
        with batch_statistics(trainer.model):
            return largest_eigenvalue(
                lambda alpha: trainer.loss(trainer.model(x, trainer.relaxation.arch(alpha)), y), trainer.alpha
            )

    def __call__(self, trainer: DartsTrainer) -> None:
        """Measure, if it is time."""
        if (trainer.epoch - 1) % self.ev_freq == 0:
            trainer.history.epochs[-1]["eigenvalue"] = self.measure(trainer)


@dataclass(frozen=True)
class EarlyStop(Eigenvalues):
    """RobustDARTS: measure the eigenvalue, and end the search where `stop_epoch` says that it should end.

    `arch()` of the search is then that of the epoch gone back to.
    """

    ev_freq: int = 2
    factor: float = 1.3

    def __call__(self, trainer: DartsTrainer) -> None:
        """Measure, if it is time, and stop the search if its eigenvalue has grown too far."""
        super().__call__(trainer)
        measured = [line["eigenvalue"] for line in trainer.history.epochs[:: self.ev_freq]]
        if back := stop_epoch(measured, self.ev_freq, self.factor):
            trainer.stop(back)
