"""Hypergradients: d L_val(w*(alpha), alpha) / d alpha, four ways.

The bilevel problem (DARTS, arXiv:1806.09055, eq. 3-4) is: minimise L_val(w*(alpha), alpha) over alpha, where
w*(alpha) minimises L_train(w, alpha) over w. The ways differ in what they put in the place of w*(alpha):

    first_order   w itself, as if it did not depend on alpha (DARTS with xi = 0)
    unrolled      one step of SGD from w; the second derivative in it by a finite difference (eq. 6-8)
    exact         the same step, differentiated by autograd, with nothing approximated
    implicit      w*(alpha) itself, by the implicit function theorem, if w is already there

`train_loss(w, alpha)` and `val_loss(w, alpha)` are functions of two dicts of tensors; every answer is a dict
like `alpha`. Nothing is changed in place and no `.grad` is touched.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Tensors = Mapping[str, Tensor]
Loss = Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor]


class AsFunction:
    """A model as a function of its weights and buffers, as `torch.func.functional_call` makes one.

    That looks each of a supernet's 2,600 tensors up by its name, in each call. Here one walk finds their
    places, for all calls of a step. A tensor that has several places has the first one's name, as in
    `named_parameters`.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.weights: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        self.training = True  # are all modules in training?
        self._places: dict[str, list[tuple[dict[str, Any], str]]] = {}
        names: dict[int, str] = {}
        todo, seen = [("", model)], set()
        while todo:  # in the order of `named_modules`, whose generators inside generators take longer
            prefix, module = todo.pop()
            if module in seen:
                continue
            seen.add(module)
            self.training &= module.training
            for kind, own in (self.weights, module._parameters), (self.buffers, module._buffers):
                for name, tensor in own.items():
                    if tensor is not None:
                        full = names.setdefault(id(tensor), prefix + name)
                        kind.setdefault(full, tensor)
                        self._places.setdefault(full, []).append((own, name))
            children = [
                (f"{prefix}{name}.", child) for name, child in module._modules.items() if child is not None
            ]
            todo += reversed(children)

    def __call__(self, tensors: Tensors, *given: Any) -> Any:
        """`model(*given)`, with these tensors for its own of the same names while it runs."""
        own = [(place, key, place[key]) for name in tensors for place, key in self._places[name]]
        try:
            for name, tensor in tensors.items():
                for place, key in self._places[name]:
                    place[key] = tensor
            return self.model(*given)
        finally:
            for place, key, tensor in own:
                place[key] = tensor


def first_order(val_loss: Loss, w: Tensors, alpha: Tensors) -> dict[str, Tensor]:
    """grad_alpha L_val(w, alpha): the weights count as constant. DARTS, section 2.3 with xi = 0.

    Zeros where L_val does not mention alpha, as for a learning rate or a weight decay.
    """
    alpha = _leaves(alpha)
    return _grad(val_loss(_constants(w), alpha), alpha)


def unrolled(
    train_loss: Loss,
    val_loss: Loss,
    w: Tensors,
    alpha: Tensors,
    lr: float,
    momentum: float = 0.0,
    buffers: Tensors | None = None,
    weight_decay: float = 0.0,
    r: float = 1e-2,
) -> dict[str, Tensor]:
    """The hypergradient through one SGD step, by a finite difference. DARTS, eq. 6-8.

        w'     = w - lr (momentum b + grad_w L_train(w, alpha) + weight_decay w)
        v      = grad_w' L_val(w', alpha)
        eps    = r / ||v||
        H      = [grad_alpha L_train(w + eps v, alpha) - grad_alpha L_train(w - eps v, alpha)] / (2 eps)
        answer = grad_alpha L_val(w', alpha) - lr H

    `buffers` are the optimizer's momentum buffers b, a dict like `w` (a missing entry counts as zero). The
    error of H is of order r^2 where L_train is smooth.
    """
    if not r > 0:
        raise ValueError(f"the finite difference wants a step r above 0, got {r}")
    leaves = _leaves(w)
    gradient = _grad(train_loss(leaves, _constants(alpha)), leaves)
    stepped = _leaves(sgd_step(_constants(w), gradient, lr, momentum, buffers, weight_decay))

    alpha = _leaves(alpha)
    both = _grad(val_loss(stepped, alpha), {**_keyed("w", stepped), **_keyed("alpha", alpha)})
    v = {name: both["w", name] for name in stepped}
    norm = torch.stack(torch._foreach_norm(list(v.values()))).norm().double()
    eps = r / norm  # a tensor: to ask for its value would be to wait for a GPU
    # All weights in one call: a supernet has many, all of them small.
    steps = torch._foreach_mul([v[name] for name in w], torch.where(norm > 0, eps, 0.0))
    values = list(_constants(w).values())
    plus = first_order(train_loss, dict(zip(w, torch._foreach_add(values, steps), strict=True)), alpha)
    minus = first_order(train_loss, dict(zip(w, torch._foreach_sub(values, steps), strict=True)), alpha)
    return {name: both["alpha", name] - lr * (plus[name] - minus[name]) / (2 * eps) for name in alpha}


