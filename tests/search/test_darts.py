"""DartsTrainer: the hypergradient and nothing else moves alpha; the seed's code; exact resume."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from killing import assert_same, stopped_and_resumed, tiny
from models import Own
from torch import nn
from torch.func import functional_call

from nasedu import (
    CNN,
    ArchError,
    DartsTrainer,
    Genotype,
    Network,
    accuracy,
    discretise,
    get_dataset,
    read,
)
from nasedu.search import hypergrad
from nasedu.search.checkpoint import CheckpointError

OPTIONS = {"loss": nn.CrossEntropyLoss(), "metrics": accuracy}


def darts(checkpoint: Path | None = None, **options) -> DartsTrainer:
    return tiny(DartsTrainer, checkpoint, **{**OPTIONS, "progress": False, **options})


def state_of(trainer):
    return {
        "model": {k: v.clone() for k, v in trainer.model.state_dict().items()},
        "momentum": {i: s["momentum_buffer"].clone() for i, s in enumerate(trainer.optimizer.state.values())},
        "grads": [p.grad.clone() if p.grad is not None else 0 for p in trainer.model.parameters()],
    }


@pytest.mark.parametrize("unrolled", [False, True])
def test_an_alpha_step_changes_alpha_and_nothing_else(unrolled):
    trainer = darts(unrolled=unrolled)
    for step in range(2):
        trainer.train_step(0, step)
    before, alpha = state_of(trainer), {k: v.detach().clone() for k, v in trainer.alpha.items()}
    assert before["momentum"], "the optimizer must have momentum by now"
    trainer.alpha_step(trainer.train_batch(0, 2), trainer.valid_batch(0, 2))
    assert_same(before, state_of(trainer))
    assert all(not torch.equal(alpha[k], trainer.alpha[k]) for k in alpha)


@pytest.mark.parametrize("unrolled", [False, True])
def test_the_trainers_gradient_is_the_packages_hypergradient(unrolled):
    trainer = darts(unrolled=unrolled)
    trainer.model.classifier[0].p = 0.0  # dropout would draw anew in each pass
    for step in range(2):
        trainer.train_step(0, step)
    train, valid = trainer.train_batch(0, 2), trainer.valid_batch(0, 2)
    w = dict(trainer.model.named_parameters())
    buffers = {name: b.clone() for name, b in trainer.model.named_buffers()}

    def loss_on(batch):
        def loss(w, alpha):
            arch = {k: v.softmax(-1) for k, v in alpha.items()}
            copies = {name: b.clone() for name, b in buffers.items()}
            return nn.functional.cross_entropy(
                functional_call(trainer.model, {**w, **copies}, (batch[0], arch)), batch[1]
            )

        return loss

    if unrolled:
        momentum = {name: trainer.optimizer.state[p]["momentum_buffer"] for name, p in w.items()}
        settings = {"lr": 0.05, "momentum": 0.9, "buffers": momentum, "weight_decay": 3e-4}
        wanted = hypergrad.unrolled(loss_on(train), loss_on(valid), w, trainer.alpha, **settings)
    else:
        wanted = hypergrad.first_order(loss_on(valid), w, trainer.alpha)
    trainer.alpha_step(train, valid)
    for label, gradient in wanted.items():
        torch.testing.assert_close(trainer.alpha[label].grad, gradient, rtol=1e-4, atol=1e-7)


def test_the_virtual_step_is_the_optimizers_own_step():
    trainer = darts(unrolled=True)
    trainer.model.classifier[0].p = 0.0
    for step in range(2):
        trainer.train_step(0, step)
    w = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    x, y = trainer.train_batch(0, 2)
    settings = hypergrad.sgd_settings(trainer.optimizer, dict(trainer.model.named_parameters()))
    settings["buffers"] = {name: b.clone() for name, b in settings["buffers"].items()}
    trainer.grad_clip = 0.0
    trainer.weight_step(x, y, trainer.arch())
    gradient = {name: p.grad for name, p in trainer.model.named_parameters()}
    assert hypergrad.sgd_settings(trainer.optimizer, {}, 0.5)["lr"] == 0.5
    stepped = hypergrad.sgd_step(w, gradient, **settings)
    for name, p in trainer.model.named_parameters():
        torch.testing.assert_close(stepped[name], p.detach())


def test_the_first_and_the_second_order_search_differ():
    first, second = darts(), darts(unrolled=True)
    first.fit(), second.fit()
    gap = max((first.alpha[k] - second.alpha[k]).abs().max().item() for k in first.alpha)
    assert gap > 1e-4, "NNI's virtual step did nothing and its two histories agreed to 1e-4; ours must not"


def test_unrolled_refuses_an_optimizer_whose_step_is_another():
    trainer = darts(unrolled=True)
    trainer.optimizer = torch.optim.Adam(trainer.model.parameters())
    with pytest.raises(ValueError, match=r"plain torch\.optim\.SGD.*got Adam"):
        trainer.train_step(0, 0)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), 0.1, momentum=0.9, nesterov=True)
    with pytest.raises(ValueError, match="no Nesterov"):
        trainer.train_step(0, 0)


def test_the_seeds_code_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset_train, _ = get_dataset("shapes10", subset=80, input_size=16)
    model = CNN(16, 3, 2, 10, 3)
    optim = torch.optim.SGD(model.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    trainer = DartsTrainer(
        model=model,
        loss=nn.CrossEntropyLoss(),
        metrics=lambda output, target: accuracy(output, target, topk=(1,)),
        optimizer=optim,
        num_epochs=1,
        dataset=dataset_train,
        batch_size=16,
        log_frequency=10,
        workers=4,
        unrolled=False,
    )
    trainer.fit()
    with open("checkpoint.json", "w") as file:
        json.dump(trainer.export(), file)
    genotype = Genotype.load("checkpoint.json")
    assert genotype == trainer.genotype()
    logits = Network(genotype, 4, 10, 3)(torch.randn(2, 3, 16, 16))
    logits.sum().backward()


def test_a_model_of_ones_own_is_searched_with_no_other_change():
    torch.manual_seed(0)
    model = Own()
    data, _ = get_dataset("shapes10", subset=64, input_size=16)
    trainer = DartsTrainer(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.05),
        num_epochs=1,
        dataset=data,
        batch_size=8,
        progress=False,
        **OPTIONS,
    )
    trainer.fit()
    exported = trainer.export()
    assert set(exported) == {"first", "second", "which", "skip"}
    assert (
        len(exported["second"]) == 2
        and exported["first"][0] in ("1x1", "3x3")
        and len(exported["which"][0]) == 2
    )
    arch = read(model, json.loads(json.dumps(exported)))
    assert_same(arch, discretise(model, trainer.arch()))
    assert model(torch.randn(2, 3, 16, 16), arch).shape == (2, 10)
    with pytest.raises(ArchError, match="wanted the labels"):
        read(model, {"first": ["1x1"]})
    with pytest.raises(ArchError, match="can choose from"):
        read(model, {**exported, "first": ["7x7"]})


def test_history_lines_have_what_the_plots_need():
    trainer = darts()
    history = trainer.fit()
    assert [line["epoch"] for line in history.epochs] == [1, 2, 3]
    assert history.column("lr") == pytest.approx([0.05, 0.0375, 0.0125])  # the scheduler was stepped
    for line in history.epochs:
        assert {"train_loss", "train_acc1", "valid_loss", "valid_acc1"} <= set(line)
        for matrix in line["arch"].values():
            assert torch.tensor(matrix).sum(1).allclose(torch.ones(5)) and len(matrix[0]) == 8
    assert history.epochs[-1]["arch"] == {k: v.tolist() for k, v in trainer.arch().items()}


@pytest.mark.parametrize("options", [{}, {"unrolled": True}], ids=["first order", "unrolled"])
def test_stopped_and_resumed_is_bit_for_bit_the_same(tmp_path, options):
    assert_same(*stopped_and_resumed(partial(darts, **options), tmp_path, [1, 6]))


def test_a_checkpoint_of_another_search_is_refused(tmp_path):
    trainer = darts(tmp_path / "search.pt")
    trainer.train_step(0, 0)
    trainer.save(tmp_path / "search.pt")
    with pytest.raises(CheckpointError, match="unrolled.*False"):
        darts(tmp_path / "search.pt", unrolled=True).fit()
    with pytest.raises(CheckpointError, match="seed"):
        darts(tmp_path / "search.pt", seed=1).fit()


def test_nothing_to_search_is_said():
    model = nn.Linear(3, 2)
    data, _ = get_dataset("shapes10", subset=64, input_size=16)
    with pytest.raises(ValueError, match="nothing to search"):
        DartsTrainer(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), 0.1),
            num_epochs=1,
            dataset=data,
            batch_size=8,
            **OPTIONS,
        )


@pytest.mark.parametrize("unrolled", [False, True])
def test_a_step_can_be_read_in_one_sitting(unrolled, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    import trace_step

    found = trace_step.step(unrolled)
    assert {"search/darts.py", "search/hypergrad.py", "space/cells.py", "space/choice.py"} <= set(found)
    assert ("unrolled" in found["search/hypergrad.py"]) == unrolled
    assert len(found) <= 7, f"a step of DARTS runs through {len(found)} files: {', '.join(found)}"
