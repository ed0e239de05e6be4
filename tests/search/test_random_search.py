"""RandomSearch: it draws uniformly, keeps the best, is resumed exactly; with weight sharing and without."""

import inspect
import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from killing import assert_same, stopped_and_resumed, tiny
from models import Own
from torch import nn

from nasedu import EnasTrainer, Genotype, MacroCNN, Network, RandomSearch, accuracy, get_dataset, read
from nasedu.search.checkpoint import CheckpointError
from nasedu.space.small import SmallCNN

OPTIONS = {"loss": nn.CrossEntropyLoss(), "metrics": accuracy, "progress": False, "n_candidates": 4}


def random_search(checkpoint: Path | None = None, **options) -> RandomSearch:
    return tiny(RandomSearch, checkpoint, **{**OPTIONS, **options})


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


def test_stopped_and_resumed_is_bit_for_bit_the_same(tmp_path):
    assert_same(*stopped_and_resumed(random_search, tmp_path, [1, 6]))


# ---- without weight sharing


def alone(checkpoint: Path | None = None, scheduler: object = None, **options) -> RandomSearch:
    """`random_search` without sharing, and so without the scheduler that it is given."""
    return RandomSearch(checkpoint=checkpoint, **options)


def random_search_alone(checkpoint: Path | None = None, **options) -> RandomSearch:
    return tiny(alone, checkpoint, **{**OPTIONS, "weight_sharing": False, **options})


def small_search(model: SmallCNN, optimizer: torch.optim.Optimizer, **options) -> RandomSearch:
    """4 batches of 8 in an epoch."""
    data, _ = get_dataset("shapes10", subset=(64, 10), input_size=8)
    options = {**OPTIONS, "num_epochs": 5, "device": "cpu", "weight_sharing": False, **options}
    return RandomSearch(model=model, optimizer=optimizer, dataset=data, batch_size=8, **options)


def model_and_optimizer(warm: bool = False) -> tuple[SmallCNN, torch.optim.SGD]:
    """Warm: the optimizer has momentum already, the batch norms have averages."""
    torch.manual_seed(0)
    model = SmallCNN(4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    if warm:
        model(torch.randn(4, 3, 8, 8), {"cell": torch.full((3, 5), 0.2)}).sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("n", [1, 4, 5, 12])
def test_the_budget_is_that_of_sharing_cut_into_equal_parts(n):
    trainer, archs, lrs = random_search_alone(n_candidates=n), [], []

    def weight_step(x, y, arch):
        archs.append(arch)
        lrs.append(trainer.optimizer.param_groups[0]["lr"])
        return {}

    trainer.weight_step, trainer.rank = weight_step, lambda archs: []
    trainer.fit()
    assert len(archs) == 12 == random_search().num_epochs * random_search().steps_per_epoch
    of_each = [[i for i, arch in enumerate(archs) if arch is candidate] for candidate in trainer.archs]
    assert sum(of_each, []) == list(range(12)) and len(of_each) == n
    lengths = [len(steps) for steps in of_each]
    assert max(lengths) - min(lengths) <= 1
    for steps in of_each:  # each has the whole schedule
        expected = [0.05 * 0.5 * (1 + math.cos(math.pi * t / len(steps))) for t in range(len(steps))]
        assert [lrs[i] for i in steps] == pytest.approx(expected)


@pytest.mark.parametrize("warm", [False, True])
def test_each_candidate_is_trained_as_if_it_were_the_only_one(warm):
    """A plain loop for each, with a new model and optimizer: the same scores and weights bit for bit."""
    trainer = small_search(*model_and_optimizer(warm), n_candidates=3, grad_clip=0.5)
    batches = [trainer.train_batch(0, step) for step in range(7)]
    trainer.fit()
    for i, steps in enumerate((6, 7, 7)):
        model, optimizer = model_and_optimizer(warm)
        model = model.to(memory_format=torch.channels_last).train()
        arch = trainer.archs[i]
        for step, (x, y) in enumerate(batches[:steps]):
            optimizer.param_groups[0]["lr"] = 0.1 * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x, arch), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        judge = small_search(model, optimizer)
        assert_same(trainer.trained[i].scores, judge.rank([arch])[0].scores)
    assert_same(dict(trainer.model.state_dict()), dict(model.state_dict()))
    assert_same(trainer.optimizer.state_dict()["state"], optimizer.state_dict()["state"])


def test_the_candidates_are_those_of_sharing_and_the_best_is_exported():
    trainer = random_search_alone()
    with pytest.raises(RuntimeError, match="no candidate is trained yet: call fit"):
        trainer.export()
    history = trainer.fit()
    assert set(history.epochs[-1]) == {"epoch", "lr", "train_loss", "train_acc1"} and len(history.epochs) == 3
    candidates = trainer.candidates()
    rewards = [candidate.scores["reward"] for candidate in candidates]
    assert len(rewards) == 4 and rewards == sorted(rewards, reverse=True)
    assert_same([candidate.arch for candidate in trainer.trained], random_search().propose(4))
    assert trainer.genotype() == Genotype.from_dict(json.loads(json.dumps(trainer.export())))
    assert_same(read(trainer.model, trainer.export()), candidates[0].arch)


def test_a_schedule_of_ones_own():
    trainer = random_search_alone(schedule=lambda t: 1 - t, n_candidates=3)
    trainer.train_step(0, 0)
    trainer.train_step(0, 1)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * 0.75)


def test_what_training_alone_cannot_do_is_told():
    model, optimizer = model_and_optimizer()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    with pytest.raises(ValueError, match="schedule of its own.*give schedule="):
        small_search(model, optimizer, scheduler=scheduler)
    with pytest.raises(ValueError, match="21 candidates, but only 20 steps"):
        small_search(model, optimizer, n_candidates=21)


def test_training_alone_stopped_and_resumed_is_bit_for_bit_the_same(tmp_path):
    undisturbed, resumed = stopped_and_resumed(random_search_alone, tmp_path, [1, 6])
    assert_same(undisturbed, resumed)
    assert len(resumed["extra"]["trained"]) == 4


def test_a_resumed_search_starts_its_candidates_where_the_first_ones_started(tmp_path):
    whole = small_search(*model_and_optimizer())
    whole.fit()
    half = small_search(*model_and_optimizer(), checkpoint=tmp_path / "half.pt", checkpoint_every=1)
    train_step = half.train_step

    def stopped(epoch: int, step: int) -> dict[str, float]:
        if (epoch, step) == (1, 3):
            raise KeyboardInterrupt
        return train_step(epoch, step)

    half.train_step = stopped
    with pytest.raises(KeyboardInterrupt):
        half.fit()
    assert len(half.candidates()) == 1, "the one that is trained"
    torch.manual_seed(99)
    other = SmallCNN(4)
    optimizer = torch.optim.SGD(other.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    resumed = small_search(other, optimizer, checkpoint=tmp_path / "half.pt")
    resumed.fit()
    assert_same([c._asdict() for c in whole.trained], [c._asdict() for c in resumed.trained])
    for changed in ({"weight_sharing": True}, {"n_candidates": 5}):
        trainer = small_search(*model_and_optimizer(), checkpoint=tmp_path / "half.pt", **changed)
        with pytest.raises(CheckpointError, match="another run.*candidates alone"):
            trainer.fit()
