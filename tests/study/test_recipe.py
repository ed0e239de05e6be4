"""A recipe is checked where it is written, goes into a record and comes back."""

from dataclasses import asdict, replace

import pytest
import torch

from nasedu.study import record, truth
from nasedu.study.protocols import CELL_SEARCH, RETRAIN, SMALL_SPACE, STUDIES
from nasedu.study.recipe import Recipe, RecipeError

TINY = Recipe(
    pixels=8, images=64, valid_images=0, test_images=16, channels=4, layers=3, epochs=1, batch_size=16,
    methods={"DARTS 1st": {}, "ENAS": {"ctrl_steps": 1, "epochs": 2}},
)  # fmt: skip


@pytest.mark.parametrize("recipe", [TINY, CELL_SEARCH, RETRAIN, SMALL_SPACE, truth.TRUTH, truth.SMALL])
def test_a_recipe_goes_through_json(recipe):
    assert Recipe.from_dict(record.plain(asdict(recipe))) == recipe


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"pixels": 7}, "pixels is 7; wanted a whole number, 8 or more"),
        ({"epochs": 0}, "epochs is 0"),
        ({"channels": 0}, "channels is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"batch_size": True}, "batch_size is True"),
        ({"epochs": 10**400}, "epochs is 1000"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"layers": 2}, "layers is 2; wanted 3 cells or more"),
        ({"layers": "5"}, "layers is '5'"),
        ({"lr": float("nan")}, "lr is nan; wanted a number, 0 or more"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"momentum": None}, "momentum is None"),
        ({"schedule": "step"}, "schedule is 'step'; wanted one of cosine, one_cycle"),
        ({"schedule": ["cosine"]}, "schedule is"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"pool": 10}, "pool is 10; wanted 0, or at least the 64 images"),
        ({"methods": []}, "methods is"),
        ({"methods": {"x": {"method": "magic"}}}, "method 'x' is .*one of DARTS"),
        ({"methods": {"x": {"method": ["DARTS"]}}}, "method 'x' is"),
    ],
)
def test_a_value_that_nothing_can_be_done_with_is_named(changed, message):
    with pytest.raises(RecipeError, match=message):
        replace(TINY, **changed)


def test_a_field_too_many_or_too_few_is_named():
    for data in ([], None, {**asdict(TINY), "more": 1}, {k: v for k, v in asdict(TINY).items() if k != "lr"}):
        with pytest.raises(RecipeError, match="a recipe wants the fields"):
            Recipe.from_dict(data)


def test_a_search_has_the_methods_own_epochs_and_arguments_and_the_seeds_weights():
    train, valid, test = TINY.datasets("shapes10")
    assert (len(train), len(test)) == (64, 16) and valid is test
    trainers = [TINY.search("ENAS", train, seed, entropy_weight=0.5) for seed in (0, 0, 1)]
    assert trainers[0].num_epochs == 2 and trainers[0].entropy_weight == 0.5
    assert trainers[0].steps_per_epoch == 2 + 1, "two batches a half, and one step of the controller"
    first, same, other = (next(trainer.model.parameters()) for trainer in trainers)
    assert torch.equal(first, same) and not torch.equal(first, other)
    with pytest.raises(RecipeError, match="no method 'magic'; there are DARTS 1st, ENAS"):
        TINY.search("magic", train, 0)


def test_only_the_first_images_of_the_pool_are_used():
    recipe = replace(TINY, images=32, pool=64)
    train, _, test = recipe.datasets("shapes10")
    assert len(train) == 64
    trainer = recipe.search("DARTS 1st", train, 0)
    assert len(trainer.train_half) + len(trainer.valid_half) == 32
    judge = recipe.training(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)), train, test, 0)
    assert torch.equal(judge.dataset.images, train.images[:32])


@pytest.mark.parametrize("name", STUDIES)
def test_every_method_of_a_study_can_be_built(name):
    recipe = replace(STUDIES[name].recipe, images=1_024, pool=0, valid_images=0, test_images=16)
    train, *_ = recipe.datasets("shapes10")
    for method in recipe.methods:
        trainer = recipe.search(method, train, 0)
        assert trainer.num_epochs == recipe.epochs_of(method) >= 1