def exact(
    train_loss: Loss,
    val_loss: Loss,
    w: Tensors,
    alpha: Tensors,
    lr: float,
    momentum: float = 0.0,
    buffers: Tensors | None = None,
    weight_decay: float = 0.0,
    r: float = 1e-2,
) -> dict[str, Tensor]:
    """As `unrolled` with no approximation: autograd differentiates L_val(w'(alpha), alpha). DARTS, eq. 6.

    It keeps the graph of grad_w L_train, so it costs about twice the memory. `r` is not used; it stands here
    so that `exact` and `unrolled` can take each other's place.
    """
    w, alpha = _leaves(w), _leaves(alpha)
    gradient = _grad(train_loss(w, alpha), w, create_graph=True)
    stepped = sgd_step(w, gradient, lr, momentum, buffers, weight_decay)
    return _grad(val_loss(stepped, alpha), alpha)


def implicit(
    train_loss: Loss,
    val_loss: Loss,
    w: Tensors,
    alpha: Tensors,
    method: str = "cg",
    steps: int = 20,
    lr: float = 0.1,
) -> dict[str, Tensor]:
    """The hypergradient at the solution, by the implicit function theorem.

        answer = grad_alpha L_val - (d^2 L_train / d alpha d w) q
        with q from  (d^2 L_train / d w^2) q = grad_w L_val

    right where w minimises L_train(., alpha) and its Hessian is positive definite. `method="cg"` solves for q
    by `steps` steps of conjugate gradients; `method="neumann"` sums lr (1 - lr Hessian)^k grad_w L_val for
    k < `steps`, which is what differentiating through `steps` steps of SGD at the solution gives; lr must be
    below 2 / (largest eigenvalue). Raises ValueError for another method, where conjugate gradients meet a
    direction that bends down, and where the Neumann series diverges. Lorraine, Vicol, Duvenaud,
    arXiv:1911.02590.
    """
    if method not in ("cg", "neumann"):
        raise ValueError(f"method must be 'cg' or 'neumann', got {method!r}")
    w, alpha = _leaves(w), _leaves(alpha)
    both = _grad(val_loss(w, alpha), {**_keyed("w", w), **_keyed("alpha", alpha)})
    v = {name: both["w", name] for name in w}
    gradient = _grad(train_loss(w, alpha), w, create_graph=True)

    def hessian(q: Tensors) -> dict[str, Tensor]:
        return _grad(_dot(gradient, q), w, retain_graph=True)

    q = _conjugate_gradients(hessian, v, steps) if method == "cg" else _neumann(hessian, v, steps, lr)
    mixed = _grad(_dot(gradient, q), alpha)
    return {name: both["alpha", name] - mixed[name] for name in alpha}


def sgd_step(
    w: Tensors, gradient: Tensors, lr: float, momentum: float, buffers: Tensors | None, weight_decay: float
) -> dict[str, Tensor]:
    """w - lr (momentum b + gradient + weight_decay w): one step of torch.optim.SGD, nothing in place.

    Raises ValueError if `buffers` has a name that `w` lacks: its momentum would be lost.
    """
    buffers = buffers or {}
    if set(buffers) - set(w):
        raise ValueError(f"momentum buffers for {sorted(set(buffers) - set(w))}, but w has only {sorted(w)}")
    values, moving = list(w.values()), [name for name in w if name in buffers]
    decay = torch._foreach_mul(values, weight_decay)
    steps = dict(zip(w, torch._foreach_add([gradient[name] for name in w], decay), strict=True))
    if moving:
        moved = torch._foreach_mul([buffers[name].detach() for name in moving], momentum)
        moved = torch._foreach_add([steps[name] for name in moving], moved)
        steps |= dict(zip(moving, moved, strict=True))
    stepped = torch._foreach_sub(values, torch._foreach_mul(list(steps.values()), lr))
    return dict(zip(w, stepped, strict=True))


