"""Checks of notebook 06: the steps of DARTS, on a supernet small enough to be quick."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasedu.check.contract import Cases, exercise
from nasedu.space.cells import CNN

Alpha = dict[str, Tensor]


def _start() -> tuple[CNN, Alpha, Tensor, Tensor]:
    """A supernet of cells with two nodes, logits that are not all alike, and a batch of 8x8 images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CNN(8, 3, 2, 4, 3, n_nodes=2)
        alpha = {name: torch.randn(shape).requires_grad_() for name, shape in model.choices().items()}
        return model, alpha, torch.randn(6, 3, 8, 8), torch.arange(6) % 4


def _stepped(tensors: dict[str, Tensor], loss: Tensor, lr: float) -> dict[str, Tensor]:
    """Each tensor after one step of plain SGD on the loss."""
    gradient = torch.autograd.grad(loss, list(tensors.values()), retain_graph=True, materialize_grads=True)
    return {name: t.detach() - lr * g for (name, t), g in zip(tensors.items(), gradient, strict=True)}


def _loss(model: nn.Module, alpha: Alpha, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x, {name: logits.softmax(-1) for name, logits in alpha.items()}), y)


@exercise(
    "a step of alpha",
    hint="copies of the buffers, detached weights, only the logits' gradient",
    tolerance=1e-4,
)
def alpha_step(answer: Callable) -> Cases:
    """Check exercise 06.2: `answer(model, alpha, optimizer, x, y)` steps the logits and nothing else."""
    model, alpha, x, y = _start()
    loss = _loss(copy.deepcopy(model), alpha, x, y)
    expected = _stepped(alpha, loss, 0.5)
    before = copy.deepcopy(model.state_dict())
    returned = answer(model, alpha, torch.optim.SGD(alpha.values(), lr=0.5), x, y)
    yield "it returns the validation loss", float(returned), loss.item()
    for name in alpha:
        yield f"the logits {name!r} after a step of SGD", alpha[name].detach(), expected[name]
    after = model.state_dict()
    weights = dict(model.named_parameters())
    for kind, names in (
        ("weights that moved", [name for name in weights]),
        ("buffers of batch norms that moved", [name for name in after if name not in weights]),
    ):
        yield kind, [name for name in names if not torch.equal(after[name], before[name])], []


@exercise("a joint step", hint="one backward pass; clear both gradients before it", tolerance=1e-4)
def joint_step(answer: Callable) -> Cases:
    """Check exercise 06.3: `answer(model, alpha, sgd, adam, x, y)` steps weights and logits on one batch."""
    model, alpha, x, y = _start()
    twin = copy.deepcopy(model)
    loss = _loss(twin, alpha, x, y)
    weights = _stepped(dict(twin.named_parameters()), loss, 0.1)
    logits = _stepped(alpha, loss, 0.5)
    for tensor in (*model.parameters(), *alpha.values()):
        tensor.grad = torch.ones_like(tensor)  # what an earlier step may have left
    sgd, adam = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.SGD(alpha.values(), lr=0.5)
    returned = answer(model, alpha, sgd, adam, x, y)
    yield "it returns the loss", float(returned), loss.item()
    for name in alpha:
        yield f"the logits {name!r} after the step", alpha[name].detach(), logits[name]
    moved = {name: weight.detach() for name, weight in model.named_parameters()}
    yield "the weights after the step", moved, weights


@exercise("mean entropy", hint="-(p * log p).sum(-1).mean() / ln 2, with log p from log_softmax")
def mean_entropy(answer: Callable[[Tensor], Tensor | float]) -> Cases:
    """Check exercise 06.1: `answer(logits)` is the mean entropy of the softmaxed rows, in bits."""
    yield "equal logits have entropy 3 bits", float(answer(torch.zeros(3, 8))), 3.0
    yield "one row decided, one not", float(answer(torch.tensor([[50.0, 0.0], [0.0, 0.0]]))), 0.5
    yield "logits of 200", float(answer(torch.tensor([[200.0, 0.0, -200.0]]))), 0.0
    rows = torch.tensor([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
    yield "weights 0.2, 0.3, 0.5 and 0.7, 0.2, 0.1", float(answer(rows.log())), 1.3211276
