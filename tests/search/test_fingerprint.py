"""A checkpoint is resumed by the same run only: whatever decides the result is told apart, and by name."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from nasedu import PUBLISHED, DartsTrainer, EnasTrainer, Network, accuracy, get_dataset, reward_accuracy
from nasedu.data import Augment, crc32
from nasedu.files import FileError
from nasedu.search import CheckpointError, StandaloneTrainer, fingerprint, one_cycle
from nasedu.space import SmallCNN

OWN = {
    DartsTrainer: {"arc_learning_rate": 0.05},
    EnasTrainer: {"reward_function": reward_accuracy, "ctrl_steps": 2, "ctrl_steps_aggregate": 2},
    StandaloneTrainer: {"arch": {"cell": torch.eye(5)[[1, 2, 3]]}},
}


def softened(output, target):
    return nn.functional.cross_entropy(output, target, label_smoothing=0.2)


class Noise:
    """An augmentation of one's own."""

    def __init__(self, strength):
        self.strength = strength

    def __call__(self, x, generator=None):
        return x + self.strength * torch.rand(x.shape, generator=generator)


def make(
    method=DartsTrainer, sgd=torch.optim.SGD, rates=None, scheduled=None, change=None, model=None, **options
):
    """A tiny run of 1 epoch of 2 steps; `change(data)` changes the dataset."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = model or SmallCNN(4)
    data, valid = get_dataset("shapes10", subset=(32, 16), input_size=8)
    if change:
        change(data)
    optimizer = sgd(
        model.parameters(), **{"lr": 0.05, "momentum": 0.9, "weight_decay": 3e-4, **(rates or {})}
    )
    given = {
        "model": model,
        "loss": nn.CrossEntropyLoss(),
        "metrics": accuracy,
        "optimizer": optimizer,
        "num_epochs": 1,
        "dataset": data,
        "batch_size": 8,
        "device": "cpu",
        "progress": False,
        **OWN[method],
    }
    if method is StandaloneTrainer:
        given["valid"] = valid
    elif scheduled is not False:
        scheduled = scheduled or functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=1)
        given["scheduler"] = scheduled(optimizer)
    return method(**{**given, **options})


def of_labels(data):
    data.labels[0] = (data.labels[0] + 1) % 10


def of_mean(data):
    data.mean = data.mean + 0.01


def of_std(data):
    data.std = data.std * 1.5


def of_images(data):
    data.inputs[0, 0, 0, 0] ^= 1


def blackened(x, generator):
    return x * 0.5


# Another run, and what the message must say of the difference: in the file, and here.
BOTH = {
    "rate": ({"rates": {"lr": 0.1}}, "'optimizer.lr': 0.05", "'optimizer.lr': 0.1"),
    "momentum": ({"rates": {"momentum": 0.5}}, "'optimizer.momentum': 0.9", "'optimizer.momentum': 0.5"),
    "weight decay": ({"rates": {"weight_decay": 0.0}}, "'optimizer.weight_decay': 0.0003", "0.0"),
    "nesterov": ({"rates": {"nesterov": True}}, "'optimizer.nesterov': False", "True"),
    "optimizer": (
        {"sgd": torch.optim.RMSprop}, "'optimizer.class': 'SGD'", "'optimizer.class': 'RMSprop'"
    ),
    "grad_clip": ({"grad_clip": 1.0}, "'grad_clip': 5.0", "'grad_clip': 1.0"),
    "loss": ({"loss": softened}, "'loss.module': 'CrossEntropyLoss", "softened"),
    "a setting of the loss": (
        {"loss": nn.CrossEntropyLoss(weight=torch.arange(10.0))}, "nothing else", r"'loss.weight': \[0.0, 1.0"
    ),
    "metrics": ({"metrics": functools.partial(accuracy, topk=(1, 2))}, "metrics", r"topk': \[1, 2\]"),
    "augmentation": ({"augment": False}, "'augment.crop_padding': 4", "'augment': None"),
    "padding": ({"augment": Augment(2)}, "'augment.crop_padding': 4", "'augment.crop_padding': 2"),
    "own augmentation": ({"augment": Noise(0.1)}, "augment", "'Noise', 'augment.strength': 0.1"),
    "labels": ({"change": of_labels}, "'data.labels': 'crc32", "'data.labels': 'crc32"),
    "images": ({"change": of_images}, "'data.inputs': '32 images, crc32", "'data.inputs'"),
    "mean": ({"change": of_mean}, r"'data.mean': \[0", r"'data.mean': \[0"),
    "std": ({"change": of_std}, r"'data.std': \[0", r"'data.std': \[0"),
    "seed": ({"seed": 1}, "'seed': 0", "'seed': 1"),
    "batch size": ({"batch_size": 4}, "'batch_size': 8", "'batch_size': 4"),
    "epochs": ({"num_epochs": 2}, "'num_epochs': 1", "'num_epochs': 2"),
    "model": ({"model": SmallCNN(8)}, "'model.weights'", "'model.weights'"),
}  # fmt: skip
SEARCHES = {
    "scheduler": ({"scheduled": False}, "'scheduler.class': 'CosineAnnealingLR'", "'scheduler': None"),
    "length of the schedule": (
        {"scheduled": functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=9)},
        "'scheduler.T_max': 1", "'scheduler.T_max': 9",
    ),
    "valid_share": ({"valid_share": 0.4}, "'valid_share': 0.5", "'valid_share': 0.4"),
}  # fmt: skip
DARTS = {
    "arc_learning_rate": ({"arc_learning_rate": 0.01}, "'arc_learning_rate': 0.05", "0.01"),
    "learning_rate": ({"learning_rate": 0.1}, "'learning_rate': None", "'learning_rate': 0.1"),
    "unrolled": ({"unrolled": True}, "'unrolled': False", "'unrolled': True"),
}  # fmt: skip
ENAS = {
    "ctrl_lr": ({"ctrl_lr": 0.01}, "'ctrl_lr': 0.00035", "'ctrl_lr': 0.01"),
    "ctrl_kwargs": ({"ctrl_kwargs": {"lstm_size": 8}}, "'ctrl_kwargs", "'ctrl_kwargs.lstm_size': 8"),
    "baseline_decay": ({"baseline_decay": 0.9}, "'baseline_decay': 0.999", "'baseline_decay': 0.9"),
    "reward": ({"reward_function": lambda output, target: 1.0}, "reward_accuracy'", "code"),
    "entropy_weight": ({"entropy_weight": 0.1}, "'entropy_weight': 0.0001", "'entropy_weight': 0.1"),
    "skip_weight": ({"skip_weight": 0.1}, "'skip_weight': 0.8", "'skip_weight': 0.1"),
    "ctrl_steps": ({"ctrl_steps": 5}, "'ctrl_steps': ", "'ctrl_steps': 5"),
    "samples": ({"ctrl_steps_aggregate": 5}, "'ctrl_steps_aggregate': ", "'ctrl_steps_aggregate': 5"),
    "child_epochs": ({"child_epochs": 1}, "'child_epochs': 0", "'child_epochs': 1"),
    "paired": ({"paired": True}, "'paired': False", "'paired': True"),
    "reward_images": ({"paired": True, "reward_images": 4}, "'reward_images': 8", "'reward_images': 4"),
}  # fmt: skip
ALONE = {
    "schedule": ({"schedule": one_cycle}, "'schedule': 'nasedu.*cosine'", "'schedule': 'nasedu.*one_cycle'"),
    "auxiliary_weight": ({"auxiliary_weight": 0.2}, "'auxiliary_weight': 0.4", "'auxiliary_weight': 0.2"),
    "arch": ({"arch": {"cell": torch.eye(5)[[1, 1, 1]]}}, "'arch.cell'", "'arch.cell'"),
}
VARIANTS = [
    *((DartsTrainer, name, *of) for name, of in {**BOTH, **SEARCHES, **DARTS}.items()),
    *((EnasTrainer, name, *of) for name, of in {**BOTH, **SEARCHES, **ENAS}.items()),
    *((StandaloneTrainer, name, *of) for name, of in {**BOTH, **ALONE}.items()),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for method in OWN:
        trainer = make(method)
        trainer.train_step(0, 0)
        trainer.save(folder / method.kind)
    return folder


@pytest.mark.parametrize(
    "method, name, options, there, here", VARIANTS, ids=[f"{m.kind}: {name}" for m, name, *_ in VARIANTS]
)
def test_another_run_is_refused_and_the_message_says_what_differs(saved, method, name, options, there, here):
    trainer = make(method, **options)
    with pytest.raises(CheckpointError, match=f"another run: it has .*{there}.* this run has .*{here}"):
        trainer.load(saved / method.kind)


def test_another_drop_path_is_refused(tmp_path):
    def network(drop_path):
        model = Network(PUBLISHED["DARTS_V2"], 2, 10, 3)
        return make(StandaloneTrainer, model=model, arch=None, drop_path=drop_path)

    network(0.0).save(tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match="it has {'drop_path': 0.0}, this run has {'drop_path': 0.1}"):
        network(0.1).load(tmp_path / "run.pt")


@pytest.mark.parametrize("method", OWN, ids=lambda method: method.kind)
def test_the_same_arguments_are_accepted(saved, method):
    trainer = make(method)
    trainer.load(saved / method.kind)
    # What does not change the result may be another.
    make(method, log_frequency=1, checkpoint_every=7, callbacks=[print]).load(saved / method.kind)


def test_a_fresh_process_says_the_same():
    """Nothing of a process is in it: no address, no order of a set; with lambdas and closures, too."""
    code = f"""
