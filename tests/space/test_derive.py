"""From weights to decisions and back, for a model of one's own: each kind of point by hand."""

import pytest
import torch
from torch import nn

from nasedu import ArchError, InputChoice, LayerChoice, describe, discretise, read


class Points(nn.Module):
    def __init__(self):
        super().__init__()
        layers = {"a": nn.Identity(), "b": nn.Identity(), "c": nn.Identity()}
        self.layers = nn.ModuleList(LayerChoice(layers, "layer", row) for row in range(2))
        self.two = InputChoice(3, 2, "two")
        self.open = InputChoice(3, None, "open")


WEIGHTS = {
    "layer": torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]]),
    "two": torch.tensor([[0.3, 0.1, 0.6]]),
    "open": torch.tensor([[0.51, 0.5, 0.9]]),
}
DECIDED = {
    "layer": [[0, 1, 0], [1, 0, 0]],  # of equals the first
    "two": [[1, 0, 1]],
    "open": [[1, 0, 1]],  # above one half
}
NAMES = {"layer": ["b", "a"], "two": [[0, 2]], "open": [[0, 2]]}


def test_the_strongest_stays():
    assert {label: m.tolist() for label, m in discretise(Points(), WEIGHTS).items()} == DECIDED


def test_an_open_choice_may_be_empty():
    kept = discretise(Points(), {**WEIGHTS, "open": torch.tensor([[0.1, 0.2, 0.3]])})
    assert kept["open"].tolist() == [[0, 0, 0]]
    assert describe(Points(), kept)["open"] == [[]]


def test_decisions_in_names_and_back():
    decided = {label: torch.tensor(m, dtype=torch.float32) for label, m in DECIDED.items()}
    assert describe(Points(), decided) == NAMES
    assert {label: m.tolist() for label, m in read(Points(), NAMES).items()} == DECIDED


def test_weights_are_no_decisions():
    with pytest.raises(ArchError, match="chooses 3 layers, wanted one"):
        describe(Points(), WEIGHTS)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"layer": ["b"]}, "a list of 2 decisions"),
        ({"layer": ["b", "z"]}, r"row 1 of 'layer' can choose from \['a', 'b', 'c'\], got 'z'"),
        ({"two": [[0, 3]]}, "row 0 of 'two'"),
        ({"two": ["0"]}, "row 0 of 'two'"),
        ({"other": []}, "wanted the labels"),
    ],
)
def test_what_is_no_export_is_told(change, message):
    with pytest.raises(ArchError, match=message):
        read(Points(), {**NAMES, **change})
