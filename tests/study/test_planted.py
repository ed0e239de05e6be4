"""A planted operation is found: the one search of which we know the right answer."""

from __future__ import annotations

import pytest
import torch

from nasedu.space.ops import PRIMITIVES
from nasedu.study import planted
from nasedu.study.planted import plant

SEEDS = range(2)


def test_planted_operations_are_found():
    # The command plants five seeds of each; two of dil_conv_3x3 it does not find.
    trials = [plant(op, seed) for op in PRIMITIVES for seed in SEEDS]
    lost = [f"{trial.planted}: {trial.found}" for trial in trials if trial.found != trial.planted]
    assert len(lost) <= 1, f"of {len(trials)} planted operations {len(lost)} were not found: {lost}"


def test_a_path_starts_undecided_and_stays_a_softmax():
    trial = plant("skip_connect", steps=3)
    assert trial.weights.shape == (4, 8) and not trial.weights.requires_grad
    torch.testing.assert_close(trial.weights[0], torch.full((8,), 1 / 8))
    torch.testing.assert_close(trial.weights.sum(dim=1), torch.ones(4))
    assert trial.planted == "skip_connect" and trial.ops == PRIMITIVES


def test_nothing_is_given_away_before_the_first_step():
    # A teacher whose weights the edge shared would be imitated at once, with a loss near (1 - 1/8)^2 = 0.77.
    # Strangers are about uncorrelated, so seven of them at 1/8 add to the targets' own variance, 1.
    for seed in SEEDS:
        assert plant("sep_conv_5x5", seed, steps=1, batch_size=32).loss > 0.95


def test_the_architecture_moves_only_by_its_own_steps():
    assert torch.equal(
        plant("avg_pool_3x3", steps=4, arc_learning_rate=0.0).weights, torch.full((5, 8), 1 / 8)
    )


def test_the_weights_must_learn_for_a_convolution_to_be_found():
    # Pools and identity need no training; random convolutions that stay random imitate nobody.
    assert plant("dil_conv_5x5", lr=0.0, steps=60).found != "dil_conv_5x5"
    assert plant("max_pool_3x3", lr=0.0, steps=60).found == "max_pool_3x3"


def test_a_trial_is_a_function_of_its_seed_and_leaves_no_trace():
    before = torch.get_rng_state()
    one, same, other = (plant("max_pool_3x3", seed, steps=5) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.weights, same.weights) and one.loss == same.loss
    assert not torch.equal(one.weights, other.weights)


def test_an_operation_that_is_no_candidate_cannot_be_planted():
    with pytest.raises(ValueError, match="'sep_conv_7x7' can't be found among none, max_pool_3x3"):
        plant("sep_conv_7x7")


def test_the_command_counts_what_it_found(monkeypatch, capsys):
    quick = plant
    monkeypatch.setattr(planted, "plant", lambda op, seed: quick(op, seed, steps=1))
    found = planted.main(1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(PRIMITIVES)
    assert lines[-1] == f"found {found} of 8" and sum("(" not in line for line in lines[:-1]) == found
