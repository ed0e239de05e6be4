"""The checks of notebook 02: a right answer passes, each known slip fails at a case that names it."""

import pytest
import torch
from torch.autograd import grad

from nasedu import check
from nasedu.search import hypergrad


def d_a(loss, w, a):
    a = a.detach().requires_grad_()
    return grad(loss(w.detach(), a), a)[0]


def d_w(loss, w, a):
    w = w.detach().requires_grad_()
    return grad(loss(w, a.detach()), w)[0]


def toy(a, w, xi):
    ahead = w - 2 * xi * (w - 3 * a)
    return 2 * a, 2 * a + 6 * xi * 2 * (ahead - 2), 20 * a - 12


def second(train, val, w, a, xi, momentum, b, weight_decay, r=1e-4, slip=""):
    mu, decay = 0 if slip == "momentum" else momentum, 0 if slip == "decay" else weight_decay
    ahead = w if slip == "virtual" else w - xi * (mu * b + d_w(train, w, a) + decay * w)
    v = d_w(val, w if slip == "v" else ahead, a)
    eps = r / v.norm()
    middle = ahead if slip == "around" else w
    change = (d_a(train, middle + eps * v, a) - d_a(train, middle - eps * v, a)) / 2
    bend = change * eps if slip == "eps" else change / eps
    direct = d_a(val, w if slip == "direct" else ahead, a)
    return direct if slip == "H" else direct - xi * bend


def rest(xi, momentum, weight_decay):
    return 2 / (2 / (2 + weight_decay) + 2 * xi)


def ahead(train, val, w, a, xi, steps):
    w, a = w.detach().requires_grad_(), a.detach().requires_grad_()
    for _ in range(steps):
        w = w - xi * grad(train(w, a), w, create_graph=True)[0]
    return grad(val(w, a), a)[0]


def cut_off(train, val, w, a, xi, steps):
    for _ in range(steps - 1):
        w = w - xi * d_w(train, w, a)
    return ahead(train, val, w, a, xi, 1)


RIGHT = [
    (check.toy_hypergradients, toy, 6),
    (check.second_order, second, 8),
    (check.resting_point, rest, 5),
    (check.look_ahead, ahead, 5),
]


@pytest.mark.parametrize(("ask", "answer", "cases"), RIGHT)
def test_right(ask, answer, cases, capsys):
    assert ask(answer)
    assert capsys.readouterr().out.count("✓") == cases


@pytest.mark.parametrize(("ask", "answer", "cases"), RIGHT)
def test_unsolved(ask, answer, cases, capsys):
    assert not ask(lambda *_: ...)
    assert capsys.readouterr().out.startswith("not solved yet")


def test_the_unsolved_toy_as_the_notebook_leaves_it(capsys):
    assert not check.toy_hypergradients(lambda a, w, xi: (..., ..., ...))
    assert capsys.readouterr().out.startswith("not solved yet")


@pytest.mark.parametrize(
    ("slip", "case"),
    [
        ("direct", "the direct road is seen from w', not from w"),
        ("virtual", "the direct road is seen from w', not from w"),
        ("H", "is H there"),
        ("eps", "is it divided by 2 eps"),
        ("v", "v is the slope of L_val at w', not at w"),
        ("around", "taken around w, not around w'"),
        ("momentum", "with momentum"),
        ("decay", "with weight decay"),
    ],
)
def test_each_slip_of_the_second_order_step_fails_at_its_own_case(slip, case, capsys):
    assert not check.second_order(lambda *args: second(*args, slip=slip))
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("✗")]
    assert len(failed) == 1 and case in failed[0]


@pytest.mark.parametrize(
    ("ask", "wrong", "expected"),
    [
        (check.toy_hypergradients, lambda a, w, xi: (2 * a, toy(a, w, xi)[1], 2 * a), "expected: -2"),
        (check.toy_hypergradients, lambda a, w, xi: (2 * a, 2 * a, 20 * a - 12), "unrolled at a = 0.5"),
        (check.resting_point, lambda xi, momentum, decay: 2 / (1 + 2 * xi), "weight decay 1"),
        (
            check.resting_point,
            lambda xi, momentum, decay: rest(xi / (1 - momentum), 0, decay),
            "momentum 0.9",
        ),
        (check.look_ahead, cut_off, "2 steps on the toy"),
        (check.look_ahead, lambda *args: ahead(*args[:-1], 1), "2 steps on the toy"),
    ],
)
def test_wrong(ask, wrong, expected, capsys):
    assert not ask(wrong)
    assert expected in capsys.readouterr().out.split("✗")[1]


@pytest.mark.parametrize(
    ("xi", "momentum", "weight_decay"), [(0.25, 0.9, 0.0), (0.25, 0.0, 1.0), (0.1, 0.9, 0.5)]
)
def test_the_search_does_rest_where_the_check_of_the_resting_point_says(xi, momentum, weight_decay):
    w, a, b = (torch.tensor(value, dtype=torch.float64) for value in (-2.0, 2.0, 0.0))
    for _ in range(900):
        slope = hypergrad.exact(
            lambda w, alpha: (w["w"] - alpha["a"]) ** 2,
            lambda w, alpha: alpha["a"] * w["w"] - 2 * alpha["a"] + 1,
            {"w": w}, {"a": a}, xi, momentum, {"w": b}, weight_decay,
        )["a"]  # fmt: skip
        a = a - 0.05 * slope
        b = momentum * b + 2 * (w - a) + weight_decay * w
        w = w - 0.05 * b
    assert a.item() == pytest.approx(rest(xi, momentum, weight_decay), abs=1e-9)


def test_one_step_ahead():
    def right(train, val, w, a, xi):
        w, a = (t.detach().requires_grad_() for t in (w, a))
        ahead = w - xi * torch.autograd.grad(train(w, a), w, create_graph=True)[0]
        return torch.autograd.grad(val(ahead, a), a)[0]

    def direct_only(train, val, w, a, xi):
        w, a = (t.detach().requires_grad_() for t in (w, a))
        ahead = w - xi * torch.autograd.grad(train(w, a), w)[0]
        return torch.autograd.grad(val(ahead, a), a)[0]

    assert check.one_step_ahead(right)
    assert not check.one_step_ahead(direct_only)
    assert not check.one_step_ahead(lambda train, val, w, a, xi: right(train, val, w, a, 0.0))
