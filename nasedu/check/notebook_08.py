"""Checks of notebook 08: the probability of a path, the baseline, REINFORCE where it has a closed form."""

import math
from collections.abc import Callable

import torch

from nasedu.check.contract import Cases, exercise
from nasedu.search.reinforce import advantages


@exercise("the probability of a path", hint="the logarithm of each chosen option's probability; add them")
def path_log_prob(answer: Callable) -> Cases:
    """Check exercise 08.1: `answer(probabilities, choices)` is the log-probability of a sequence."""
    coin, three = torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.7, 0.1])
    yield "a fair coin", float(answer([coin], [1])), math.log(0.5)
    told = float(answer([torch.tensor([0.25, 0.75]), three], [1, 0]))
    yield "0.75, then 0.2", told, math.log(0.75 * 0.2)
    yield "2,000 coins", float(answer([coin] * 2000, [0] * 2000)), 2000 * math.log(0.5)


@exercise("the REINFORCE loss", hint="minus the mean of log p x (R - b); only log p carries a gradient")
def reinforce_loss(answer: Callable) -> Cases:
    """Check exercise 08.2: `answer(log_prob, rewards, b)`; its gradient estimates -d E[R]."""
    yield (
        "one sample, p = 1/2, R - b = 1",
        float(answer(torch.tensor([math.log(0.5)]), torch.ones(1), 0.0)),
        math.log(2),
    )
    log_p, rewards = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([0.9, 0.4, 0.2])
    yield "three samples: a mean", float(answer(log_p, rewards, 0.5)), (0.4 - 0.2 - 0.15) / 3
    logits = torch.tensor([0.3, -1.2, 0.8], requires_grad=True)
    all_three = logits.log_softmax(0)
    scale = torch.ones(3, requires_grad=True)  # a reward that hangs on something: it is a number here
    loss = answer(all_three, rewards * scale, 0.5)
    slopes = torch.autograd.grad(loss, [logits, scale], allow_unused=True)
    p = logits.detach().softmax(0)
    gain = rewards - 0.5
    yield "its gradient by the logits", slopes[0], (p * gain.sum() - gain) / 3
    through = slopes[1] is not None and bool(slopes[1].abs().max() > 0)
    yield "no gradient goes through the rewards", not through, True


@exercise("the moving baseline", hint="in turn: first b - (1 - decay) (b - R), then R - b")
def moving_advantages(answer: Callable) -> Cases:
    """Check exercise 08.3: `answer(rewards, baseline, decay)` is (list of R - b, the last b)."""
    answered = answer([1.0], 0.5, 0.9)
    pair = isinstance(answered, tuple | list) and len(answered) == 2
    yield "it returns a pair (advantages, baseline)", pair, True
    yield "a reward moves b before it is compared", [float(gain) for gain in answered[0]], [0.45]
    rewards = [0.5, 0.7, 0.2, 0.6]
    for what, start in (("four rewards in turn", 0.4), ("without a baseline it begins at the mean", None)):
        gains, last = answer(rewards, start, 0.8)
        expected, b = advantages(torch.tensor(rewards, dtype=torch.float64), start, 0.8)
        yield what, [*map(float, gains), float(last)], [*expected.tolist(), b]
    yield "decay 0: b is the latest reward", float(answer(rewards, 0.4, 0.0)[1]), 0.6


@exercise("the bandit", hint="each option: its probability times (its reward less the mean reward)")
def bandit_gradient(answer: Callable) -> Cases:
    """Check exercise 08.4: `answer(logits, rewards)` is the gradient of sum softmax(logits) x rewards."""
    equal = answer(torch.zeros(2), torch.tensor([1.0, 0.0]))
    yield "two equal options, one rewarded", equal, torch.tensor([0.25, -0.25])
    yield "equal rewards teach nothing", answer(torch.tensor([1.0, 2.0, 3.0]), torch.ones(3)), torch.zeros(3)
    logits, rewards = torch.tensor([0.3, -1.2, 0.8, 2.0]), torch.tensor([0.9, 0.1, 0.5, 0.4])
    variable = logits.clone().requires_grad_()
    (exact,) = torch.autograd.grad(variable.softmax(0) @ rewards, variable)
    yield "four options, against autograd", answer(logits, rewards), exact
    yield "a reward of 4 more for each changes nothing", answer(logits, rewards + 4), exact


@exercise("the best baseline", hint="the mean reward, weighted by p times squared score")
def best_baseline(answer: Callable) -> Cases:
    """Check exercise 08.5: `answer(p, rewards, scores)` is the b of the least variance."""
    half, rewards = torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.8])
    alike = torch.tensor([[3.0, 4.0], [-5.0, 0.0]])
    yield "scores of one length: the mean reward", float(answer(half, rewards, alike)), 0.5
    twice = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    yield "a score twice as long weighs four times", float(answer(half, rewards, twice)), 0.68
    yield "the probability weighs too", float(answer(torch.tensor([0.8, 0.2]), rewards, twice)), 0.5
    p, scores = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
    told = float(answer(p, torch.tensor([9.0, 0.2, 0.4]), scores))
    yield "a sequence without a score does not count", told, 0.3
