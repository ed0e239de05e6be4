"""What does not fit together is told before the first step: optimizer, scheduler, labels, types, memory."""

import subprocess
import sys

import pytest
import torch
from killing import assert_same
from torch import nn

from nasedu import (
    CNN,
    DartsTrainer,
    EnasTrainer,
    NaseduError,
    RandomSearch,
    StandaloneTrainer,
    accuracy,
    get_dataset,
    reward_accuracy,
)
from nasedu.data.datasets import batch_at
from nasedu.search import TooLargeError
from nasedu.search import trial as trial_module
from nasedu.search.trial import check_memory, free_memory
from nasedu.space import random_arch

QUIET = {"loss": nn.CrossEntropyLoss(), "metrics": accuracy, "progress": False}
FEW = {"reward_function": reward_accuracy, "n_candidates": 2, "candidate_images": 8}
KINDS = {
    "DARTS": (DartsTrainer, {}),
    "ENAS": (EnasTrainer, {**FEW, "ctrl_steps": 1, "ctrl_steps_aggregate": 2}),
    "random": (RandomSearch, FEW),
    "standalone": (StandaloneTrainer, {}),
}


def make(kind="random", model=None, optimizer=None, relabel=None, **options):
    torch.manual_seed(0)
    cls, more = KINDS[kind]
    model = model or CNN(16, 3, 2, 10, 3, n_nodes=2)
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    data, valid = get_dataset("shapes10", subset=(64, 10), input_size=16)
    if relabel is not None:
        data = data.like(data.inputs, relabel(data.labels))
    if cls is StandaloneTrainer:
        more = {"valid": valid, "arch": random_arch(model, torch.Generator().manual_seed(0))}
    given = {"num_epochs": 1, "batch_size": 8, "device": "cpu", **QUIET, **more, **options}
    return cls(model=model, optimizer=optimizer, dataset=data, **given)


def never(*args):
    raise AssertionError("a step was made")


def told_before_a_step(match, monkeypatch, error=NaseduError, **options):
    trainer = make(**options)
    monkeypatch.setattr(trainer, "train_step", never)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    with pytest.raises(error, match=match):
        trainer.fit()
    assert_same(before, dict(trainer.model.state_dict()))


# ---- the optimizer


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_of_another_model_is_refused(kind):
    other = CNN(16, 3, 2, 10, 3, n_nodes=2)
    n = len(list(other.parameters()))
    with pytest.raises(NaseduError, match=rf"lacks {n} of the model's {n} weights.*never move"):
        make(kind, optimizer=torch.optim.SGD(other.parameters(), 0.1))
    model = CNN(16, 3, 2, 10, 3, n_nodes=2)
    with pytest.raises(NaseduError, match=rf"lacks {n - 2} of the model's {n} weights.*stem"):
        make(kind, model, torch.optim.SGD(model.classifier.parameters(), 0.1))


def test_groups_frozen_weights_and_parameters_of_others_are_taken():
    model = CNN(16, 3, 2, 10, 3, n_nodes=2)
    head = list(model.classifier.parameters())
    body = [p for p in model.parameters() if all(p is not q for q in head)]
    extra = nn.Parameter(torch.zeros(3))
    make(
        model=model, optimizer=torch.optim.SGD([{"params": body}, {"params": [*head, extra], "lr": 1.0}], 0.1)
    )
    for p in body:
        p.requires_grad_(False)
    make(model=model, optimizer=torch.optim.Adam(head, 0.1))
    make(model=model.double(), optimizer=torch.optim.SGD(model.parameters(), 0.1))


def test_a_scheduler_of_another_optimizer_is_refused():
    model = CNN(16, 3, 2, 10, 3, n_nodes=2)
    sgd, other = (torch.optim.SGD(model.parameters(), 0.1) for _ in range(2))
    schedule = torch.optim.lr_scheduler.StepLR
    with pytest.raises(NaseduError, match="scheduler belongs to another optimizer"):
        make(model=model, optimizer=sgd, scheduler=schedule(other, 1))
    both = torch.optim.lr_scheduler.ChainedScheduler([schedule(sgd, 1), schedule(sgd, 2)])
    make(model=model, optimizer=sgd, scheduler=both)


# ---- arguments, labels, types, metrics


@pytest.mark.parametrize(
    "name, value",
    [
        ("checkpoint_every", 0),
        ("seed", -1),
        ("seed", 1.5),
        ("seed", "0"),
        ("num_epochs", True),
        ("batch_size", 0),
        ("log_frequency", -1),
        ("grad_clip", -1.0),
        ("grad_clip", float("nan")),
        ("precision", "fp8"),
    ],
)
@pytest.mark.parametrize("kind", ["DARTS", "standalone"])
def test_arguments_that_can_not_be_are_told(kind, name, value):
    with pytest.raises(NaseduError, match=f"{name} is .*; wanted"):
        make(kind, **{name: value})


@pytest.mark.parametrize("kind", KINDS)
def test_labels_beyond_the_classes_are_told_before_a_step(kind, monkeypatch):
    match = "labels go from 5 to 14, and the model has 10 classes.*15 classes"
    told_before_a_step(match, monkeypatch, kind=kind, relabel=lambda y: y + 5)
    match = "labels go from -3 to 6"
    told_before_a_step(match, monkeypatch, kind=kind, relabel=lambda y: y - 3)