import json, sys
sys.path[:0] = {sys.path!r}
from test_fingerprint import everything
print(json.dumps(everything()))
"""
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {json.dumps(everything()) + "\n"}


def everything():
    strength = 0.3
    names = {"a", "b", "c"}
    told = make(
        DartsTrainer,
        loss=lambda output, target: (
            softened(output, target) * (2 if "x" in {"u", "v", "x", "y"} else strength)
        ),
        augment=functools.partial(lambda x, generator, by: x * by * len(names), by=strength),
    ).config()
    return [told, *(make(method).config() for method in OWN)]


def test_functions_without_a_name_are_told_by_code_and_by_what_they_were_made_with():
    def scaled(by):
        return lambda x: x * by

    told = fingerprint.described
    assert told(scaled(2)) == told(scaled(2)) != told(scaled(3))
    assert told(lambda x: x + 1) == told(lambda x: x + 1) != told(lambda x: x + 2)
    assert told(lambda x: x.sin()) != told(lambda x: x.cos())
    assert told(lambda x, by=1: x * by) != told(lambda x, by=2: x * by)
    assert told(scaled(blackened)) == told(scaled(blackened)) != told(scaled(of_mean))
    assert told(accuracy) == "nasedu.search.evaluation.accuracy"
    assert told(Noise(1).__call__) != told(Noise(2).__call__)
    assert told(torch.nn.functional.relu).endswith("relu") and told(torch.relu).endswith("relu")


def test_a_list_that_a_function_fills_does_not_make_it_another():
    seen = []
    loss = lambda output, target: seen.append(1) or softened(output, target)  # noqa: E731
    before = fingerprint.described(loss)
    seen.append(2)
    assert fingerprint.described(loss) == before


def test_a_rate_that_could_not_be_read_again_is_told_at_the_start(tmp_path):
    trainer = make(rates={"lr": np.float64(0.05)}, scheduled=False, checkpoint=tmp_path / "run.pt")
    trainer.train_step = None  # would fail if called
    with pytest.raises(CheckpointError, match=r"run.pt could not be read again.*keeps numpy.*float\(rate\)"):
        trainer.fit()
    assert type(trainer.config()["optimizer"]["lr"]) is float and list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileError, match="there is no checkpoint .*run.pt: give the path of one"):
        make().load(tmp_path / "run.pt")


def test_numbers_of_half_precision_have_a_checksum():
    x = torch.arange(4.0)
    assert crc32(x.bfloat16()) != crc32(x.half()) != crc32(x) == "crc32 25601b8b"
    assert crc32(torch.tensor(1.0), x[:0]) == crc32(torch.tensor([1.0]))


def test_the_rate_is_that_of_the_start():
    trainer = make()
    trainer.fit()
    assert trainer.optimizer.param_groups[0]["lr"] == 0.0, "the cosine's end"
    assert trainer.config()["optimizer"]["lr"] == 0.05
    assert fingerprint.optimizer(trainer.optimizer)["lr"] == 0.05
