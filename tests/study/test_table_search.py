"""Searching a table: every method against something exact, on tables made up here."""

import math
import random
from collections import Counter
from itertools import product

import pytest
import torch

from nasedu.search.reinforce import advantages, policy_loss
from nasedu.space import small
from nasedu.study.table_search import (
    Seen,
    curves,
    digits_of,
    grad_log_p,
    incumbents,
    mutate,
    number_of,
    random_search,
    regret,
    regularised_evolution,
    reinforce,
    softmax,
)
from nasedu.study.truth import SMALL, Row, Table

METHODS = [random_search, regularised_evolution, reinforce]
N = 125


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def additive(noise: float = 0.0, seeds: int = 3) -> tuple[list[list[float]], list[float]]:
    """(valid (125, seeds), test (125,)): accuracies that are sums over edges, validation with noise."""
    parts = torch.rand(3, 5, generator=seeded(0)).double() * 0.3
    test = torch.tensor([sum(parts[edge, op] for edge, op in enumerate(digits_of(i))) for i in range(N)])
    valid = test[:, None] + noise * torch.randn(N, seeds, generator=seeded(1)).double()
    return valid.tolist(), test.tolist()


def table(valid: list[list[float]], test: list[float]) -> Table:
    rows = [
        Row(names, seed, valid[i][seed], test[i] + 0.01 * (seed - 1), 1.0, 1, (), ())
        for i, names in enumerate(small.architectures())
        for seed in range(3)
    ]
    return Table(SMALL, tuple(rows))


