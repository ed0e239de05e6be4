"""EnasTrainer: who moves what in which phase, what is run, the seed's code, the macro space, exact resume."""

import inspect
import json
import multiprocessing.process
import os
import threading
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from killing import assert_same, stopped_and_resumed, tiny
from models import Own, derived_with_the_weights_of, supernet
from torch import nn

from nasedu import (
    CNN,
    ArchError,
    Controller,
    DartsTrainer,
    EnasTrainer,
    Genotype,
    LayerChoice,
    MacroCNN,
    Network,
    accuracy,
    batch_statistics,
    check_arch,
    choices,
    get_dataset,
    read,
    reward_accuracy,
)
from nasedu.data.datasets import seeded
from nasedu.search.checkpoint import CheckpointError

OPTIONS = {
    "loss": nn.CrossEntropyLoss(),
    "metrics": accuracy,
    "reward_function": reward_accuracy,
    "progress": False,
}
SMALL = {"ctrl_steps": 2, "ctrl_steps_aggregate": 3, "n_candidates": 3}


def enas(checkpoint: Path | None = None, **options) -> EnasTrainer:
    return tiny(EnasTrainer, checkpoint, **{**OPTIONS, **SMALL, **options})


def searched(model: nn.Module, n_images: int = 64, size: int = 16, **options) -> EnasTrainer:
    data, _ = get_dataset("shapes10", subset=n_images, input_size=size)
    options = {"num_epochs": 1, "batch_size": 8, **OPTIONS, **SMALL, **options}
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    return EnasTrainer(model=model, optimizer=optimizer, dataset=data, **options)


def state_of(trainer):
    return {
        "model": {k: v.clone() for k, v in trainer.model.state_dict().items()},
        "momentum": {i: s["momentum_buffer"].clone() for i, s in enumerate(trainer.optimizer.state.values())},
        "modes": [module.training for module in trainer.model.modules()],
        "grads": [None if p.grad is None else p.grad.clone() for p in trainer.model.parameters()],
    }


# ---- the two phases


def test_a_controller_step_changes_the_controller_and_nothing_else():
    trainer = enas()
    for step in range(2):
        trainer.train_step(0, step)
    before, weights = state_of(trainer), [p.detach().clone() for p in trainer.controller.parameters()]
    assert before["momentum"]
    numbers = trainer.train_step(0, trainer.child_steps)
    assert_same(before, state_of(trainer))
    moved = [not torch.equal(a, b) for a, b in zip(weights, trainer.controller.parameters(), strict=True)]
    assert all(moved)
    assert {"reward", "entropy", "valid_loss", "valid_acc1", "controller_grad_norm"} == set(numbers)


def test_a_child_step_changes_the_weights_of_one_sampled_architecture():
    trainer = enas()
    controller = [p.detach().clone() for p in trainer.controller.parameters()]
    arch = trainer.controller.sample(trainer.child_steps, seeded(0, 0, 0, 0, 4))[1]
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train_step(0, 1)
    for name, p in trainer.model.named_parameters():
        moved = not torch.equal(before[name], p)
        if ".edges." not in name:
            assert moved, name
            continue
        _, cell, _, row, _, op, *_ = name.split(".")
        cell = trainer.model.cells[int(cell)]
        column = trainer.model.ops.index(op)
        assert moved == bool(arch[cell.label][int(row), column]), name
    assert all(torch.equal(a, b) for a, b in zip(controller, trainer.controller.parameters(), strict=True))
    # The next batch has another architecture, the next epoch, too.
    archs = [trainer._child_archs[1][i]["normal"] for i in range(4)]
    trainer.train_step(1, 0)
    archs.append(trainer._child_archs[1][0]["normal"])
    assert len({tuple(a.flatten().tolist()) for a in archs}) == 5


def test_only_the_sampled_operations_are_run():
    trainer, run = enas(), []
    for i, cell in enumerate(trainer.model.cells):
        for row, edge in enumerate(cell.edges):
            for name, op in edge.layers.items():
                op.register_forward_hook(lambda *_, key=(i, row, name): run.append(key))

    def wanted(arch):
        return [
            (i, row, trainer.model.ops[column])
            for i, cell in enumerate(trainer.model.cells)
            for row, column in arch[cell.label].nonzero().tolist()
        ]

    trainer.train_step(0, 0)
    assert run == wanted(trainer._child_archs[1][0]) and len(run) <= 3 * 4
    run.clear()
    trainer.train_step(0, trainer.child_steps)
    assert 3 * 3 * 2 <= len(run) <= 3 * 3 * 4, "three samples, three cells, at most four pairs each"


