"""Checks of notebook 02: hypergradients, each against the exact one of `nasedu.hypergrad`."""

from collections.abc import Callable

import torch
from torch import Tensor

from nasedu.check.contract import Cases, exercise
from nasedu.search import hypergrad

Loss = Callable[[Tensor, Tensor], Tensor]


def _double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _toy_train(w: Tensor, a: Tensor) -> Tensor:
    return (w - a) ** 2


def _toy_val(w: Tensor, a: Tensor) -> Tensor:
    return a * w - 2 * a + 1


def _smooth_losses() -> tuple[Loss, Loss, Tensor, Tensor, Tensor]:
    """A problem none of whose derivatives is constant: two losses, w (6,), a (3,), momentum buffer (6,)."""
    g = torch.Generator().manual_seed(0)
    mix, target, w, a, b = (
        torch.randn(shape, generator=g, dtype=torch.float64) for shape in ((6, 3), 6, 6, 3, 6)
    )

    def train(w: Tensor, a: Tensor) -> Tensor:
        return (torch.sin(w) * (mix @ torch.tanh(a))).sum() + (w**4).sum() / 4 + (w**2).sum()

    def val(w: Tensor, a: Tensor) -> Tensor:
        return ((w - target * torch.cos(mix @ a)) ** 2).sum() + (a**2 * w[:3]).sum()

    return train, val, w, a, b


def _in_dicts(loss: Loss) -> hypergrad.Loss:
    return lambda w, alpha: loss(w["w"], alpha["a"])


def _exact(train: Loss, val: Loss, w: Tensor, a: Tensor, xi: float, *rest: float, b: Tensor) -> Tensor:
    momentum, weight_decay = rest or (0.0, 0.0)
    losses = _in_dicts(train), _in_dicts(val)
    return hypergrad.exact(*losses, {"w": w}, {"a": a}, xi, momentum, {"w": b}, weight_decay)["a"]


@exercise(
    "one step ahead",
    tolerance=1e-7,
    hint="w' = w - xi * grad(train_loss(w, a), w, create_graph=True)[0]; "
    "then the gradient of val_loss(w', a)",
)
def one_step_ahead(answer: Callable) -> Cases:
    """Check exercise 02.1: `answer(train_loss, val_loss, w, a, xi)` is the slope of L_val(w'(a), a) in a."""
    toy, w, a, none = (_toy_train, _toy_val), _double(1.5), _double(0.5), _double(0.0)
    first = hypergrad.first_order(_in_dicts(_toy_val), {"w": w}, {"a": a})["a"]
    yield "xi = 0 is first order", answer(*toy, w, a, 0.0), first
    yield "the toy, by both roads", answer(*toy, w, a, 0.25), _exact(*toy, w, a, 0.25, b=none)
    train, val, w, a, b = _smooth_losses()
    expected = _exact(train, val, w, a, 0.1, b=torch.zeros_like(b))
    yield "on six weights and three alphas", answer(train, val, w, a, 0.1), expected


@exercise(
    "a toy of your own",
    hint="w*(a) = 3a, and w' = w - 2 xi (w - 3a), which changes by 6 xi for each unit of a",
)
def toy_hypergradients(answer: Callable) -> Cases:
    """Check exercise 02.2: `answer(a, w, xi)` is first order, unrolled, and the slope of L_val(w*(a), a)."""

    def train(w: Tensor, a: Tensor) -> Tensor:
        return (w - 3 * a) ** 2

    def val(w: Tensor, a: Tensor) -> Tensor:
        return (w - 2) ** 2 + a**2

    for a, w, xi in ((0.5, 1.0, 0.25), (-1.0, 2.0, 0.1)):
        at = f"at a = {a:g}, w = {w:g}, xi = {xi:g}"
        first, unrolled, slope = answer(a, w, xi)
        W, A, b = _double(w), _double(a), _double(0.0)
        expected = hypergrad.first_order(_in_dicts(val), {"w": W}, {"a": A})["a"]
        yield f"first order {at}", first, expected.item()
        yield f"unrolled {at}", unrolled, _exact(train, val, W, A, xi, b=b).item()
        trained = {"w": 3 * A}
        expected = hypergrad.implicit(_in_dicts(train), _in_dicts(val), trained, {"a": A})["a"]
        yield f"slope of L_val(w*(a), a) {at}", slope, expected.item()


