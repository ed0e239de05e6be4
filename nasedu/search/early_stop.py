"""How sharp is the minimum that a search sits in? The largest eigenvalue of d^2 L_val / d alpha^2.

Where DARTS fails it grows, since cutting the matrix down to a cell is a large step in alpha (Zela, Elsken,
Saikia, Marrakchi, Brox, Hutter, ICLR 2020, arXiv:1909.09656, "RobustDARTS").
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


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
    eigenvalues: Sequence[float], factor: float = 1.3, window: int = 5, delta: int = 4, start: int = 10
) -> int | None:
    """Should a search with these eigenvalues, one for each epoch, have stopped? The epoch to go back to.

    It stops at the first epoch from `start` on at which the mean of the last `window` eigenvalues is more
    than `factor` times that mean `delta` epochs before, if that was positive; the answer, counted from 1, is
    the epoch in the middle of the earlier window. None: go on. RobustDARTS, section 4.3. The constants are of
    its released code, which measures every second epoch and takes `start` as the first epoch to go back to.
    """

    def mean(epoch: int) -> float:
        return sum(eigenvalues[epoch - window : epoch]) / window

    for epoch in range(max(start, window + delta), len(eigenvalues) + 1):
        before = mean(epoch - delta)
        if before > 0 and mean(epoch) > factor * before:
            return epoch - delta - window // 2
    return None
