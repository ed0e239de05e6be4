"""A step as a CUDA graph: its logic, on a CPU, with a graph that plays one. No GPU has run it yet."""

import pytest
import torch
from killing import assert_same, tiny
from torch import nn

from nasedu import DartsTrainer, accuracy
from nasedu.errors import ArgumentError
from nasedu.search import Gumbel, device
from nasedu.search.device import Graphed

QUIET = {"loss": nn.CrossEntropyLoss(), "metrics": accuracy, "progress": False}
CUDA = torch.device("cuda")


class Graph:
    """Does the step again at each replay, and writes its numbers where they were the first time."""

    def __init__(self, step):
        self.step, self.numbers, self.replays = step, {}, 0

    def replay(self):
        self.replays += 1
        for name, x in self.step().items():
            self.numbers.setdefault(name, torch.zeros(())).copy_(torch.as_tensor(x))


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that were recorded."""
    made = []

    def capture(step):
        made.append(Graph(step))
        return made[-1], made[-1].numbers

    monkeypatch.setattr(device, "capture", capture)
    monkeypatch.setattr(device, "on_a_stream_aside", lambda step: step())
    return made


@pytest.mark.parametrize("unrolled", [False, True])
def test_a_graph_of_a_search_gives_what_the_steps_give(unrolled, graphs):
    plain, graphed = (tiny(DartsTrainer, None, unrolled=unrolled, **QUIET) for _ in range(2))
    graphed.graph = Graphed(graphed.both_steps, CUDA, [graphed.optimizer])
    plain.fit(), graphed.fit()
    # 4 steps an epoch, each with a rate of its own: 3 as they are, then one recorded and replayed
    assert [graph.replays for graph in graphs] == [1, 1, 1]
    assert_same(dict(plain.model.state_dict()), dict(graphed.model.state_dict()))
    assert_same(
        {k: v.detach() for k, v in plain.alpha.items()}, {k: v.detach() for k, v in graphed.alpha.items()}
    )
    for one, other in zip(plain.history.epochs, graphed.history.epochs, strict=True):
        assert one["arch"] == other["arch"]
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-6)


def test_tensors_are_copied_to_the_places_that_were_recorded(graphs):
    seen = []

    def step(x):
        seen.append(x)
        return {"sum": x.sum()}

    graphed = Graphed(step, CUDA, [])
    given = [torch.full((2,), float(i)) for i in range(6)]
    came = [graphed([0.1], x)["sum"] for x in given]
    assert [float(x) for x in came] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0], "numbers that a replay wrote over"
    assert [any(x is y for y in given) for x in seen] == 3 * [True] + 3 * [False]
    assert seen[3] is seen[4] is seen[5] and len(graphs) == 1 and graphs[0].replays == 3
    graphed([0.2], given[0])
    assert len(graphs) == 1 and seen[-1] is given[0], "another rate: warm up, then record anew"


def test_what_can_not_be_a_graph_is_told():
    with pytest.raises(ArgumentError, match="cuda_graph=True is for an NVIDIA GPU.*on cpu"):
        tiny(DartsTrainer, None, cuda_graph=True, **QUIET)
    with pytest.raises(ArgumentError, match="Gumbel draws anew"):
        tiny(DartsTrainer, None, cuda_graph=True, relaxation=Gumbel(), **QUIET)
    adam = torch.optim.Adam([nn.Parameter(torch.zeros(2))])
    with pytest.raises(ArgumentError, match=r"wants Adam\(\.\.\., capturable=True\), or torch.optim.SGD"):
        Graphed(lambda: {}, CUDA, [adam])
