"""Checks of notebook 09: a child's step, the best of n drawn without replacement, the skip penalty."""

import copy
from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import mean

import torch
from torch import Tensor
from torch.nn import functional as F

from nasedu.check.contract import Cases, exercise
from nasedu.space.cells import CNN
from nasedu.space.choice import random_arch


@exercise(
    "a child's step", hint="zero_grad() before backward(); gradients go to None, not to 0", tolerance=1e-4
)
def child_step(answer: Callable) -> Cases:
    """Check exercise 09.1: `answer(model, sgd, arch, x, y)` steps the weights the child uses, no others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CNN(8, 3, 2, 4, 3, n_nodes=2)
        x, y = torch.randn(6, 3, 8, 8), torch.arange(6) % 4
    first, second = (random_arch(model, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    answer(model, sgd, first, x, y)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    twin = copy.deepcopy(model)
    # The momentum of the first child stays with the weights that both use.
    momentum = {
        name: sgd.state[weight]["momentum_buffer"].clone()
        for name, weight in model.named_parameters()
        if sgd.state.get(weight, {}).get("momentum_buffer") is not None
    }
    loss = F.cross_entropy(twin(x, second), y)
    weights = dict(twin.named_parameters())
    gradient = dict(
        zip(weights, torch.autograd.grad(loss, list(weights.values()), allow_unused=True), strict=True)
    )
    returned = answer(model, sgd, second, x, y)
    yield "it returns the loss", float(returned), loss.item()
    after = {name: weight.detach() for name, weight in model.named_parameters()}
    used = {name: g + 0.1 * before[name] for name, g in gradient.items() if g is not None}
    unused = [name for name in before if name not in used]
    moved = [name for name in unused if not torch.equal(after[name], before[name])]
    yield "weights that the child does not use, and that moved", moved, []
    stepped = {name: before[name] - 0.1 * (0.9 * momentum.get(name, 0.0) + g) for name, g in used.items()}
    yield "the weights that the child uses", {name: after[name] for name in used}, stepped


@exercise("the best of n", hint="the i-th smallest wins in comb(i - 1, n - 1) of comb(N, n) draws")
def best_of_n(answer: Callable[[Sequence[float], int], float]) -> Cases:
    """Check exercise 09.2: the mean of the largest of n scores, drawn without replacement."""
    scores = [0.31, 0.52, 0.44, 0.52, 0.27]
    yield "one is the mean", float(answer(scores, 1)), mean(scores)
    yield "all of them have the maximum", float(answer(scores, 5)), max(scores)
    for n in (2, 3, 4):
        listed = [max(drawn) for drawn in combinations(scores, n)]
        yield f"{n} of 5, against all {len(listed)} listed", float(answer(scores, n)), mean(listed)
    yield "the scores stay in their order", scores, [0.31, 0.52, 0.44, 0.52, 0.27]


@exercise(
    "the skip penalty", hint="p (ln p - ln t) + (1 - p) (ln(1 - p) - ln(1 - t)), logarithms by logsigmoid"
)
def skip_penalty(answer: Callable[[Tensor, float], Tensor | float]) -> Cases:
    """Check exercise 09.3: `answer(q, target)` is the sum of KL(sigmoid(q) || target)."""
    even, q = torch.zeros(3), torch.tensor([0.2, 0.4, 0.9]).logit()
    yield "at the target it is 0", float(answer(q[1:2], 0.4)), 0.0
    yield "three even coins against 0.4", float(answer(even, 0.4)), 0.0612331
    yield "probabilities 0.2, 0.4, 0.9 against 0.4", float(answer(q, 0.4)), 0.6421775
    yield "logits of 200 and -200", float(answer(torch.tensor([200.0, -200.0]), 0.4)), 1.4271164
