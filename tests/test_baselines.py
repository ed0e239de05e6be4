"""RandomSearch: it draws uniformly, keeps the best, and is resumed exactly."""

import inspect
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from killing import assert_same, killed_and_resumed, tiny
from test_darts import Own
from torch import nn

from nasedu import EnasTrainer, Genotype, MacroCNN, Network, RandomSearch, accuracy, get_dataset, read

OPTIONS = {"loss": nn.CrossEntropyLoss(), "metrics": accuracy, "progress": False, "n_candidates": 4}


def random_search(checkpoint: Path | None = None, **options) -> RandomSearch:
    return tiny(RandomSearch, checkpoint, **{**OPTIONS, **options})


long_random_search = partial(random_search, num_epochs=12)


def test_each_batch_trains_another_architecture_and_only_its_operations_are_run():
    trainer, archs, run = random_search(), [], []
    for i, cell in enumerate(trainer.model.cells):
        for row, edge in enumerate(cell.edges):
            for name, op in edge.layers.items():
                op.register_forward_hook(lambda *_, key=(i, row, name): run.append(key))
    weight_step = trainer.weight_step
    trainer.weight_step = lambda x, y, arch: archs.append(arch) or weight_step(x, y, arch)
    for step in range(4):
        trainer.train_step(0, step)
    trainer.train_step(1, 0)
    assert len({tuple(arch["normal"].flatten().tolist()) for arch in archs}) == 5
    assert len(run) == 5 * 3 * 2 * 2  # steps, cells, nodes, inputs
    again = random_search()
    again.weight_step = lambda x, y, arch: archs.append(arch) or {}
    again.train_step(0, 2)
    assert_same(archs[-1], archs[2])


def test_the_best_of_n_is_exported():
    trainer = random_search()
    history = trainer.fit()
    assert set(history.epochs[-1]) == {"epoch", "lr", "train_loss", "train_acc1"}
    candidates = trainer.candidates()
    rewards = [c.scores["reward"] for c in candidates]
    assert len(rewards) == 4 and rewards == sorted(rewards, reverse=True)
    assert len({tuple(c.arch["normal"].flatten().tolist()) for c in candidates}) == 4
    exported = json.loads(json.dumps(trainer.export()))
    assert exported == trainer.export() and trainer.genotype() == Genotype.from_dict(exported)
    assert_same(read(trainer.model, exported), candidates[0].arch)
    Network(trainer.genotype(), 4, 10, 3)(torch.randn(2, 3, 16, 16)).sum().backward()
    assert_same(trainer.propose(3), random_search().propose(3))
    other = random_search(reward_function=lambda logits, target: -nn.functional.cross_entropy(logits, target))
    best = other.candidates()[0].scores
    assert best["reward"] == pytest.approx(-best["loss"])
    assert best["loss"] == min(c.scores["loss"] for c in other.candidates())


def test_its_arguments_are_those_of_enas_less_the_controllers():
    def positional(cls):
        found = inspect.signature(cls.__init__).parameters.values()
        return [p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD]

    enas = [name for name in positional(EnasTrainer) if name != "reward_function"]
    assert positional(RandomSearch) == enas[:12] and enas[11] == "grad_clip"


@pytest.mark.parametrize("make", [Own, partial(MacroCNN, 16, 3, 2, 10, 3)], ids=["own", "macro"])
def test_a_model_of_ones_own_is_searched_with_no_other_change(make):
    torch.manual_seed(0)
    model = make()
    data, _ = get_dataset("shapes10", subset=32, input_size=16)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    trainer = RandomSearch(
        model=model, optimizer=optimizer, num_epochs=1, dataset=data, batch_size=8, workers=4, **OPTIONS
    )
    trainer.fit()
    arch = read(model, trainer.export())
    assert model(torch.randn(2, 3, 16, 16), arch).shape == (2, 10)


def test_killed_and_resumed_is_bit_for_bit_the_same(tmp_path):
    undisturbed, killed = killed_and_resumed(long_random_search, tmp_path, 5)
    assert_same(undisturbed, killed)
