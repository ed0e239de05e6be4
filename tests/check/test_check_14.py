"""The checks of notebook 14: a right answer passes, each known slip fails at a case that names it."""

import pytest
import torch
from torch import nn

from nasedu import InputChoice, LayerChoice, check


def input_choice(inputs, chosen):
    return sum((inputs[i] for i in chosen), torch.zeros_like(inputs[0]))


def in_place(inputs, chosen):
    total = torch.zeros_like(inputs[0]) if not chosen else inputs[chosen[0]]
    for i in chosen[1:]:
        total += inputs[i]
    return total


def virtual_step(model, gradient, lr):
    return {name: w.detach() - lr * gradient[name] for name, w in model.named_parameters()}


def moves_the_model(model, gradient, lr):
    with torch.no_grad():
        return {name: w.sub_(lr * gradient[name]).clone() for name, w in model.named_parameters()}


class Small(nn.Module):
    def __init__(self, label="first", n_chosen=1, classes=10):
        super().__init__()
        self.first = LayerChoice([nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)], label)
        self.second = nn.Conv2d(4, 4, 1)
        self.merge = InputChoice(2, n_chosen, "merge")
        self.head = nn.Linear(4, classes)

    def forward(self, x, arch):
        a = self.first(x, arch)
        return self.head(self.merge([a, self.second(a)], arch).mean((2, 3)))


def test_right_answers_pass(capsys):
    assert check.input_choice(input_choice) and check.virtual_step(virtual_step) and check.own_model(Small)
    assert "✗" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "one, wrong, said",
    [
        (check.input_choice, lambda inputs, chosen: sum(inputs[i] for i in chosen), "none of three"),
        (check.input_choice, in_place, "as they were"),
        (check.virtual_step, lambda m, g, lr: dict(m.named_parameters()), "stepped weights"),
        (check.virtual_step, moves_the_model, "has not moved"),
        (
            check.virtual_step,
            lambda m, g, lr: {n: w - lr * g[n] for n, w in m.named_parameters()},
            "do not hang",
        ),
        (check.own_model, lambda: Small(label="one"), "labels"),
        (check.own_model, lambda: Small(n_chosen=None), "1 of 2"),
        (check.own_model, lambda: Small(classes=9), "shape of its logits"),
    ],
)
def test_slips_are_named(one, wrong, said, capsys):
    assert not one(wrong)
    assert said in capsys.readouterr().out.split("✗")[1]


def test_unsolved_is_told_and_raises_nothing(capsys):
    assert not any(
        [check.input_choice(lambda *a: ...), check.virtual_step(lambda *a: ...), check.own_model(lambda: ...)]
    )
    assert capsys.readouterr().out.count("not solved yet") == 3
