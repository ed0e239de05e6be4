"""A run whose numbers stop being finite ends there, says so, and leaves the last sound checkpoint behind."""

import json
from functools import partial

import pytest
import torch
from killing import DropoutCNN, assert_same, tiny
from torch import nn

from nasedu import (
    DartsTrainer,
    EnasTrainer,
    History,
    NaseduError,
    RandomSearch,
    StandaloneTrainer,
    accuracy,
    get_dataset,
    reward_accuracy,
)
from nasedu.search import DivergedError, HistoryError, checkpoint, evaluation, watch
from nasedu.search.evaluation import read
from nasedu.search.watch import Watch, check_sound
from nasedu.space import random_arch

CE = nn.CrossEntropyLoss()
QUIET = {"metrics": accuracy, "progress": False}
FEW = {"reward_function": reward_accuracy, "n_candidates": 2, "candidate_images": 8}


class Turns:
    """A loss that is worth `value` in call `at` (from 0), its gradient with it, and right in all others."""

    def __init__(self, at, value):
        self.calls, self.at, self.value = -1, at, value

    def __call__(self, logits, y):
        self.calls += 1
        return CE(logits, y) * (self.value if self.calls == self.at else 1.0)


def standalone(path=None, **options):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = DropoutCNN()
    data, valid = get_dataset("shapes10", subset=(32, 10), input_size=16)
    arch = random_arch(model, torch.Generator().manual_seed(0))
    defaults = {"num_epochs": 3, "batch_size": 8, "device": "cpu", "checkpoint_every": 1, "arch": arch}
    lr, loss = options.pop("lr", 0.05), options.pop("loss", CE)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    options = {**defaults, **options, "dataset": data, "valid": valid, "checkpoint": path}
    trainer = StandaloneTrainer(model, optimizer, **options)
    trainer.loss = loss
    return trainer


def search(cls, path=None, lr=None, loss=CE, **options):
    trainer = tiny(cls, path, loss=CE, **options)
    trainer.loss = loss  # an accident, not another run
    if lr is not None:
        trainer.optimizer.param_groups[0]["lr"] = lr
    return trainer


FEW_REWARDS = {"ctrl_steps": 2, "ctrl_steps_aggregate": 2}
TRAINERS = {
    # the trainer, and after how many calls of the loss the 2nd epoch's 2nd step begins, if all goes well
    "first order": (partial(search, DartsTrainer, **QUIET), 10),
    "second order": (partial(search, DartsTrainer, unrolled=True, **QUIET), 25),
    "ENAS": (partial(search, EnasTrainer, **QUIET, **FEW, **FEW_REWARDS), 9),
    "random": (partial(search, RandomSearch, **QUIET, **FEW), 5),
    "standalone": (partial(standalone, **QUIET), 6),  # an evaluation of 10 images each epoch
}


def finite(state):
    if isinstance(state, dict):
        return all(map(finite, state.values()))
    if isinstance(state, list | tuple):
        return all(map(finite, state))
    return not isinstance(state, torch.Tensor) or bool(torch.isfinite(state).all())