def test_a_sampled_architecture_in_the_supernet_is_the_derived_network_100_times():
    model = supernet(3)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sample = Controller.for_model(model).sample(100, torch.Generator().manual_seed(0))
    assert any((sample[i]["normal"] == 2).any() for i in range(100))
    with torch.no_grad(), batch_statistics(model):
        for i in range(100):
            network = derived_with_the_weights_of(model, Genotype.from_arch(sample[i]), 3)
            torch.testing.assert_close(model(x, sample[i]), network(x), rtol=0, atol=1e-5)


def test_the_reward_is_that_of_the_sampled_architectures_on_the_validation_batches():
    trainer, asked = enas(entropy_weight=0.01), []

    def reward(logits, target):
        asked.append((logits, target))
        return reward_accuracy(logits, target)

    trainer.reward_function = reward
    trainer.baseline = 0.3
    numbers = trainer.controller_step(0, 1)
    sample = enas().controller.sample(3, seeded(0, 0, 0, 1, 5))
    rewards = []
    for i, (logits, target) in enumerate(asked):
        x, y = trainer.valid_batch(0, 3 + i)
        assert torch.equal(target, y)
        with torch.no_grad(), batch_statistics(trainer.model):
            assert torch.equal(trainer.model(x, sample[i]), logits)
        rewards.append(reward_accuracy(logits, y) + 0.01 * sample.entropy[i].item())
    assert numbers["reward"] == pytest.approx(sum(rewards) / 3)
    assert numbers["valid_acc1"] == pytest.approx(sum(rewards) / 3 - 0.01 * sample.entropy.mean().item())
    wanted = 0.3
    for r in rewards:
        wanted -= (1 - trainer.baseline_decay) * (wanted - r)
    assert trainer.baseline == pytest.approx(wanted)


def test_paired_samples_see_the_same_images_and_are_compared_with_each_other():
    trainer, seen = enas(paired=True, reward_images=12, entropy_weight=0.01), []

    def reward(logits, target):
        seen.append((logits, target))
        return reward_accuracy(logits, target)

    trainer.reward_function = reward
    x, y = trainer.reward_batch(0, 1)
    assert len(y) == 12 and not torch.equal(y, trainer.reward_batch(0, 0)[1])
    sample, rewards, numbers = trainer.rewards_of(0, 1)
    for i, (logits, target) in enumerate(seen):
        with torch.no_grad(), batch_statistics(trainer.model):
            torch.testing.assert_close(logits, trainer.model(x, sample[i]))
        assert torch.equal(target, y) and rewards[i] == pytest.approx(reward_accuracy(logits, y))
    # The update is Adam's on -log p (R - mean of the other R), with the entropy's bonus in R.
    bonus = rewards + 0.01 * sample.entropy.detach()
    others = (bonus.sum() - bonus) / 2
    wanted = torch.autograd.grad(
        -(sample.log_prob * (bonus - others)).mean(), list(trainer.controller.parameters())
    )
    trainer.grad_clip = 0
    trainer.controller_step(0, 1)
    for parameter, gradient in zip(trainer.controller.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert trainer.baseline is None
    assert numbers["reward"] == pytest.approx(bonus.mean().item())


def test_in_the_childs_own_epochs_the_controller_is_measured_and_not_moved():
    trainer = enas(num_epochs=2, child_epochs=1)
    before = {name: p.detach().clone() for name, p in trainer.controller.state_dict().items()}
    first = {}
    trainer.callbacks = (lambda t: first.setdefault("controller", deepcopy(t.controller.state_dict())),)
    history = trainer.fit()
    assert_same(dict(first["controller"]), before)
    assert not torch.equal(trainer.controller.start, before["start"])
    assert len(history.column("reward")) == len(history.column("entropy")) == 2
    assert trainer.ctrl_optimizer.state[trainer.controller.start]["step"] == 2  # of the second epoch alone


def test_the_share_of_the_images_that_gives_rewards():
    trainer = enas(valid_share=0.25)
    assert (len(trainer.train_half), len(trainer.valid_half)) == (48, 16)
    assert trainer.child_steps == 6
    both = torch.cat([trainer.train_half.images, trainer.valid_half.images]).flatten(1)
    assert len(both.unique(dim=0)) == 64


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"child_epochs": 4}, "child_epochs is 4; wanted a whole number from 0 to 3"),
        ({"child_epochs": -1}, "child_epochs is -1"),
        ({"paired": True, "ctrl_steps_aggregate": 1}, "2 or more"),
        ({"reward_images": 8}, "belong to paired=True"),
        ({"paired": True, "reward_images": 33}, "at most the 32"),
        ({"valid_share": 1.0}, "valid_share is 1.0; wanted a number"),
        ({"valid_share": 0.1}, "parts of 58 and 6"),
    ],
)
def test_what_can_not_be_is_told(wrong, says):
    with pytest.raises(ValueError, match=says):
        enas(**wrong)