def standard_errors(samples: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """How many standard errors the mean over the first dimension is away from what is expected."""
    error = samples.std(0) / math.sqrt(len(samples))
    return (samples.mean(0) - expected).abs() / error.clamp(min=1e-12)


# ---- numbers, histories, regret


def test_an_architecture_has_the_number_it_has_in_the_space():
    for number, names in enumerate(small.architectures()):
        assert tuple(small.OPS[op] for op in digits_of(number)) == names
        assert number_of(digits_of(number)) == number


def test_regret_follows_the_best_seen_whatever_it_is_worth():
    history = [Seen(3, 0.5), Seen(0, 0.6), Seen(2, 0.6), Seen(1, 0.4), Seen(3, 0.7)]
    assert incumbents(history) == [3, 0, 0, 0, 3]
    assert regret(history, [0.5, 0.9, 0.8, 0.75]) == pytest.approx([0.15, 0.4, 0.4, 0.4, 0.15])


@pytest.mark.parametrize("method", METHODS)
def test_a_history_is_one_line_for_each_evaluation_and_the_seed_decides_it(method):
    valid, _ = additive(0.05)
    history = method(valid, 200, 3)
    assert len(history) == 200 and method(valid, 200, 3) == history != method(valid, 200, 4)
    assert method(valid, 50, 3) == history[:50], "the budget changes nothing but the length"
    assert all(seen.accuracy in valid[seen.number] for seen in history)


@pytest.mark.parametrize("method", METHODS)
def test_an_evaluation_shows_one_of_the_trainings_drawn_anew(method):
    """The seed that is shown is uniform, and independent from one evaluation to the next."""
    valid = [[float(seed) for seed in range(3)] for _ in range(N)]
    shown = [int(seen.accuracy) for seen in method(valid, 9000, 0)]
    pairs = Counter(zip(shown[::2], shown[1::2], strict=True))
    chi2 = sum((pairs[pair] - 500) ** 2 / 500 for pair in product(range(3), repeat=2))
    assert chi2 < 26.1  # of 8 degrees of freedom, p = 0.001


def test_curves_are_the_regret_of_each_seed_by_the_tables_means():
    valid, test = additive(0.05)
    regrets = curves(reinforce, table(valid, test), evaluations=20, seeds=4, rate=2.0)
    assert regrets.shape == (4, 20) and regrets.dtype == torch.float64
    for seed in range(4):
        assert regrets[seed].tolist() == pytest.approx(
            regret(reinforce(valid, 20, seed, rate=2.0), test), abs=1e-9
        )


# ---- random search


def test_random_search_sees_every_architecture_once_before_one_comes_again():
    history = random_search(additive()[0], 300, 0)
    first, second = [s.number for s in history[:N]], [s.number for s in history[N : 2 * N]]
    assert sorted(first) == sorted(second) == list(range(N)) and first != second


def test_the_regret_of_random_search_without_noise_is_that_of_the_best_of_k():
    """The best of k of 125 is the j-th best of all with probability C(125 - j, k - 1) / C(125, k)."""
    valid, test = additive(0.0)
    best_first = sorted(test, reverse=True)
    expected = torch.tensor(
        [
            sum(
                math.comb(N - j, k - 1) / math.comb(N, k) * (best_first[0] - best_first[j - 1])
                for j in range(1, N + 1)
            )
            for k in range(1, N + 1)
        ]
    )
    runs = torch.tensor([regret(random_search(valid, N, seed), test) for seed in range(1000)])
    assert not runs[:, -1].any() and expected[-1] == 0
    assert standard_errors(runs[:, :100], expected[:100]).max() < 4
    assert (runs.diff(dim=1) <= 0).all(), "without noise it never rises"


# ---- evolution


def test_a_mutation_changes_one_edge_each_as_often_into_each_other_operation():
    rng, start = random.Random(0), number_of((2, 0, 4))
    children = Counter(mutate(start, rng) for _ in range(12_000))
    for child in children:
        assert sum(a != b for a, b in zip(digits_of(child), (2, 0, 4), strict=True)) == 1
    assert len(children) == 12
    assert sum((count - 1000) ** 2 / 1000 for count in children.values()) < 31.3  # 11 degrees, p = 0.001


def test_a_parent_is_the_best_of_the_last_ten_the_oldest_is_gone_however_good():
    valid, _ = additive(0.0)
    # So large a tournament finds the best of the living, up to (9/10)^400, and the best dies again and again.
    history = regularised_evolution(valid, 200, 0, population=10, tournament=400)
    moved_on = 0
    for t in range(10, 200):
        living = history[t - 10 : t]
        parent = max(living, key=lambda seen: seen.accuracy)
        assert (
            sum(a != b for a, b in zip(digits_of(parent.number), digits_of(history[t].number), strict=True))
            == 1
        )
        moved_on += max(seen.accuracy for seen in history[:t]) > parent.accuracy
    assert moved_on > 20, "the best of all has died in between, else the test says nothing about age"


def test_a_tournament_of_one_is_a_draw_from_the_living():
    """No selection: each of the last 4 is the parent of a quarter of the children."""
    valid = [[float(i)] for i in range(N)]
    places: Counter[int] = Counter()
    for seed in range(30):
        history = regularised_evolution(valid, 104, seed, population=4, tournament=1)
        for t in range(4, 104):
            near = [
                place
                for place in range(4)
                if sum(
                    a != b
                    for a, b in zip(
                        digits_of(history[t - 4 + place].number), digits_of(history[t].number), strict=True
                    )
                )
                == 1
            ]
            assert near
            if len(near) == 1:
                places[near[0]] += 1
    total = sum(places.values())
    assert all(abs(places[place] / total - 0.25) < 0.08 for place in range(4)), places


# ---- REINFORCE


def test_the_slope_of_log_p_is_autograds():
    logits = torch.randn(3, 5, generator=seeded(2)).double().requires_grad_()
    policy = [softmax(row) for row in logits.tolist()]
    assert torch.tensor(policy).double().allclose(logits.softmax(1).detach())
    log_p = sum(logits.log_softmax(1)[edge, op] for edge, op in enumerate((4, 0, 2)))
    (slope,) = torch.autograd.grad(-policy_loss(log_p[None], torch.tensor([1.0])), logits)
    torch.testing.assert_close(torch.tensor(grad_log_p(policy, (4, 0, 2))).double(), slope)
    assert softmax([1000.0, 0.0]) == [1.0, 0.0]


def test_the_step_is_the_exact_gradient_of_the_expected_reward_in_the_mean():
    """By enumeration of all 125 with any baseline, and in the mean of 20,000 samples."""
    _, test = additive()
    logits = torch.randn(3, 5, generator=seeded(2)).double().requires_grad_()
    digits = torch.tensor([digits_of(i) for i in range(N)])
    log_p = logits.log_softmax(1)[torch.arange(3), digits].sum(1)
    assert log_p.exp().sum().item() == pytest.approx(1.0)
    (exact,) = torch.autograd.grad((log_p.exp() * torch.tensor(test)).sum(), logits)

    policy = [softmax(row) for row in logits.tolist()]
    slopes = torch.tensor([grad_log_p(policy, digits_of(i)) for i in range(N)]).double()
    p, rewards = log_p.exp().detach(), torch.tensor(test)
    for baseline in (0.0, 0.4):
        by_hand = (p * (rewards - baseline))[:, None, None] * slopes
        torch.testing.assert_close(by_hand.sum(0), exact)
    drawn = torch.multinomial(p, 20_000, replacement=True, generator=seeded(0))
    sampled = (rewards[drawn] - 0.4)[:, None, None] * slopes[drawn]
    assert standard_errors(sampled, exact).max() < 4


def test_a_run_takes_the_steps_that_it_says():
    """The same run in tensors and autograd: `advantages` and `policy_loss` of nasedu.reinforce."""
    valid, _ = additive(0.05)
    history = reinforce(valid, 60, 5, rate=3.0, decay=0.8)
    rng = random.Random(5)
    logits, baseline = torch.zeros(3, 5, dtype=torch.float64, requires_grad=True), None
    for seen in history:
        policy = logits.softmax(1).tolist()
        digits = tuple(rng.choices(range(5), row)[0] for row in policy)
        rng.choice(valid[0])  # the training that is shown
        assert number_of(digits) == seen.number
        gain, baseline = advantages(torch.tensor([seen.accuracy], dtype=torch.float64), baseline, 0.8)
        log_p = logits.log_softmax(1)[torch.arange(3), torch.tensor(digits)].sum()
        (slope,) = torch.autograd.grad(policy_loss(log_p[None], gain), logits)
        logits = (logits - 3.0 * slope).detach().requires_grad_()
    assert logits.softmax(1).max().item() > 0.5, "it has learnt something"


def test_evolution_and_reinforce_beat_the_draws_on_a_space_with_structure():
    """On a sum over edges, where a good edge is good everywhere; on a real table they need not."""
    valid, test = additive(0.0)
    means = {m: sum(regret(m(valid, 40, seed), test)[-1] for seed in range(300)) / 300 for m in METHODS}
    assert means[regularised_evolution] < means[random_search] and means[reinforce] < means[random_search], (
        means
    )
