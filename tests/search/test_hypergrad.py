"""Hypergradients against torch.func, differences, closed forms and each other; mutants must be told apart."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from nasedu import LayerChoice
from nasedu.search.hypergrad import AsFunction, exact, first_order, implicit, sgd_step, unrolled

XI, MOMENTUM, WEIGHT_DECAY = 0.15, 0.9, 3e-3


def distance(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """||got - wanted|| / ||wanted|| over all entries."""
    assert list(got) == list(wanted)
    difference = sum(((got[name] - wanted[name]) ** 2).sum() for name in wanted)
    return (difference / sum((t**2).sum() for t in wanted.values())).sqrt().item()


# A smooth network after 40 steps of SGD: a finite difference across the kink of a ReLU is wrong.


def silu_conv(channels: int) -> nn.Module:
    return nn.Sequential(nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False))


class Smooth(nn.Module):
    """Stem, two mixed edges of three operations, pooling, classifier; 3 classes, no batch norm, no kinks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.edges = nn.ModuleList(
            LayerChoice(
                {"pool": nn.AvgPool2d(3, 1, 1), "skip": nn.Identity(), "conv": silu_conv(4)}, "cell", row
            )
            for row in range(2)
        )
        self.classifier = nn.Linear(4, 3)

    def forward(self, x, arch):
        x = self.stem(x)
        for edge in self.edges:
            x = edge(x, arch)
        return self.classifier(nn.functional.silu(x).mean(dim=(2, 3)))


def loss_on(model: nn.Module, x: Tensor, y: Tensor) -> Callable:
    def loss(w, alpha):
        arch = {"cell": alpha["cell"].softmax(dim=-1)}
        logits = functional_call(model, w, (x, arch)) * alpha["scale"]
        return nn.functional.cross_entropy(logits, y)

    return loss


