"""The checks of notebook 08: a right answer passes, each known slip fails at a case that names it."""

import pytest
import torch

from nasedu import check


def log_prob(probabilities, choices):
    return sum(p[c].log() for p, c in zip(probabilities, choices, strict=True))


def loss(log_prob, rewards, b):
    return -(log_prob * (rewards - b).detach()).mean()


def gains(rewards, baseline, decay, slip=""):
    b = (0.0 if slip == "zero" else sum(rewards) / len(rewards)) if baseline is None else baseline
    found = []
    for reward in rewards:
        old, b = b, b - (1 - decay) * (b - reward)
        found.append(reward - (old if slip == "late" else b))
    return found if slip == "alone" else (found, b)


def bandit(logits, rewards):
    p = logits.softmax(0)
    return p * (rewards - p @ rewards)


def best(p, rewards, scores):
    weight = p * scores.square().sum(1)
    return (weight * rewards).sum() / weight.sum()


def test_right_answers_pass(capsys):
    assert check.path_log_prob(log_prob) and check.moving_advantages(gains)
    assert check.reinforce_loss(loss)
    assert check.bandit_gradient(bandit) and check.best_baseline(best)
    out = capsys.readouterr().out
    assert out.count("✓") == 20 and "✗" not in out


@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda p, c: torch.stack([q[i] for q, i in zip(p, c, strict=True)]).prod().log(), "2,000 coins"),
        (lambda p, c: torch.stack([q[i] for q, i in zip(p, c, strict=True)]).prod(), "a fair coin"),
        (lambda p, c: sum(q.max().log() for q in p), "0.75, then 0.2"),
    ],
)
def test_slips_of_the_log_probability_are_named(wrong, said, capsys):
    assert not check.path_log_prob(wrong)
    assert said in capsys.readouterr().out.split("✗")[1]


@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda log_p, r, b: (log_p * (r - b)).mean(), "p = 1/2"),
        (lambda log_p, r, b: -(log_p * (r - b).detach()).sum(), "a mean"),
        (lambda log_p, r, b: -(log_p * r.detach()).mean(), "a mean"),
        (lambda log_p, r, b: -(log_p * (r - b)).mean(), "through the rewards"),
        (lambda log_p, r, b: -(log_p.detach() * (r - b).detach() + 0 * log_p).mean(), "its gradient"),
    ],
)
def test_slips_of_the_reinforce_loss_are_named(wrong, said, capsys):
    assert not check.reinforce_loss(wrong)
    assert said in capsys.readouterr().out.split("✗")[1]


@pytest.mark.parametrize(
    "slip, said",
    [("late", "moves b before"), ("zero", "begins at the mean"), ("alone", "a pair (advantages, baseline)")],
)
def test_slips_of_the_baseline_are_named(slip, said, capsys):
    assert not check.moving_advantages(lambda *a: gains(*a, slip=slip))
    assert said in capsys.readouterr().out.split("✗")[1]


@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda z, r: z.softmax(0) * r, "two equal options"),
        (lambda z, r: -bandit(z, r), "two equal options"),
        (lambda z, r: z.softmax(0) * (r - r.mean()), "four options"),
    ],
)
def test_slips_of_the_bandit_are_named(wrong, said, capsys):
    assert not check.bandit_gradient(wrong)
    assert said in capsys.readouterr().out.split("✗")[1]


@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda p, r, s: p @ r, "weighs four times"),
        (lambda p, r, s: best(p, r, s.square().sum(1, keepdim=True).sqrt().sqrt()), "weighs four times"),
        (lambda p, r, s: best(torch.ones_like(p), r, s), "probability weighs too"),
    ],
)
def test_slips_of_the_best_baseline_are_named(wrong, said, capsys):
    assert not check.best_baseline(wrong)
    assert said in capsys.readouterr().out.split("✗")[1]


def test_unsolved_is_told_and_raises_nothing(capsys):
    for one in (check.path_log_prob, check.moving_advantages, check.bandit_gradient, check.best_baseline):
        assert not one(lambda *a: ...)
    assert capsys.readouterr().out.count("not solved yet") == 4
