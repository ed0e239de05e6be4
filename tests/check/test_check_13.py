"""The checks of notebook 13: a right answer passes, each known slip fails."""

import pytest
import torch
from torch.nn import functional as F

from nasedu import check


def intensity(batch, channels, size, kernel, slip=""):
    numbers = batch * channels * size * size
    flops = numbers * kernel**2 * (1 if slip == "multiplications alone" else 2)
    moved = 2 * numbers + (0 if slip == "no filter" else channels * kernel**2)
    return flops / ((8 if slip == "float64" else 4) * moved)


def fold(p, mean, var, eps, slip=""):
    scale = p * (var + (0 if slip == "no eps" else eps)).rsqrt()
    if slip == "no root":
        scale = p / (var + eps)
    return scale, -mean if slip == "shift unscaled" else -scale * mean


def side_by_side(x, filters, slip=""):
    n, weight = len(filters), torch.cat(filters)
    wide = torch.cat([x] * n, dim=1) if slip != "interleaved" else x.repeat_interleave(n, dim=1)
    y = F.conv2d(wide, weight, padding=weight.shape[-1] // 2, groups=len(weight))
    return (y,) if slip == "one map" else y.chunk(n, dim=1)


def new_time(share, ratio, slip=""):
    return (
        share * ratio if slip == "the share alone" else 1 - share * (ratio if slip == "saved" else 1 - ratio)
    )


RIGHT = {"intensity": intensity, "folded_norm": fold, "side_by_side": side_by_side, "new_time": new_time}
SLIPS = [
    *(("intensity", slip) for slip in ("multiplications alone", "no filter", "float64")),
    *(("folded_norm", slip) for slip in ("no root", "shift unscaled")),
    *(("side_by_side", slip) for slip in ("interleaved", "one map")),
    *(("new_time", slip) for slip in ("the share alone", "saved")),
]


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_answer_passes(name):
    assert getattr(check, name)(RIGHT[name])


@pytest.mark.parametrize(("name", "slip"), SLIPS)
def test_a_slip_fails(name, slip):
    assert not getattr(check, name)(lambda *given: RIGHT[name](*given, slip=slip))