def ends(trainer, path=None):
    """Fit; the message. What is on disk is sound."""
    with pytest.raises(DivergedError, match="learning rate.*try a learning rate") as caught:
        trainer.fit()
    assert isinstance(caught.value, NaseduError) and isinstance(caught.value, RuntimeError)
    if path is not None and path.exists():
        assert finite(checkpoint._read(path, torch.device("cpu")))
    return str(caught.value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("kind", TRAINERS)
def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(kind, value, tmp_path):
    make, calls = TRAINERS[kind]
    sound = make()
    sound.fit()

    path = tmp_path / "run.pt"
    trainer = make(path, loss=Turns(calls, value))
    message = ends(trainer, path)
    assert message.startswith("epoch 2 of 3, step 2 of ")
    assert not any("norm" in name for name in sound.history.epochs[0])
    assert "grad_norm" in message and "loss is" in message

    again = make(path)  # the bad batch was an accident: the run goes on from the last sound step
    again.fit()
    assert_same(sound.model.state_dict(), again.model.state_dict())
    assert again.history == sound.history


def test_a_virtual_step_to_nowhere_ends_a_second_order_search(tmp_path):
    make, calls = TRAINERS["second order"]
    message = ends(make(tmp_path / "run.pt", loss=Turns(calls + 1, torch.nan)), tmp_path / "run.pt")
    assert message.startswith("epoch 2 of 3, step 2 of 4") and "valid_loss is nan" in message
    # and so does a finite difference that is not: its two passes are calls 2 and 3 of a step
    message = ends(make(tmp_path / "other.pt", loss=Turns(calls + 2, torch.inf)), tmp_path / "other.pt")
    assert message.startswith("epoch 2 of 3, step 2 of 4") and "alpha_grad_norm is nan" in message


def test_rewards_that_are_not_finite_end_an_enas_search(tmp_path):
    make, _ = TRAINERS["ENAS"]
    turn = Turns(5, torch.nan)

    def reward(logits, y):
        return float(turn(logits, y))

    message = ends(make(tmp_path / "run.pt", reward_function=reward), tmp_path / "run.pt")
    assert message.startswith("epoch 2 of 3, step 5 of 6: reward is nan"), message


@pytest.mark.parametrize("kind", TRAINERS)
def test_an_augmentation_that_makes_nan_ends_the_run_before_anything_is_saved(kind, tmp_path):
    def augment(x, generator):
        return x * torch.nan

    message = ends(TRAINERS[kind][0](tmp_path / "run.pt", augment=augment))
    assert "step 1 of" in message and "augmentation" in message
    assert not (tmp_path / "run.pt").exists()


@pytest.mark.parametrize("lr", [torch.nan, torch.inf, 1e30])
@pytest.mark.parametrize("kind", TRAINERS)
def test_a_learning_rate_that_is_none_ends_the_run_before_anything_is_saved(kind, lr, tmp_path):
    message = ends(TRAINERS[kind][0](tmp_path / "run.pt", lr=lr))
    assert message.startswith("epoch 1 of 3, step 1 of ") and f"learning rate {lr}" in message
    assert not (tmp_path / "run.pt").exists()


def test_a_learning_rate_of_the_architecture_that_is_none_ends_the_run(tmp_path):
    options = {"arc_learning_rate": 1e30}
    assert "alpha" in ends(TRAINERS["first order"][0](tmp_path / "run.pt", **options), tmp_path / "run.pt")
    with pytest.raises(NaseduError, match="ctrl_lr is 1e\\+30; wanted a number from 0 to"):
        TRAINERS["ENAS"][0](tmp_path / "run.pt", ctrl_lr=1e30)


def test_without_a_checkpoint_an_epoch_of_one_step_ends_so_too():
    trainer = search(RandomSearch, lr=1e30, num_epochs=1, **QUIET, **FEW)
    trainer.steps_per_epoch = 1
    assert "things learned" in ends(trainer)


@pytest.mark.parametrize("kind", ["first order", "ENAS", "random"])
def test_what_has_diverged_is_not_exported(kind):
    trainer = TRAINERS[kind][0](loss=Turns(3, torch.nan))
    ends(trainer)
    for question in (trainer.best, trainer.export, trainer.genotype):
        with pytest.raises(DivergedError, match="not finite"):
            question()


def test_a_metric_that_is_not_finite_is_said():
    trainer = search(RandomSearch, **{**QUIET, **FEW, "metrics": lambda logits, y: {"f1": float("nan")}})
    assert ends(trainer).startswith("epoch 1 of 3, step 1 of 4: train_f1 is nan")


def test_an_evaluation_that_is_not_finite_is_said(tmp_path):
    path = tmp_path / "run.pt"
    message = ends(standalone(path, loss=Turns(4, torch.nan), **QUIET), path)
    assert message.startswith("epoch 1 of 3, step 4 of 4") and "measured valid_loss" in message


# ---- how


def test_numbers_are_read_at_intervals_and_the_right_step_is_named(monkeypatch, tmp_path):
    """As on a GPU: nothing is read but every 3 steps, at the end of an epoch, and before a save."""
    reads = []
    monkeypatch.setattr(watch, "EVERY", 3)
    monkeypatch.setattr("nasedu.search.trainer.EVERY", 3)
    monkeypatch.setattr(watch, "read", lambda rows: reads.append(len(rows)) or read(rows))

    def make(path=None, **options):
        trainer = search(RandomSearch, path, **QUIET, **FEW, **options)
        real, trainer.device = trainer.device, torch.device("meta")
        trainer.train_batch.device = real
        monkeypatch.setattr(trainer, "check_sound", lambda **measured: None)
        return trainer

    make(num_epochs=2).fit()
    assert reads == [3, 1, 3, 1]
    reads.clear()
    ends(make(tmp_path / "run.pt", checkpoint_every=2, loss=Turns(1, torch.nan)))
    assert reads == [2] and not (tmp_path / "run.pt").exists()
    reads.clear()
    message = ends(make(loss=Turns(5, torch.nan)))
    assert reads == [3, 1, 3] and message.startswith("epoch 2 of 3, step 2 of 4: train_loss is nan")


def test_a_reading_gives_the_first_bad_step_and_empties_the_watch():
    kept = Watch()
    for step, loss in enumerate((1.0, torch.inf, torch.nan)):
        kept.add(f"step {step}", 0.1, {"loss": torch.tensor(loss), "grad_norm": torch.tensor(2.0)})
    with pytest.raises(DivergedError, match=r"^step 1: loss is inf \(learning rate 0\.1, grad_norm 2\)"):
        kept.read()
    assert len(kept) == 0 and kept.read() == []


def test_a_sound_state_is_finite_and_so_are_its_squares():
    check_sound("now", {"w": {"a": torch.ones(3), "steps": torch.tensor(7)}, "none": None, "b": 1e18}, 0.1)
    for bad in (torch.tensor([1.0, torch.nan]), torch.tensor([-torch.inf]), torch.tensor([2e19]), torch.nan):
        with pytest.raises(DivergedError, match=r"now: 1 of 2 things.*\(w b; learning rate 0\.1\)"):
            check_sound("now", {"w": {"a": torch.ones(3), "b": bad}}, 0.1)


def test_numbers_of_several_devices_are_read_as_they_are():
    rows = [{"a": 1, "b": torch.tensor(0.1, requires_grad=True)}, {}, {"c": 2.5}]
    assert read(rows) == [{"a": 1.0, "b": torch.tensor(0.1).item()}, {}, {"c": 2.5}]
    assert evaluation.read([]) == []


@pytest.mark.parametrize("number", [float("nan"), float("inf"), [0.5, float("nan")]])
def test_a_history_is_strict_json(number, tmp_path):
    history = History([{"epoch": 1, "mine": number}])
    with pytest.raises(HistoryError, match="epoch 1 of the history.*strict JSON"):
        history.save(tmp_path / "history.json")
    text = History([{"epoch": 1, "mine": 0.5}]).to_json()
    assert json.loads(text)["epochs"] == [{"epoch": 1, "mine": 0.5}]
    with pytest.raises(HistoryError, match="no number of JSON"):
        History.from_json(text.replace("0.5", "NaN"))
