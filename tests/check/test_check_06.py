"""The checks of notebook 06: a right answer passes, each known slip fails at a case that names it."""

import math

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from nasedu import check
from nasedu.search import hypergrad


def soft(alpha):
    return {name: logits.softmax(-1) for name, logits in alpha.items()}


def alpha_step(model, alpha, optimizer, x, y, slip=""):
    def loss(w, alpha):
        buffers = {n: b if slip == "buffers" else b.clone() for n, b in model.named_buffers()}
        return F.cross_entropy(functional_call(model, {**w, **buffers}, (x, soft(alpha))), y)

    w = dict(model.named_parameters())
    value = loss(w, alpha).item()
    for name, g in hypergrad.first_order(loss, w, alpha).items():
        alpha[name].grad = -g if slip == "sign" else g
    optimizer.step()
    if slip == "weights":
        with torch.no_grad():
            w["classifier.bias"] += 1e-3
    return value


def joint_step(model, alpha, sgd, adam, x, y, slip=""):
    loss = F.cross_entropy(model(x, soft(alpha)), y)
    if slip != "dirty":
        sgd.zero_grad()
        adam.zero_grad()
    loss.backward()
    sgd.step()
    if slip != "w only":
        adam.step()
    return loss.item()


def entropy(logits):
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean() / math.log(2)


def test_right_answers_pass(capsys):
    assert check.alpha_step(alpha_step) and check.joint_step(joint_step) and check.mean_entropy(entropy)
    assert "✗" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "slip, said",
    [("buffers", "buffers of batch norms that moved"), ("sign", "logits"), ("weights", "weights that moved")],
)
def test_slips_of_the_alpha_step_are_named(slip, said, capsys):
    assert not check.alpha_step(lambda *a: alpha_step(*a, slip=slip))
    assert "✗ a step of alpha: " in (out := capsys.readouterr().out) and said in out.split("✗")[1]


@pytest.mark.parametrize("slip", ["dirty", "w only"])
def test_slips_of_the_joint_step_are_named(slip, capsys):
    assert not check.joint_step(lambda *a: joint_step(*a, slip=slip))
    assert "✗ a joint step: the logits" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        lambda z: -(z.softmax(-1) * z.softmax(-1).log2()).sum(-1).mean(),
        lambda z: entropy(z) * math.log(2),
        lambda z: entropy(z) * len(z),
    ],
)
def test_wrong_entropies_fail(wrong):
    assert not check.mean_entropy(wrong)


def test_unsolved_is_told_and_raises_nothing(capsys):
    for one in (check.alpha_step, check.joint_step, check.mean_entropy):
        assert not one(lambda *a: ...)
    assert capsys.readouterr().out.count("not solved yet") == 3
