"""The checks of notebook 04 pass the answers that are right, and fail those that students give."""

import pytest
import torch
from torch.nn import functional as F

from nasedu import check


def right_edge(x, ops, alpha):
    return sum(p * op(x) for p, op in zip(alpha.softmax(dim=0), ops, strict=True))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, ops, alpha: sum(p * op(x) for p, op in zip(alpha, ops, strict=True)),
        lambda x, ops, alpha: sum(op(x) for op in ops) / len(ops),
        lambda x, ops, alpha: ops[int(alpha.argmax())](x),
        lambda x, ops, alpha: right_edge(x, ops, alpha.detach()) + 0 * alpha.sum(),
    ],
    ids=["no softmax", "plain mean", "only the largest", "no gradient"],
)
def test_the_mixed_edge(wrong, capsys):
    assert check.mixed_edge(right_edge)
    assert not check.mixed_edge(wrong)
    assert "✗ the mixed edge" in capsys.readouterr().out


def test_the_rim_the_gradient_and_the_merged_filter():
    def gradient(alpha, output_gradient, outputs):
        p, g = alpha.softmax(dim=0), (outputs * output_gradient).flatten(1).sum(dim=1)
        return p * (g - (p * g).sum())

    assert check.same_padding(lambda kernel, dilation: dilation * (kernel - 1) // 2)
    assert not check.same_padding(lambda kernel, dilation: kernel // 2)
    assert check.alpha_gradient(gradient)
    assert not check.alpha_gradient(lambda a, d, o: a.softmax(0) * (o * d).flatten(1).sum(dim=1))
    assert check.merged_filter(lambda three, five, p: p[0] * F.pad(three, (1, 1, 1, 1)) + p[1] * five)
    assert not check.merged_filter(lambda three, five, p: F.pad(three, (1, 1, 1, 1)) + five)
    assert not check.mixed_edge(lambda x, ops, alpha: torch.zeros_like(x))