@pytest.fixture(scope="module")
def trained():
    """train_loss, val_loss, w, alpha and the optimizer's momentum buffers after 40 steps."""
    torch.manual_seed(0)
    model = Smooth().double()
    x, y = torch.randn(48, 2, 6, 6, dtype=torch.float64), torch.arange(48) % 3
    x += y[:, None, None, None] * torch.linspace(-1, 1, 6, dtype=torch.float64)  # something to learn
    train_loss, val_loss = loss_on(model, x[:24], y[:24]), loss_on(model, x[24:], y[24:])
    alpha = {"cell": torch.randn(2, 3, dtype=torch.float64), "scale": torch.tensor(1.5, dtype=torch.float64)}
    optimizer = torch.optim.SGD(model.parameters(), XI, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    first = None
    for _ in range(40):
        optimizer.zero_grad()
        loss = train_loss(dict(model.named_parameters()), alpha)
        first = loss.item() if first is None else first
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.8 * first, "the network must have learned"
    w = {name: p.detach().clone() for name, p in model.named_parameters()}
    buffers = {name: optimizer.state[p]["momentum_buffer"].clone() for name, p in model.named_parameters()}
    return train_loss, val_loss, w, alpha, buffers


def literal(trained) -> Callable[[dict[str, Tensor]], Tensor]:
    """alpha -> L_val(w - xi (mu b + grad_w L_train(w, alpha) + lambda w), alpha), as eq. 6 says it."""
    train_loss, val_loss, w, _, b = trained

    def value(alpha):
        g = grad(train_loss)(w, alpha)
        return val_loss({n: w[n] - XI * (MOMENTUM * b[n] + g[n] + WEIGHT_DECAY * w[n]) for n in w}, alpha)

    return value


def options(trained) -> dict:
    return {"lr": XI, "momentum": MOMENTUM, "buffers": trained[4], "weight_decay": WEIGHT_DECAY}


def test_exact_is_the_derivative_of_the_literal_definition(trained):
    assert distance(exact(*trained[:4], **options(trained)), grad(literal(trained))(trained[3])) < 1e-10


def test_exact_is_the_central_difference_of_the_literal_definition(trained):
    value, alpha, step = literal(trained), trained[3], 1e-5
    differences = {name: torch.zeros_like(t) for name, t in alpha.items()}
    for name, t in alpha.items():
        for i in range(t.numel()):
            moved = []
            for sign in (1, -1):
                nudged = {n: v.clone() for n, v in alpha.items()}
                nudged[name].view(-1)[i] += sign * step
                moved.append(value(nudged))
            differences[name].view(-1)[i] = (moved[0] - moved[1]) / (2 * step)
    assert distance(exact(*trained[:4], **options(trained)), differences) < 1e-7


def test_unrolled_is_exact_up_to_the_finite_difference(trained):
    wanted = exact(*trained[:4], **options(trained))
    errors = {
        r: distance(unrolled(*trained[:4], **options(trained), r=r), wanted) for r in (1e-1, 1e-2, 1e-4)
    }
    assert errors[1e-4] < 1e-6
    assert errors[1e-2] < 1e-4
    assert errors[1e-1] / errors[1e-2] == pytest.approx(100, rel=0.3), "the error is of order r^2"


@pytest.mark.parametrize("way", [exact, unrolled])
def test_without_momentum_and_weight_decay_it_is_the_plain_step(trained, way):
    train_loss, val_loss, w, alpha, _ = trained

    def value(alpha):
        g = grad(train_loss)(w, alpha)
        return val_loss({name: w[name] - XI * g[name] for name in w}, alpha)

    assert distance(way(train_loss, val_loss, w, alpha, XI, r=1e-4), grad(value)(alpha)) < 1e-6


def test_first_order_is_xi_zero(trained):
    train_loss, val_loss, w, alpha, _ = trained
    wanted = grad(val_loss, argnums=1)(w, alpha)
    assert distance(first_order(val_loss, w, alpha), wanted) < 1e-12
    for way in (exact, unrolled):
        assert (
            distance(way(train_loss, val_loss, w, alpha, 0.0, MOMENTUM, trained[4], WEIGHT_DECAY), wanted)
            < 1e-12
        )


# Mutants: eq. 6-8 once more, with what other codes got wrong. The tolerance above must tell them apart.


def by_hand(trained, mutant: str = "", r: float = 1e-4) -> dict[str, Tensor]:
    train_loss, val_loss, w, alpha, b = trained
    g = grad(train_loss)(w, alpha)
    stepped = {n: w[n] - XI * (MOMENTUM * b[n] + g[n] + WEIGHT_DECAY * w[n]) for n in w}
    if mutant == "skip the virtual step":
        stepped = w
    v, answer = grad(val_loss, argnums=(0, 1))(stepped, alpha)
    eps = r / torch.sqrt(sum((t**2).sum() for t in v.values()))
    center = stepped if mutant == "perturb w'" else w
    plus, minus = (
        grad(train_loss, argnums=1)({n: center[n] + sign * eps * v[n] for n in w}, alpha) for sign in (1, -1)
    )
    H = {n: (plus[n] - minus[n]) / (2 * eps) for n in alpha}
    factor = {"drop H": 0.0, "scale H by eps^2": eps**2}.get(mutant, 1.0)
    return {n: answer[n] - XI * factor * H[n] for n in alpha}


def test_unrolled_is_eq_6_to_8_written_out(trained):
    assert distance(unrolled(*trained[:4], **options(trained), r=1e-4), by_hand(trained)) < 1e-9


@pytest.mark.parametrize("mutant", ["drop H", "scale H by eps^2", "skip the virtual step", "perturb w'"])
def test_a_tolerance_of_1e_4_tells_the_mutants_apart(trained, mutant):
    error = distance(by_hand(trained, mutant), exact(*trained[:4], **options(trained)))
    assert error > 1e-3


@pytest.mark.parametrize(
    "change", [{"momentum": 0.0}, {"buffers": None}, {"weight_decay": 0.0}, {"lr": 0.09}]
)
def test_every_part_of_the_virtual_step_counts(trained, change):
    wanted = exact(*trained[:4], **options(trained))
    for way in (exact, unrolled):
        assert distance(way(*trained[:4], **{**options(trained), **change, "r": 1e-4}), wanted) > 1e-4


def test_the_virtual_step_is_that_of_torch_optim_sgd(trained):
    train_loss, _, w, alpha, buffers = trained
    leaves = [nn.Parameter(t.clone()) for t in w.values()]
    optimizer = torch.optim.SGD(leaves, XI, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    gradient = grad(train_loss)(w, alpha)
    for leaf, name in zip(leaves, w, strict=True):
        leaf.grad = gradient[name].clone()
    optimizer.step()  # the first step has no buffer yet
    stepped = sgd_step(w, gradient, XI, MOMENTUM, None, WEIGHT_DECAY)
    assert all(
        torch.allclose(a, b, rtol=1e-14, atol=0) for a, b in zip(leaves, stepped.values(), strict=True)
    )
    for leaf, name in zip(leaves, w, strict=True):
        optimizer.state[leaf]["momentum_buffer"].copy_(buffers[name])
        leaf.data.copy_(w[name])
    optimizer.step()
    stepped = sgd_step(w, gradient, XI, MOMENTUM, buffers, WEIGHT_DECAY)
    assert all(
        torch.allclose(a, b, rtol=1e-14, atol=0) for a, b in zip(leaves, stepped.values(), strict=True)
    )


@pytest.mark.parametrize("way", [first_order, unrolled, exact, implicit])
def test_nothing_that_is_given_is_changed(trained, way):
    train_loss, val_loss, *tensors = trained
    w, alpha, buffers = ({n: t.clone() for n, t in given.items()} for given in tensors)
    for t in (*w.values(), *alpha.values()):
        t.requires_grad_()
    if way is first_order:
        answer = way(val_loss, w, alpha)
    elif way is implicit:
        answer = way(train_loss, val_loss, w, alpha, "neumann", steps=2, lr=1e-3)
    else:
        answer = way(train_loss, val_loss, w, alpha, XI, MOMENTUM, buffers, WEIGHT_DECAY)
    assert {n: t.shape for n, t in answer.items()} == {n: t.shape for n, t in alpha.items()}
    assert not any(t.requires_grad for t in answer.values())
    for now, before in zip((w, alpha, buffers), tensors, strict=True):
        assert all(torch.equal(now[n], before[n]) and now[n].grad is None for n in before)


# The toy problem: L_train = (w - a)^2, L_val = a w - 2 a + 1. Its optimum is a = w = 1.


def toy_train(w, alpha):
    return (w["w"] - alpha["a"]) ** 2


def toy_val(w, alpha):
    return alpha["a"] * w["w"] - 2 * alpha["a"] + 1


def number(x: float, name: str) -> dict[str, Tensor]:
    return {name: torch.tensor(x, dtype=torch.float64)}


@pytest.mark.parametrize("xi", [0.0, 0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("way", [unrolled, exact])
def test_the_toys_hypergradient_has_a_closed_form(way, xi):
    for w in (-1.0, 0.5, 2.0):
        for a in (-2.0, 0.3, 1.0):
            got = way(toy_train, toy_val, number(w, "w"), number(a, "a"), xi)["a"].item()
            stepped = w - 2 * xi * (w - a)
            assert got == pytest.approx(stepped - 2 + 2 * xi * a, abs=1e-11)
    assert first_order(toy_val, number(3.0, "w"), number(5.0, "a"))["a"].item() == 1.0


def settled(hypergradient: Callable) -> tuple[float, float]:
    """(a, w) where alternating steps, a on its hypergradient and w on L_train, come to rest."""
    a, w = -2.0, 2.0
    for _ in range(1000):
        moved = a - 0.2 * hypergradient(number(w, "w"), number(a, "a"))["a"].item()
        w -= 0.3 * 2 * (w - moved)
        if abs(moved - a) < 1e-13 and abs(w - moved) < 1e-13:
            return moved, w
        a = moved
    raise AssertionError(f"not at rest: a = {a}, w = {w}")


@pytest.mark.parametrize("xi", [0.0, 0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("way", [unrolled, exact])
def test_the_toy_comes_to_rest_at_2_over_1_plus_2_xi(way, xi):
    a, w = settled(lambda w, alpha: way(toy_train, toy_val, w, alpha, xi))
    assert a == pytest.approx(2 / (1 + 2 * xi), abs=1e-9)
    assert w == pytest.approx(2 / (1 + 2 * xi), abs=1e-9)


def test_the_toy_comes_to_rest_at_2_by_first_order_and_at_the_optimum_by_the_implicit_function_theorem():
    assert settled(lambda w, alpha: first_order(toy_val, w, alpha)) == pytest.approx((2, 2), abs=1e-9)
    for method in ("cg", "neumann"):
        at_rest = settled(
            lambda w, alpha, m=method: implicit(toy_train, toy_val, w, alpha, m, steps=60, lr=0.3)
        )
        assert at_rest == pytest.approx((1, 1), abs=1e-9)


# Implicit, on a quadratic: L_train = w A w / 2 - w B alpha, L_val = |w - t|^2 / 2 + c alpha.


class Quadratic:
    def __init__(self, n: int = 6, m: int = 3):
        generator = torch.Generator().manual_seed(0)

        def draw(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        root = draw(n, n)
        self.A = root @ root.T + torch.eye(n, dtype=torch.float64)
        self.B, self.t, self.c, alpha = draw(n, m), draw(n), draw(m), draw(m)
        self.alpha = {"x": alpha[:1], "y": alpha[1:]}  # in two parts, as weights of a network are in many
        w = torch.linalg.solve(self.A, self.B @ alpha)
        self.w = {"u": w[:2].reshape(2, 1), "v": w[2:]}
        hyper = self.B.T @ torch.linalg.solve(self.A, w - self.t) + self.c
        self.answer = {"x": hyper[:1], "y": hyper[1:]}
        self.largest = torch.linalg.eigvalsh(self.A)[-1].item()

    @staticmethod
    def flat(tensors) -> Tensor:
        return torch.cat([t.flatten() for t in tensors.values()])

    def train_loss(self, w, alpha):
        w, alpha = self.flat(w), self.flat(alpha)
        return w @ self.A @ w / 2 - w @ self.B @ alpha

    def val_loss(self, w, alpha):
        return ((self.flat(w) - self.t) ** 2).sum() / 2 + self.c @ self.flat(alpha)

    @property
    def problem(self):
        return self.train_loss, self.val_loss, self.w, self.alpha


def test_conjugate_gradients_give_the_closed_form():
    q = Quadratic()
    assert distance(implicit(*q.problem, "cg", steps=6), q.answer) < 1e-10
    assert distance(implicit(*q.problem, "cg", steps=100), q.answer) < 1e-10, "more steps do no harm"
    assert distance(implicit(*q.problem, "cg", steps=2), q.answer) > 1e-3, "six unknowns take six steps"
    assert distance(first_order(q.val_loss, q.w, q.alpha), q.answer) > 0.1


def test_the_neumann_series_comes_to_conjugate_gradients():
    q = Quadratic()
    cg = implicit(*q.problem, "cg", steps=6)
    lr = 1 / q.largest
    errors = [distance(implicit(*q.problem, "neumann", steps, lr), cg) for steps in (1, 4, 16, 64, 256, 1024)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-9


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_neumann_series_is_unrolling_that_many_steps_at_the_solution(steps):
    q = Quadratic()
    lr = 1.5 / q.largest

    def unrolled_value(alpha):
        w = q.w
        for _ in range(steps):
            g = grad(q.train_loss)(w, alpha)
            w = {name: w[name] - lr * g[name] for name in w}
        return q.val_loss(w, alpha)

    neumann = implicit(*q.problem, "neumann", steps, lr)
    assert distance(neumann, grad(unrolled_value)(q.alpha)) < 1e-10
    if steps == 1:
        assert distance(neumann, exact(*q.problem, lr)) < 1e-10


def test_the_best_weight_decay_of_ridge_regression():
    # The hyper-parameter is in L_train only: first order knows nothing of it.
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(40, 5, generator=generator, dtype=torch.float64),
        torch.randn(40, generator=generator).double(),
    )

    def solved(log_decay):
        return torch.linalg.solve(
            x[:20].T @ x[:20] / 20 + log_decay.exp() * torch.eye(5).double(), x[:20].T @ y[:20] / 20
        )

    def train_loss(w, alpha):
        return ((x[:20] @ w["w"] - y[:20]) ** 2).mean() + alpha["log_decay"].exp() * (w["w"] ** 2).sum()

    def val_loss(w, alpha):
        return ((x[20:] @ w["w"] - y[20:]) ** 2).mean()

    alpha = number(-1.0, "log_decay")
    w = {"w": solved(alpha["log_decay"])}
    wanted = {"log_decay": grad(lambda a: val_loss({"w": solved(a)}, {}))(alpha["log_decay"])}
    assert distance(implicit(train_loss, val_loss, w, alpha, steps=5), wanted) < 1e-10
    assert first_order(val_loss, w, alpha)["log_decay"] == 0.0


# Edges


def test_a_validation_loss_without_weights_leaves_its_own_gradient():
    def val_loss(w, alpha):
        return alpha["a"] ** 3 + 0 * w["w"]

    for way in (unrolled, exact):
        assert way(toy_train, val_loss, number(0.3, "w"), number(2.0, "a"), 0.1)["a"].item() == 12.0


def test_what_no_loss_depends_on_has_the_gradient_zero():
    alpha = number(1.0, "a") | number(5.0, "unused")
    problem = (toy_train, toy_val, number(1.0, "w"), alpha)
    answers = [
        unrolled(*problem, 0.1),
        exact(*problem, 0.1),
        implicit(*problem),
        first_order(toy_val, *problem[2:]),
    ]
    assert all(answer["unused"] == 0.0 for answer in answers)


@pytest.mark.parametrize("way", [unrolled, exact, implicit])
def test_where_gradients_are_off_it_says_so_and_gives_no_zeros(way):
    problem = (toy_train, toy_val, number(1.0, "w"), number(1.0, "a"))
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"outside torch.no_grad\(\)"):
        way(*problem, **({} if way is implicit else {"lr": 0.1}))
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"outside torch.no_grad\(\)"):
        first_order(toy_val, *problem[2:])


def test_a_method_that_is_none_is_told():
    with pytest.raises(ValueError, match="'cg' or 'neumann', got 'newton'"):
        implicit(toy_train, toy_val, number(1.0, "w"), number(1.0, "a"), "newton")


def test_a_direction_that_bends_down_is_told():
    def saddle(w, alpha):
        return -((w["w"] - alpha["a"]) ** 2)

    with pytest.raises(ValueError, match="positive definite Hessian, but a direction has curvature -"):
        implicit(saddle, toy_val, number(1.0, "w"), number(1.0, "a"), "cg")
    with pytest.raises(ValueError, match="Neumann series diverges: its terms grew"):
        implicit(saddle, toy_val, number(1.0, "w"), number(1.0, "a"), "neumann")


def test_a_neumann_series_that_diverges_is_told():
    q = Quadratic()
    implicit(*q.problem, "neumann", 50, 1.99 / q.largest)
    with pytest.raises(ValueError, match="diverges.*choose a smaller lr than"):
        implicit(*q.problem, "neumann", 50, 2.2 / q.largest)
    with pytest.raises(ValueError, match="diverges"):
        implicit(*q.problem, "neumann", 10_000, 3 / q.largest)  # to infinity and beyond: nan


@pytest.mark.parametrize("r", [0.0, -1e-2, float("nan")])
def test_a_finite_difference_wants_a_step(r):
    with pytest.raises(ValueError, match="wants a step r above 0, got"):
        unrolled(toy_train, toy_val, number(1.0, "w"), number(1.0, "a"), 0.1, r=r)


@pytest.mark.parametrize("way", [unrolled, exact])
def test_momentum_of_a_weight_that_is_not_there_is_told(way):
    with pytest.raises(ValueError, match=r"buffers for \['v'\], but w has only \['w'\]"):
        way(toy_train, toy_val, number(1.0, "w"), number(1.0, "a"), 0.1, 0.9, number(1.0, "v"))


class Tied(nn.Module):
    """Two layers with one weight, and a batch norm."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)
        self.second.weight, self.nothing = self.first.weight, None

    def forward(self, x):
        return self.second(self.norm(self.first(x)).relu())


def test_a_model_as_a_function_of_its_weights_is_that_of_torch():
    torch.manual_seed(0)
    model, x = Tied(), torch.randn(8, 4)
    function, before = AsFunction(model), copy.deepcopy(model.state_dict())
    assert list(function.weights) == [name for name, _ in model.named_parameters()]
    assert all(function.weights[name] is weight for name, weight in model.named_parameters())
    assert list(function.buffers) == [name for name, _ in model.named_buffers()]
    w = {name: torch.randn_like(weight).requires_grad_() for name, weight in function.weights.items()}
    found = []
    for call in function, lambda tensors, *given: torch.func.functional_call(model, tensors, given):
        buffers = {name: buffer.clone() for name, buffer in function.buffers.items()}
        y = call({**w, **buffers}, x)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(w.values())), *buffers.values()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert not torch.equal(buffers["norm.running_mean"], model.norm.running_mean)
    model.again = model.first  # a module in two places, after which torch's does not put its own back
    function = AsFunction(model)
    function(w, x)
    model.norm.load_state_dict({n[5:]: t for n, t in before.items() if n.startswith("norm.")})
    with pytest.raises(RuntimeError):
        function(w, x[:, :2])  # an error, after which it has its own again
    assert all(
        torch.equal(before[name], tensor) for name, tensor in model.state_dict().items() if name in before
    )
    assert all(isinstance(weight, nn.Parameter) for weight in model.parameters())
    model.norm.eval()
    assert function.training and not AsFunction(model).training
