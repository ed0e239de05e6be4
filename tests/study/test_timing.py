"""Timing with a clock that is told what to say, work counted by hand, memory counted tensor by tensor."""

import pytest
import torch
from torch.nn import functional as F

from nasedu.study.timing import (
    Limits,
    Work,
    counted,
    measured_limits,
    ratio,
    saved_bytes,
    shares_of,
    take_turns,
    work_of,
)


def test_sides_take_turns_and_the_warm_up_does_not_count():
    order, now = [], [0.0]

    def side(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds if len(order) > 2 else 100.0

        return run

    seconds = take_turns({"a": side("a", 2.0), "b": side("b", 1.0)}, rounds=2, clock=lambda: now[0])
    assert order == ["a", "b"] * 3 and seconds == {"a": [2.0, 2.0], "b": [1.0, 1.0]}
    with pytest.raises(ValueError, match="rounds=0"):
        take_turns({"a": int}, rounds=0)


def test_the_ratio_is_taken_round_by_round_so_that_a_slow_moment_cancels():
    seconds = {"before": [1.0, 10.0, 1.0, 1.0, 1.0], "after": [0.5, 5.0, 0.5, 0.5, 0.5]}
    assert ratio(seconds, "after", "before") == (0.5, 0.5, 0.5)
    # One side alone is slow in one round: the median does not see it, a ratio of sums would.
    seconds = {"before": [1.0] * 5, "after": [0.5, 0.5, 9.0, 0.5, 0.5]}
    assert ratio(seconds, "after", "before")[0] == 0.5
    assert ratio({"a": [3.0], "b": [1.0]}, "a", "b") == (3.0, 3.0, 3.0)


def test_the_work_of_layers_counted_by_hand():
    # 2 maps of 3 channels, 4 x 4: 96 numbers
    assert work_of("pointwise", 2, 3, 4) == Work(2 * 96 * 3, 4 * (2 * 96 + 9))
    assert work_of("depthwise", 2, 3, 4, kernel=5) == Work(2 * 96 * 25, 4 * (2 * 96 + 75))
    assert work_of("norm", 2, 3, 4).moved == work_of("sum", 2, 3, 4).moved == 4 * 3 * 96
    with pytest.raises(ValueError, match="no layer 'pool'; there are pointwise"):
        work_of("pool", 1, 1, 1)


def test_limits():
    limits = Limits(flops=100.0, bytes=10.0)
    assert limits.ridge == 10.0
    assert limits.seconds(1000.0, 10.0) == 10.0 and limits.seconds(10.0, 1000.0) == 100.0
    here = measured_limits(size=64, rounds=1)
    assert here.flops > 0 and here.bytes > 0


def test_a_profile_is_sorted_into_kinds_of_work():
    x, w = torch.randn(8, 4, 16, 16), torch.randn(4, 4, 3, 3)
    with torch.autograd.profiler.profile(use_kineto=False) as seen:
        F.max_pool2d(F.conv2d(x, w), 3).relu()
    shares = shares_of(seen)
    assert all(shares[kind] > 0 for kind in ("convolutions", "pools", "ReLU"))
    assert shares["batch norm"] == 0
    whole = sum(event.self_cpu_time_total for event in seen.key_averages()) / 1e3
    assert sum(shares.values()) == pytest.approx(whole)


def test_what_is_kept_for_the_way_back_counts_once():
    x = torch.randn(100, requires_grad=True)  # 400 bytes
    assert saved_bytes(lambda: x.exp()) == 400  # its output
    assert saved_bytes(lambda: (x * x).sum()) == 400  # x twice, counted once
    assert saved_bytes(lambda: x + 1) == 0


def test_the_work_of_a_call_counted_by_hand():
    x, w = torch.randn(2, 4, 8, 8, requires_grad=True), torch.randn(4, 1, 3, 3, requires_grad=True)
    maps, filters = 4 * 2 * 4 * 8 * 8, 4 * 36  # bytes
    forward = counted(lambda: F.conv2d(x, w, padding=1, groups=4))
    assert forward == Work(2 * 9 * 2 * 4 * 64, 2 * maps + filters)
    y = F.conv2d(x, w, padding=1, groups=4)
    g = torch.ones_like(y)
    both = counted(lambda: torch.autograd.grad(y, (x, w), g, retain_graph=True))
    assert both == Work(2 * forward.flops, 3 * maps + 2 * filters)  # g, x, w in, both gradients out
    assert counted(lambda: torch.autograd.grad(y, w, g)).flops == forward.flops
    assert counted(lambda: g.view(-1)).moved == counted(lambda: torch.empty(9)).moved == 0
    assert counted(lambda: g.add_(1)) == Work(0, 2 * maps)
    assert counted(lambda: g[0] @ g[0]).flops == 2 * 4 * 8**3
