"""The registry of methods: each is searched the same way, and a new one is one class and one entry."""

import inspect
import json

import pytest
import torch
from torch import nn

from nasedu import (
    CNN,
    DartsTrainer,
    EnasTrainer,
    Genotype,
    History,
    RandomSearch,
    StandaloneTrainer,
    accuracy,
    get_dataset,
)
from nasedu.search import METHODS, Method, SearchTrainer, build, registry
from nasedu.space import check_arch, discretise, random_arch, read

RATES = {
    "arc_learning_rate": 0.01,
    "ctrl_steps": 2,
    "ctrl_steps_aggregate": 2,
    "n_candidates": 2,
}


def built(name: str, **more) -> SearchTrainer:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data, _ = get_dataset("shapes10", subset=(32, 10), input_size=8)
    model = CNN(8, 3, 4, 10, 3, n_nodes=2, **METHODS[name].model)
    return build(
        name,
        RATES,
        model=model,
        loss=nn.CrossEntropyLoss(),
        metrics=accuracy,
        optimizer=torch.optim.SGD(model.parameters(), 0.05, momentum=0.9),
        num_epochs=1,
        dataset=data,
        batch_size=8,
        progress=False,
        **more,
    )


@pytest.fixture
def blind():
    """A method that is not of the package: it keeps the first thing it draws."""

    class Blind(SearchTrainer):
        """Train nothing, draw once."""

        kind = "blind"
        steps_per_epoch = 1

        def train_step(self, epoch, step):
            return {"train_loss": 0.0}

        def arch(self):
            return random_arch(self.model, torch.Generator().manual_seed(self.seed))

    METHODS["blind"] = Method(Blind, "Draws once.")
    yield "blind"
    del METHODS["blind"]


def holds(trainer: SearchTrainer) -> None:
    """Everything that a search promises, whatever its method."""
    assert isinstance(trainer.fit(), History) and len(trainer.history) == 1
    check_arch(trainer.model.choices(), trainer.arch())
    best = trainer.best()
    genotype = trainer.genotype()
    assert isinstance(genotype, Genotype) and torch.equal(genotype.arch()["normal"], best["normal"])
    export = json.loads(json.dumps(trainer.export()))
    assert all(torch.equal(matrix, best[label]) for label, matrix in read(trainer.model, export).items())
    assert trainer.model(torch.randn(2, 3, 8, 8), best).shape == (2, 10)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_of_the_registry_fits_and_answers(name):
    trainer = built(name)
    holds(trainer)
    assert METHODS[name].about.endswith(".")
    if name.startswith("DARTS"):
        assert trainer.unrolled == (name == "DARTS 2nd") and trainer.alpha_optimizer.defaults["lr"] == 0.01
        assert all(
            torch.equal(v, trainer.best()[k]) for k, v in discretise(trainer.model, trainer.arch()).items()
        )
    if name == "ENAS":
        assert trainer.ctrl_steps_aggregate == 2


def test_a_new_method_is_one_class_and_one_entry(blind):
    trainer = built(blind)
    holds(trainer)
    assert type(trainer).__name__ == "Blind" and "blind" in registry.METHODS


def test_rates_are_taken_where_they_fit_and_arguments_always():
    assert "ctrl_lr" in METHODS["ENAS"].takes() and "ctrl_lr" not in METHODS["random"].takes()
    assert METHODS["ENAS"].trainer is EnasTrainer
    assert built("random", n_candidates=3).n_candidates == 3  # an argument overrules a rate
    with pytest.raises(TypeError, match="ctrl_lr"):
        built("random", ctrl_lr=0.1)
    with pytest.raises(ValueError, match="no method 'DART'; there are DARTS 1st, .*random"):
        build("DART")


@pytest.mark.parametrize("trainer", [DartsTrainer, EnasTrainer, RandomSearch, StandaloneTrainer])
def test_a_trainer_says_all_its_arguments_by_name(trainer):
    arguments = inspect.signature(trainer).parameters
    wanted = {"seed", "checkpoint", "checkpoint_every", "callbacks", "progress", "augment"}
    assert wanted <= set(arguments) and not any(a.kind is a.VAR_KEYWORD for a in arguments.values())
    assert trainer is StandaloneTrainer or "scheduler" in arguments  # which has a schedule by the step
