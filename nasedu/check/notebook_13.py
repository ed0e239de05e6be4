"""The checks of notebook 13, making it fast."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from nasedu.check.contract import Cases, exercise
from nasedu.study.timing import work_of


@exercise(
    "FLOP a byte", hint="2 k k FLOP for each number of the map; 4 bytes for each number in, out, and weight"
)
def intensity(answer: Callable) -> Cases:
    """Check exercise 13.1: `answer(batch, channels, size, kernel)` is that of a depthwise convolution."""
    for batch, channels, size, kernel in [(1, 1, 1, 1), (32, 8, 32, 3), (64, 16, 32, 5), (2, 4, 8, 7)]:
        wanted = work_of("depthwise", batch, channels, size, kernel).intensity
        where = f"B={batch}, C={channels}, {size} pixels, kernel {kernel}"
        yield where, answer(batch, channels, size, kernel), wanted


@exercise("scale and shift", hint="p (y - mean) / sqrt(var + eps) is y times something plus something")
def folded_norm(answer: Callable) -> Cases:
    """Check exercise 13.2: `answer(p, mean, var, eps)` gives scale and shift, (C,) each, of p BN(y)."""
    y = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
    for p in (1.0, 0.25):
        scale, shift = answer(p, mean, var, 1e-5)
        wanted = p * F.batch_norm(y, None, None, training=True, eps=1e-5)
        yield f"weight {p}", scale[:, None, None] * y + shift[:, None, None], wanted


@exercise(
    "side by side", hint="torch.cat along the channels, of the maps and of the filters; groups stay one each"
)
def side_by_side(answer: Callable) -> Cases:
    """Check exercise 13.3: `answer(x, filters)` gives x convolved, depthwise, with each of `filters`."""
    generator = torch.Generator().manual_seed(0)
    for n, kernel in [(1, 3), (3, 3), (4, 5)]:
        x = torch.randn(2, 4, 6, 6, generator=generator)
        filters = [torch.randn(4, 1, kernel, kernel, generator=generator) for _ in range(n)]
        wanted = [F.conv2d(x, w, padding=kernel // 2, groups=4) for w in filters]
        mine = answer(x, filters)
        yield f"{n} filters: how many maps", len(mine), n
        yield f"{n} filters of size {kernel}: the maps", torch.stack(list(mine)), torch.stack(wanted)


@exercise("the whole", hint="what is not touched stays; what is touched takes `ratio` of its time")
def new_time(answer: Callable) -> Cases:
    """Check exercise 13.4: `answer(share, ratio)` is the new time of the whole, in units of the old one."""
    for share, ratio in [(0.5, 0.5), (0.2, 0.1), (1.0, 0.3), (0.0, 0.1), (0.45, 0.0)]:
        yield f"a share of {share} takes {ratio} of its time", answer(share, ratio), 1 - share + share * ratio
