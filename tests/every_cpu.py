"""What trains in this package, once, smallest: each operation and each trainer, forward and backward.

`test_every_cpu.py` runs this file in a process of its own, which may die: a CPU library that writes past its
memory ends the process and not the test. Each line is printed before its work starts, so the last line
names the work that a crash interrupted.
"""

import gc
import sys
from collections.abc import Callable, Iterator

import torch
from torch import nn

from nasedu import (
    CNN,
    DartsTrainer,
    EnasTrainer,
    Genotype,
    LayerChoice,
    MacroCNN,
    Network,
    RandomSearch,
    StandaloneTrainer,
    accuracy,
    get_dataset,
)
from nasedu.doctor import exercise
from nasedu.search import EdgeShares, Eigenvalues, Gumbel, reward_accuracy
from nasedu.space.fast_ops import FactorizedReduce
from nasedu.space.ops import known, make_op
from nasedu.space.small import SmallCNN


class Pointwise(nn.Module):
    """A model of one's own that halves its map by a 1x1 convolution of 3 channels: see search/memory.py."""

    def __init__(self) -> None:
        super().__init__()
        self.halve = nn.Conv2d(3, 4, 1, stride=2)
        self.choice = LayerChoice({"a": nn.Conv2d(4, 4, 1, stride=2), "b": nn.AvgPool2d(2)}, "which")
        self.head = nn.Linear(4, 10)

    def forward(self, x, arch):
        return self.head(self.choice(self.halve(x).relu(), arch).mean((2, 3)))


OPTIONS = {"loss": nn.CrossEntropyLoss(), "metrics": accuracy, "progress": False, "num_epochs": 1}
ENAS = {"reward_function": reward_accuracy, "ctrl_steps": 1, "ctrl_steps_aggregate": 2, "n_candidates": 2}
CELL = [[("skip_connect", 0), ("sep_conv_3x3", 1)]]
MODELS: dict[str, Callable[[], nn.Module]] = {
    "cells": lambda: CNN(16, 3, 2, 10, 3, n_nodes=2),
    "cells of partial channels": lambda: CNN(16, 3, 4, 10, 3, n_nodes=2, partial=2),
    "small": lambda: SmallCNN(4),
    "macro": lambda: MacroCNN(16, 3, 4, 10, 3),
    "a model of one's own": Pointwise,
}


def search(cls: Callable, model: str, **options) -> None:
    torch.manual_seed(0)
    made = MODELS[model]()
    optimizer = torch.optim.SGD(made.parameters(), 0.05, momentum=0.9)
    data, _ = get_dataset("shapes10", subset=(32, 10), input_size=16)
    trainer = cls(
        model=made, optimizer=optimizer, dataset=data, batch_size=8, device="cpu", **OPTIONS, **options
    )
    trainer.fit()
    trainer.export()


def alone() -> None:
    torch.manual_seed(0)
    model = Network(Genotype(CELL, CELL), 2, 10, 3, auxiliary=True)
    train, valid = get_dataset("shapes10", subset=(16, 10), input_size=32)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    StandaloneTrainer(model, optimizer, 1, train, valid, batch_size=4, device="cpu", progress=False).fit()


def work() -> Iterator[tuple[str, Callable[[], None]]]:
    """What there is to do, by name."""
    for name in sorted(known()):
        for stride in (1, 2):
            for channels in (4, 8):
                for form in (True, False):
                    yield (
                        f"{name}, stride {stride}, {channels} channels, {'search' if form else 'derived'}",
                        lambda n=name, s=stride, c=channels, f=form: exercise(make_op(n, c, s, f), c),
                    )
    for c_in, c_out in ((3, 4), (6, 2)):
        yield (
            f"FactorizedReduce, {c_in} channels to {c_out}",
            lambda a=c_in, b=c_out: exercise(FactorizedReduce(a, b, True), a),
        )
    for model in MODELS:
        yield f"DARTS, first order, {model}", lambda m=model: search(DartsTrainer, m)
        yield f"DARTS, second order, {model}", lambda m=model: search(DartsTrainer, m, unrolled=True)
        yield f"ENAS, {model}", lambda m=model: search(EnasTrainer, m, **ENAS)
        yield f"random search, {model}", lambda m=model: search(RandomSearch, m, n_candidates=2)
    yield (
        "DARTS with Gumbel rows, edge shares, the Hessian",
        lambda: search(
            DartsTrainer,
            "small",
            relaxation=EdgeShares({"cell": [1, 2, 2]}, Gumbel(10.0, 0.1)),
            callbacks=[Eigenvalues(8)],
        ),
    )
    yield "a network alone", alone


def main() -> None:
    torch.set_num_threads(1)
    for name, do in work():
        print(name, flush=True)
        do()
        gc.collect()
    print("done", torch.backends.cpu.get_cpu_capability(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