def sgd_settings(optimizer: torch.optim.Optimizer, w: Tensors, lr: float | None = None) -> dict[str, Any]:
    """A torch SGD's lr, momentum, weight decay, and buffers of the weights `w` that it steps, as `unrolled`
    takes them; `lr` overrules its own.

    Raises ValueError for an optimizer whose step is another than eq. 6's.
    """
    group = optimizer.param_groups[0]
    if len(optimizer.param_groups) > 1 or group.get("nesterov") or "momentum" not in group:
        raise ValueError(
            "unrolled=True wants a plain torch.optim.SGD with one parameter group and no Nesterov momentum, "
            f"since its virtual step (eq. 6) is that optimizer's step; got {type(optimizer).__name__}"
        )
    buffers = {
        name: optimizer.state[weight]["momentum_buffer"]
        for name, weight in w.items()
        if optimizer.state.get(weight, {}).get("momentum_buffer") is not None
    }
    own = {key: group[key] for key in ("lr", "momentum", "weight_decay")}
    return {**own, "lr": group["lr"] if lr is None else lr, "buffers": buffers}


def _conjugate_gradients(matvec: Callable[[Tensors], Tensors], b: Tensors, steps: int) -> dict[str, Tensor]:
    x = {name: torch.zeros_like(t) for name, t in b.items()}
    residual = direction = dict(b)
    size = first = _dot(residual, residual)
    for _ in range(steps):
        if size <= 1e-28 * first:
            break
        product = matvec(direction)
        bend = _dot(direction, product)
        if bend <= 0:
            raise ValueError(
                "conjugate gradients want a positive definite Hessian, but a direction has curvature "
                f"{bend.item():.3g}; train w to a minimum of L_train first"
            )
        step = size / bend
        x = _add(x, step, direction)
        residual = _add(residual, -step, product)
        size, previous = _dot(residual, residual), size
        direction = _add(residual, size / previous, direction)
    return x


def _neumann(matvec: Callable[[Tensors], Tensors], b: Tensors, steps: int, lr: float) -> dict[str, Tensor]:
    term = dict(b)
    total = {name: torch.zeros_like(t) for name, t in b.items()}
    for _ in range(steps):
        total = _add(total, lr, term)
        term = _add(term, -lr, matvec(term))
    # Between 0 and 2 / (largest eigenvalue) the terms shrink; they grow a little where w is not quite there.
    first, last = _dot(b, b).sqrt().item(), _dot(term, term).sqrt().item()
    if not last <= 10 * first:
        raise ValueError(
            f"the Neumann series diverges: its terms grew from length {first:.3g} to {last:.3g}; "
            f"choose a smaller lr than {lr}, or train w to a minimum of L_train first"
        )
    return total


def _leaves(tensors: Tensors) -> dict[str, Tensor]:
    return {name: t.detach().requires_grad_() for name, t in tensors.items()}


def _constants(tensors: Tensors) -> dict[str, Tensor]:
    return {name: t.detach() for name, t in tensors.items()}


def _keyed(kind: str, tensors: Tensors) -> dict[tuple[str, str], Tensor]:
    return {(kind, name): t for name, t in tensors.items()}


def _grad(
    loss: Tensor, inputs: Mapping, create_graph: bool = False, retain_graph: bool | None = None
) -> dict:
    """torch.autograd.grad for a dict; zeros for what the loss does not depend on."""
    if not torch.is_grad_enabled():
        raise RuntimeError(
            "a hypergradient takes gradients; call it outside torch.no_grad() and inference_mode()"
        )
    if not loss.requires_grad:
        return {name: torch.zeros_like(t) for name, t in inputs.items()}
    found = torch.autograd.grad(
        loss,
        list(inputs.values()),
        create_graph=create_graph,
        retain_graph=retain_graph,
        materialize_grads=True,
    )
    return dict(zip(inputs, found, strict=True))


def _dot(a: Tensors, b: Tensors) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def _add(a: Tensors, factor: Tensor | float, b: Tensors) -> dict[str, Tensor]:
    return {name: a[name] + factor * b[name] for name in a}