def test_labels_that_are_to_be_ignored_are_no_mistake():
    make(relabel=lambda y: torch.where(y == 3, -100, y), metrics=lambda logits, y: {}).fit()


@pytest.mark.parametrize("kind", ["DARTS", "ENAS", "random"])
def test_a_model_of_another_type_is_told_before_a_step(kind, monkeypatch):
    model = CNN(16, 3, 2, 10, 3, n_nodes=2).double()
    match = r"weights are torch.float64, the images come as torch.float32; call model.float\(\)"
    told_before_a_step(match, monkeypatch, kind=kind, model=model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.5, None, {"acc": "high"}, {"acc": torch.ones(3)}, ["acc"]])
def test_metrics_that_are_no_numbers_by_name_are_told(kind, value):
    with pytest.raises(NaseduError, match="metrics gave .*wanted numbers by name"):
        make(kind, metrics=lambda logits, y: value).fit()


def test_a_trial_changes_nothing(monkeypatch):
    """Weights, averages, modes and the numbers of a run are what they are without it."""
    for kind in KINDS:
        tried = make(kind)
        tried.fit()
        untried = make(kind)
        monkeypatch.setattr(untried, "sample", lambda: None)
        untried.fit()
        assert_same(untried.model.state_dict(), tried.model.state_dict())
        assert untried.history == tried.history


# ---- memory


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_not_fit_is_told_before_a_step(kind, monkeypatch):
    monkeypatch.setattr(trial_module, "free_memory", lambda device: 0.4e6)
    match = r"GB are free: lower batch_size=8 first.*channels.*smaller images than \(3, 16, 16\).*may fit"
    told_before_a_step(match, monkeypatch, TooLargeError, kind=kind)


@pytest.mark.parametrize("kind", ["DARTS", "standalone"])
def test_the_estimate_is_what_a_step_keeps(kind, monkeypatch):
    """Against all that a forward pass of a whole batch keeps for the way back."""
    trainer, seen, free = make(kind), {}, []
    x, _ = batch_at(trainer.sample(), torch.arange(trainer.batch_size))
    own = {p.untyped_storage().data_ptr() for p in (*trainer.model.parameters(), *trainer.model.buffers())}

    def pack(tensor):
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes() if storage.data_ptr() not in own else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        logits = trainer.trial(x)
    whole = sum(seen.values())
    del logits

    class Room(float):
        def __lt__(self, want):
            free.append(want)
            return False

    monkeypatch.setattr(trial_module, "free_memory", lambda device: Room())
    monkeypatch.setattr(trainer, "train_step", never)
    with pytest.raises(AssertionError, match="a step was made"):
        trainer.fit()
    assert 0.7 * whole < free[0] < whole


def test_weights_are_there_already_and_do_not_count(monkeypatch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2000), nn.Linear(2000, 10))  # 80 kB kept
    trainer = make("standalone", model, arch=None)
    monkeypatch.setattr(trial_module, "free_memory", lambda device: 1.5e5)
    trainer.fit()


def test_running_out_of_memory_says_what_to_lower():
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you ..."
        ),
        MemoryError(),
    ):

        def step(epoch, step, error=error):
            raise error

        trainer = make()
        trainer.train_step = step
        with pytest.raises(TooLargeError, match="cpu ran out of memory: lower batch_size=8 first") as caught:
            trainer.fit()
        assert caught.value.__cause__ is error
    check_memory(RuntimeError("shapes cannot be multiplied"), trainer)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux how much memory is free")
def test_a_real_limit_is_seen_before_a_step_and_in_one():
    code = """
import resource, sys, torch
from torch import nn
from nasedu import CNN, RandomSearch, accuracy, get_dataset
from nasedu.search import trial, TooLargeError
torch.set_num_threads(1)
data, _ = get_dataset("shapes10", subset=(2048, 10), input_size=32)
model = CNN(32, 3, 16, 10, 3, n_nodes=2)
sgd = torch.optim.SGD(model.parameters(), 0.1)
search = RandomSearch(model, nn.CrossEntropyLoss(), accuracy, sgd, 1, data, 1024, progress=False)
nn.functional.conv2d(torch.rand(2, 3, 8, 8), torch.rand(4, 3, 3, 3))
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
for look in (trial.free_memory, lambda device: None):
    trial.free_memory = look
    try:
        search.fit()
    except TooLargeError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout + done.stderr[-500:]
    assert "GB are free: lower batch_size=1024 first" in lines[0]
    assert "cpu ran out of memory: lower batch_size=1024 first" in lines[1]


def test_free_memory_is_a_number_or_unknown():
    free = free_memory(torch.device("cpu"))
    assert free is None or free > 1e6
    assert free_memory(torch.device("meta")) is None


# ---- bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_computes_in_bfloat16_and_comes_out_near(kind):
    seen = []

    def look(module, inputs, output):
        seen.append(output.dtype)

    runs = []
    for precision in (None, "bf16"):
        trainer = make(kind, precision=precision)
        trainer.model.classifier.register_forward_hook(look)
        runs.append(trainer.fit().epochs[0]["train_loss"])
        expected = torch.float32 if precision is None else torch.bfloat16
        assert seen[-1 if kind != "standalone" else 1] == expected
        seen.clear()
        assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    assert runs[0] != runs[1] and runs[0] == pytest.approx(runs[1], rel=0.05)