class Telling(nn.Module):
    """Its logits say which layer was chosen: only the second gives class 0 of all images."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.pick = LayerChoice([nn.Identity(), nn.Identity(), nn.Identity()], "pick")

    def forward(self, x, arch):
        chosen = torch.eye(3)[arch["pick"][0].argmax()].roll(-1)
        return chosen.expand(len(x), 3) + self.weight * self.pick(x, arch).mean()


def test_the_controller_finds_the_one_layer_that_is_rewarded():
    def reward(logits, target):
        return (logits.argmax(1) == 0).float().mean()

    trainer = searched(
        Telling(),
        reward_function=reward,
        loss=lambda logits, target: logits.square().mean(),
        ctrl_steps=40,
        ctrl_steps_aggregate=10,
        ctrl_lr=0.02,
        ctrl_kwargs={"tanh_constant": 5.0},
        n_images=16,
        n_candidates=5,
    )
    before = trainer.arch()["pick"][0]
    trainer.fit()
    after = trainer.arch()["pick"][0]
    assert before.max() < 0.55 and after[1] > 0.9
    assert trainer.export() == {"pick": ["1"]} and trainer.candidates()[0].scores["reward"] == 1


# ---- the interface


def test_the_arguments_are_those_of_nni():
    names = (
        "self model loss metrics reward_function optimizer num_epochs dataset batch_size workers device "
        "log_frequency grad_clip entropy_weight skip_weight baseline_decay ctrl_lr ctrl_steps_aggregate "
        "ctrl_kwargs"
    )
    parameters = inspect.signature(EnasTrainer.__init__).parameters
    positional = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in positional] == names.split()
    defaults = [p.default for p in positional[8:]]
    assert defaults == [64, 4, None, None, 5.0, 0.0001, 0.8, 0.999, 0.00035, 20, None]


def test_the_seeds_enas_call_finishes_exports_and_loads_and_spawns_nothing(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("workers=4 must start neither a process nor a thread")

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", forbidden)
    monkeypatch.setattr(os, "fork", forbidden)
    monkeypatch.setattr(threading.Thread, "start", forbidden)
    monkeypatch.chdir(tmp_path)
    dataset_train, _ = get_dataset("shapes10", subset=32, input_size=32)
    model = CNN(32, 3, 2, 10, 8)
    optim = torch.optim.SGD(model.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    trainer = EnasTrainer(
        model=model,
        loss=nn.CrossEntropyLoss(),
        metrics=lambda output, target: accuracy(output, target, topk=(1,)),
        reward_function=reward_accuracy,
        optimizer=optim,
        num_epochs=1,
        dataset=dataset_train,
        batch_size=16,
        workers=4,
        log_frequency=10,
        ctrl_kwargs={"tanh_constant": 1.1},
        ctrl_steps_aggregate=1,
        ctrl_steps=2,
        n_candidates=2,
    )
    trainer.fit()
    with open("checkpoint.json", "w") as file:
        json.dump(trainer.export(), file)
    genotype = Genotype.load("checkpoint.json")
    assert genotype == trainer.genotype()
    network = Network(genotype, 4, 10, 3)
    x, y = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 10
    optimizer, losses = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9), []
    for _ in range(10):
        loss = nn.functional.cross_entropy(network(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_export_keeps_the_best_of_n_scored_on_the_same_images_and_is_the_same_twice():
    trainer = enas(n_candidates=6)
    trainer.train_step(0, 0)
    before = state_of(trainer)
    candidates = trainer.candidates()
    assert_same(before, state_of(trainer))
    rewards = [candidate.scores["reward"] for candidate in candidates]
    assert len(rewards) == 6 and rewards == sorted(rewards, reverse=True) and rewards[0] > rewards[-1]
    for candidate in candidates:
        again = trainer.score(candidate.arch)
        assert candidate.scores["reward"] == candidate.scores["acc1"] == pytest.approx(again["acc1"])
        assert candidate.scores["loss"] == pytest.approx(again["loss"], rel=1e-6)
    exported = trainer.export()
    assert_same(read(trainer.model, exported), candidates[0].arch)
    assert trainer.export() == exported and trainer.genotype() == Genotype.from_dict(exported)
    other = enas(n_candidates=6)
    other.train_step(0, 0)
    assert other.export() == exported
    trainer.n_candidates = 2
    assert len(trainer.candidates()) == 2


def test_history_lines_have_what_the_plots_need():
    trainer = enas()
    history = trainer.fit()
    assert [line["epoch"] for line in history.epochs] == [1, 2, 3]
    wanted = {"lr", "train_loss", "train_acc1", "valid_loss", "valid_acc1", "reward", "entropy", "baseline"}
    for line in history.epochs:
        assert wanted | {"epoch", "arch"} == set(line)
        for matrix in line["arch"].values():
            for node in torch.tensor(matrix).split([2, 3]):
                assert node.sum().item() == pytest.approx(2, abs=1e-4) and not node[:, 0].any()
    assert history.column("baseline")[-1] == trainer.baseline
    json.dumps(history.epochs, allow_nan=False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ctrl_steps": 0}, "ctrl_steps is 0; wanted a whole number from 1 up"),
        ({"ctrl_steps_aggregate": 1.5}, "ctrl_steps_aggregate is 1.5"),
        ({"n_candidates": 0}, "n_candidates is 0"),
    ],
)
def test_wrong_numbers_are_told(wrong, message):
    with pytest.raises(ValueError, match=message):
        enas(**wrong)


def test_a_model_that_cannot_be_searched_is_told_at_once():
    with pytest.raises(ArchError, match="nothing to search"):
        searched(nn.Linear(2, 2))


# ---- models of one's own, and the macro space


def test_a_model_of_ones_own_is_searched_with_no_other_change():
    torch.manual_seed(0)
    model = Own()
    trainer = searched(model)
    line = trainer.fit().epochs[-1]
    exported = json.loads(json.dumps(trainer.export()))
    assert set(exported) == {"first", "second", "which", "skip"} and len(exported["which"][0]) == 2
    assert_same(read(model, exported), trainer.best())
    assert torch.tensor(line["arch"]["which"]).sum().item() == pytest.approx(2, abs=1e-5)
    assert line["skip_rate"] == pytest.approx(line["arch"]["skip"][0][0])


def test_the_macro_space_is_a_chain_with_skips():
    torch.manual_seed(0)
    model = MacroCNN(16, 3, 4, 10, 6)
    assert model.choices() == {"op": (6, 6), **{f"skip_{i}": (1, i) for i in range(1, 6)}}
    trainer = searched(model)
    line = trainer.fit().epochs[-1]
    assert 0 < line["skip_rate"] < 1
    shares = [share for i in range(1, 6) for share in line["arch"][f"skip_{i}"][0]]
    assert line["skip_rate"] == pytest.approx(sum(shares) / 15)
    exported = trainer.export()
    layers, skips = model.chain(read(model, exported))
    assert layers == exported["op"]
    assert skips == [(j, i) for i in range(1, 6) for j in exported[f"skip_{i}"][0]]
    with pytest.raises(ArchError, match="each row of 'op' must choose one operation"):
        model.chain(trainer.arch())


@pytest.mark.parametrize(("target", "weight"), [(0.1, 50.0), (0.9, 50.0), (0.1, 0.0)])
def test_the_skip_weight_draws_the_skip_rate_to_its_target(target, weight):
    trainer = searched(
        MacroCNN(16, 3, 2, 10, 3),
        n_images=16,
        reward_function=lambda logits, y: 0.5,
        skip_weight=weight,
        ctrl_steps=25,
        ctrl_steps_aggregate=2,
        ctrl_lr=0.01,
        ctrl_kwargs={"skip_target": target},
    )
    rate = trainer.fit().column("skip_rate")[-1]
    assert abs(rate - (target if weight else 0.5)) < 0.12


def test_the_controllers_gradient_is_clipped():
    rewards = iter([0.0, 1.0, 0.0])
    trainer = enas(grad_clip=1e-4, reward_function=lambda logits, target: next(rewards))
    trainer.controller_step(0, 0)
    norm = torch.stack([p.grad.norm() for p in trainer.controller.parameters()]).norm().item()
    assert norm == pytest.approx(1e-4, rel=1e-2)


def test_the_default_macro_space_is_the_papers():
    model = MacroCNN()
    assert model.choices()["op"] == (12, 6) and model.choices()["skip_11"] == (1, 11)
    assert model.stem[0].out_channels == 36
    assert [i for i, halving in enumerate(model.halvings) if len(halving)] == [3, 7]


def test_a_chain_is_computed_as_it_is_drawn():
    torch.manual_seed(0)
    model = MacroCNN(8, 3, 4, 10, 3).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    arch = {"op": torch.zeros(3, 6), "skip_1": torch.tensor([[1.0]]), "skip_2": torch.tensor([[1.0, 0.0]])}
    arch["op"][[0, 1, 2], [0, 3, 4]] = 1.0
    run = []
    for layer in model.layers:
        for name, op in layer.op.layers.items():
            op.register_forward_hook(lambda *_, name=name: run.append(name))
    logits = model(x, arch)
    assert run == ["conv_3x3", "sep_conv_5x5", "avg_pool_3x3"] == model.chain(arch)[0]
    assert model.chain(arch)[1] == [(0, 1), (0, 2)]
    one, two, three = model.layers
    half, quarter = model.halvings[0], model.halvings[1]  # 3 layers: halved after the first and the second
    a = half[0](one.bn(one.op.layers["conv_3x3"](model.stem(x))))
    b = two.bn(two.op.layers["sep_conv_5x5"](a) + a)
    a, b = quarter[0](a), quarter[1](b)
    c = three.bn(three.op.layers["avg_pool_3x3"](b) + a)
    torch.testing.assert_close(logits, model.classifier(c.mean((2, 3))))
    for wrong in ({"n_layers": 2}, {"input_size": 10}):
        with pytest.raises(ValueError, match=f"(got|is) .*{list(wrong.values())[0]}"):
            MacroCNN(**{"input_size": 8, **wrong})


def test_darts_searches_the_macro_space_too():
    model = MacroCNN(16, 3, 2, 10, 3)
    data, _ = get_dataset("shapes10", subset=16, input_size=16)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    options = {"loss": nn.CrossEntropyLoss(), "metrics": accuracy, "progress": False}
    trainer = DartsTrainer(
        model=model, optimizer=optimizer, num_epochs=1, dataset=data, batch_size=8, **options
    )
    trainer.fit()
    check_arch(choices(model), read(model, trainer.export()))


# ---- resume


def test_stopped_and_resumed_is_bit_for_bit_the_same(tmp_path):
    assert_same(*stopped_and_resumed(enas, tmp_path, [1, 5, 9]))  # among them steps of the controller


def test_a_checkpoint_of_another_search_is_refused(tmp_path):
    trainer = enas(tmp_path / "search.pt")
    trainer.train_step(0, 0)
    trainer.save(tmp_path / "search.pt")
    for other in (
        {"ctrl_steps": 3},
        {"ctrl_lr": 0.1},
        {"entropy_weight": 0.1},
        {"ctrl_kwargs": {"lstm_size": 8}},
    ):
        with pytest.raises(CheckpointError, match="belongs to another run"):
            enas(tmp_path / "search.pt", **other).fit()


def test_what_was_drawn_before_a_load_is_forgotten(tmp_path):
    trainer, again = enas(), enas()
    for one in (trainer, again):
        one.train_step(0, 0)
        one.export()
    with torch.no_grad():
        for p in trainer.controller.parameters():
            p.uniform_(-1, 1, generator=seeded(0))
        for p in trainer.model.parameters():
            p.mul_(1.1)
    trainer.save(tmp_path / "search.pt")
    again.load(tmp_path / "search.pt")
    fresh = enas()
    fresh.load(tmp_path / "search.pt")
    assert_same(again.candidates()[0].scores, fresh.candidates()[0].scores)
    assert_same(again.best(), fresh.best())
    for one in (again, fresh):
        torch.manual_seed(0)  # for dropout
        one.train_step(0, 1)
    assert_same(state_of(again)["model"], state_of(fresh)["model"])