@exercise(
    "the second-order step", tolerance=1e-6, hint="v and the direct term belong to w'; H is taken around w"
)
def second_order(answer: Callable) -> Cases:
    """Check exercise 02.4: the arguments of `my_second_order` in, DARTS's eq. 6-8 out."""
    toy, w, a, none = (_toy_train, _toy_val), _double(1.5), _double(0.5), _double(0.0)
    first = hypergrad.first_order(_in_dicts(_toy_val), {"w": w}, {"a": a})["a"]
    yield "xi = 0 is first order", answer(*toy, w, a, 0.0, 0.0, none, 0.0), first

    def apart(w: Tensor, a: Tensor) -> Tensor:
        return w**2 + a**2

    # H is zero here, so only the direct road can be wrong.
    what = "the direct road is seen from w', not from w"
    yield (
        what,
        answer(apart, _toy_val, w, a, 0.25, 0.0, none, 0.0),
        _exact(apart, _toy_val, w, a, 0.25, b=none),
    )
    what = "the toy, by both roads (is H there, and is it divided by 2 eps?)"
    yield what, answer(*toy, w, a, 0.25, 0.0, none, 0.0), _exact(*toy, w, a, 0.25, b=none)

    def straight(w: Tensor, a: Tensor) -> Tensor:
        return a * w

    def bent(w: Tensor, a: Tensor) -> Tensor:
        return w**3 + a**2

    # Here the direct road does not depend on w, so only H can tell where v was taken.
    what = "v is the slope of L_val at w', not at w"
    yield what, answer(straight, bent, w, a, 0.25, 0.0, none, 0.0), _exact(straight, bent, w, a, 0.25, b=none)

    def curved(w: Tensor, a: Tensor) -> Tensor:
        return a * w**3 + w**2

    what = "the difference is taken around w, not around w'"
    yield (
        what,
        answer(curved, _toy_val, w, a, 0.1, 0.0, none, 0.0),
        _exact(curved, _toy_val, w, a, 0.1, b=none),
    )
    train, val, w, a, b = _smooth_losses()
    for what, momentum, decay in (("momentum", 0.9, 0.0), ("weight decay", 0.0, 0.3), ("both", 0.9, 0.3)):
        got = answer(train, val, w, a, 0.1, momentum, b, decay)
        yield (
            f"with {what}, on six weights and three alphas",
            got,
            _exact(train, val, w, a, 0.1, momentum, decay, b=b),
        )


@exercise(
    "where the search rests",
    hint="at rest b = 0 and w' = w, so w - 2 + 2 xi a = 0; w is 2a / (2 + weight decay)",
)
def resting_point(answer: Callable) -> Cases:
    """Check exercise 02.5: `answer(xi, momentum, weight_decay)` is the a where the toy search rests."""
    for xi, momentum, decay in (
        (0.0, 0.0, 0.0),
        (0.25, 0.0, 0.0),
        (0.25, 0.9, 0.0),
        (0.25, 0.0, 1.0),
        (0.1, 0.9, 0.5),
    ):
        what = f"xi = {xi:g}, momentum {momentum:g}, weight decay {decay:g}"
        yield what, answer(xi, momentum, decay), 2 / (2 / (2 + decay) + 2 * xi)


@exercise(
    "look further ahead",
    tolerance=1e-7,
    hint="each step starts from the weights of the last, and nothing is detached",
)
def look_ahead(answer: Callable) -> Cases:
    """Check exercise 02.3: `answer(train_loss, val_loss, w, a, xi, steps)` looks all the steps ahead."""
    train, val, w, a, b = _smooth_losses()
    yield (
        "one step is `exact`",
        answer(train, val, w, a, 0.1, 1),
        _exact(train, val, w, a, 0.1, b=torch.zeros_like(b)),
    )
    w, a, xi = _double(1.5), _double(0.5), 0.1
    for steps in (2, 5):
        kept = (1 - 2 * xi) ** steps
        ahead = a + kept * (w - a)
        expected = (ahead - 2 + (1 - kept) * a).item()
        yield f"{steps} steps on the toy", answer(_toy_train, _toy_val, w, a, xi, steps), expected
    trained, steps = {"w": a}, 12
    toy = _in_dicts(_toy_train), _in_dicts(_toy_val)
    neumann = hypergrad.implicit(*toy, trained, {"a": a}, method="neumann", steps=steps, lr=xi)["a"]
    got = answer(_toy_train, _toy_val, a, a, xi, steps)
    yield f"{steps} steps at trained weights are {steps} terms of the Neumann series", got, neumann
    truth = hypergrad.implicit(*toy, trained, {"a": a})["a"]
    yield "200 steps are the truth", answer(_toy_train, _toy_val, a, a, xi, 200), truth
