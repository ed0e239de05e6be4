"""DARTS: search by gradient descent on a matrix of weights (Liu, Simonyan, Yang, ICLR 2019,
arXiv:1806.09055).

Algorithm 1 of the paper, one step:

    1. alpha <- alpha - (Adam on the hypergradient of L_val(w', alpha))     hypergrad.first_order or .unrolled
    2. w     <- w - (SGD on grad_w L_train(w, alpha))

`Softmax` makes alpha the matrix (eq. 2). What others changed is handed in: relaxation.py, early_stop.py.
"""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from nasedu.data.datasets import Transform, seeded
from nasedu.errors import ArgumentError, check_number, short
from nasedu.search import hypergrad
from nasedu.search.base import SearchTrainer
from nasedu.search.device import Graphed
from nasedu.search.evaluation import Metrics
from nasedu.space.choice import ArchError, InputChoice, choices, points

Batch = tuple[Tensor, Tensor]
Matrices = Mapping[str, Tensor]


@dataclass
class Softmax:
    """alpha -> arch: each row of the matrix is the softmax of its logits (eq. 2).

    Where any number of inputs may be chosen each has a gate of its own, a sigmoid. Another relaxation is a
    subclass with another `arch` (what is shown and derived) or `draw` (what one step runs); a dataclass, so
    that a checkpoint knows its numbers. `state` holds tensors that it wants kept in checkpoints.
    """

    def of(self, model: nn.Module) -> Self:
        """A copy for this model. Raises ArchError if the model has nothing to search."""
        mine = copy.deepcopy(self)
        mine.prepare(model)
        return mine

    def prepare(self, model: nn.Module) -> None:
        """Look at what there is to decide."""
        self.state: dict[str, Tensor] = {}
        self.shapes: Mapping[str, tuple[int, ...]] = choices(model)
        if not self.shapes:
            raise ArchError("the model has nothing to search: build it with LayerChoice or InputChoice")
        first = {label: rows[0] for label, rows in points(model).items()}
        self.gates = {k for k, row in first.items() if isinstance(row, InputChoice) and row.n_chosen is None}

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """alpha for the start of a search: 1e-3 x normal noise."""
        return {label: 1e-3 * torch.randn(shape, generator=generator) for label, shape in self.shapes.items()}

    def arch(self, alpha: Matrices) -> dict[str, Tensor]:
        """The matrices of alpha."""
        return {k: alpha[k].sigmoid() if k in self.gates else alpha[k].softmax(dim=-1) for k in self.shapes}

    def draw(self, alpha: Matrices, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """The matrices that one step runs; `progress` goes from 0 in the first epoch to 1 in the last."""
        return self.arch(alpha)


class DartsTrainer(SearchTrainer):
    """Search any model built from `LayerChoice` and `InputChoice` by DARTS. The keyword names are those
    of NNI 2.x.

    `optimizer` (SGD) belongs to w; alpha has Adam with rate `arc_learning_rate`, betas (0.5, 0.999) and
    weight decay 1e-3. `unrolled` chooses the second-order hypergradient; its step size xi is w's current
    learning rate, or `learning_rate` if given. `relaxation` makes the matrices of alpha: `Softmax` (the
    paper's), `Gumbel` (GDAS), `EdgeShares` (PC-DARTS), or a class of your own. `EarlyStop` (RobustDARTS) is
    one of the `callbacks`. `cuda_graph` has a GPU repeat a recorded step (device.py; not yet run on one).
    Everything else: see `SearchTrainer`.

    A line of the history has train_loss, valid_loss (of the batches as they came, before each step), the
    metrics, lr, and "arch", the matrices after the epoch, as lists.
    """

    kind = "DARTS"

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        metrics: Metrics,
        optimizer: torch.optim.Optimizer,
        num_epochs: int,
        dataset: Any,
        grad_clip: float = 5.0,
        learning_rate: float | None = None,
        batch_size: int = 64,
        workers: int = 0,
        device: torch.device | str | None = None,
        log_frequency: int | None = None,
        arc_learning_rate: float = 3e-4,
        unrolled: bool = False,
        *,
        relaxation: Softmax | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        augment: Transform | Literal[False] | None = None,
        valid_share: float = 0.5,
        seed: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 100,
        callbacks: Sequence[Callable[[Any], None]] = (),
        progress: bool | None = None,
        precision: str | None = None,
        cuda_graph: bool = False,
    ):
        super().__init__(
            model, loss, metrics, optimizer, num_epochs, dataset, batch_size, device, log_frequency,
            grad_clip, scheduler=scheduler, augment=augment, valid_share=valid_share, seed=seed,
            checkpoint=checkpoint, checkpoint_every=checkpoint_every, callbacks=callbacks, progress=progress,
            precision=precision,
        )  # fmt: skip
        check_number("arc_learning_rate", arc_learning_rate, 0)
        if learning_rate is not None:
            check_number("learning_rate", learning_rate, 0)
        if relaxation is not None and not isinstance(relaxation, Softmax):
            raise ArgumentError(f"relaxation is {short(relaxation)}; wanted a Softmax, or a subclass of it")
        self.unrolled, self.learning_rate = unrolled, learning_rate
        self.relaxation = (relaxation or Softmax()).of(model)
        alpha = self.relaxation.start(seeded(seed, 3))
        self.alpha = {label: logits.to(self.device).requires_grad_() for label, logits in alpha.items()}
        self.alpha_optimizer = torch.optim.Adam(
            list(self.alpha.values()),
            lr=arc_learning_rate,
            betas=(0.5, 0.999),
            weight_decay=1e-3,
            capturable=cuda_graph and self.device.type == "cuda",
        )
        self.graph: Graphed | None = None
        if cuda_graph:
            if type(self.relaxation).draw is not Softmax.draw:
                raise ArgumentError(
                    f"cuda_graph=True does the same in each step, and {type(self.relaxation).__name__} draws "
                    "anew on the CPU; leave it out, or take Softmax()"
                )
            self.graph = Graphed(self.both_steps, self.device, [optimizer, self.alpha_optimizer])
        self.remembered |= {
            "unrolled": unrolled,
            "learning_rate": learning_rate,
            "arc_learning_rate": arc_learning_rate,
            "relaxation": repr(self.relaxation),
        }

    def train_step(self, epoch: int, step: int) -> dict[str, Any]:
        """One step of algorithm 1: alpha on a validation batch, then w on a training batch."""
        train, valid = self.train_batch(epoch, step), self.valid_batch(epoch, step)
        if self.graph is not None:
            groups = self.optimizer.param_groups + self.alpha_optimizer.param_groups
            return self.graph([group["lr"] for group in groups], *train, *valid)
        self.step_so_far = numbers = self.alpha_step(train, valid, self.drawing(epoch, step, 4))
        with torch.no_grad():
            arch = self.drawing(epoch, step, 5)(self.alpha)
        return {**self.weight_step(*train, arch), **numbers}

    def both_steps(self, x: Tensor, y: Tensor, x_valid: Tensor, y_valid: Tensor) -> dict[str, Any]:
        """The same, where nothing is drawn: what a graph records."""
        numbers = self.alpha_step((x, y), (x_valid, y_valid))
        with torch.no_grad():
            arch = self.relaxation.arch(self.alpha)
        return {**self.weight_step(x, y, arch), **numbers}

    def drawing(self, epoch: int, step: int, stream: int) -> Callable[[Matrices], dict[str, Tensor]]:
        """alpha -> the matrices that this step runs, by the same random numbers however often it is asked."""
        progress = min(epoch / max(self.num_epochs - 1, 1), 1.0)
        return lambda alpha: self.relaxation.draw(alpha, progress, seeded(self.seed, epoch, step, stream))

    def alpha_step(
        self, train: Batch, valid: Batch, arch_of: Callable[[Matrices], Matrices] | None = None
    ) -> dict[str, Any]:
        """One step of Adam on alpha. Weights, momentum and batch-norm buffers stay as they are.

        `arch_of(alpha)` is what the model runs (default: the relaxation's matrices). Returns loss and metrics
        of the validation batch (at the virtual weights w', if `unrolled`).
        """
        model = hypergrad.AsFunction(self.model)
        if not model.training:
            self.model.train()
        arch_of = arch_of or self.relaxation.arch
        w = {name: weight.detach() for name, weight in model.weights.items()}
        averages = {name: buffer.clone() for name, buffer in model.buffers.items()}
        numbers: dict[str, Any] = {}

        def logits(x: Tensor, w: Matrices, alpha: Matrices) -> Tensor:
            return model({**averages, **w}, x, arch_of(alpha))

        def train_loss(w: dict[str, Tensor], alpha: dict[str, Tensor]) -> Tensor:
            return self.loss(logits(train[0], w, alpha), train[1])

        def val_loss(w: dict[str, Tensor], alpha: dict[str, Tensor]) -> Tensor:
            output = logits(valid[0], w, alpha)
            loss = self.loss(output, valid[1])
            numbers.update({f"valid_{k}": v for k, v in self.metrics(output.detach(), valid[1]).items()})
            numbers["valid_loss"] = loss.detach()
            return loss

        if self.unrolled:
            sgd = hypergrad.sgd_settings(self.optimizer, model.weights, self.learning_rate)
            gradient = hypergrad.unrolled(train_loss, val_loss, w, self.alpha, **sgd)
        else:
            gradient = hypergrad.first_order(val_loss, w, self.alpha)
        for label, logit in self.alpha.items():
            logit.grad = gradient[label]
        self.alpha_optimizer.step()
        return {**numbers, "alpha_grad_norm": nn.utils.get_total_norm(gradient.values())}

    def trial(self, x: Tensor) -> Tensor:
        """Logits of what a step runs."""
        with torch.no_grad():
            arch = self.drawing(0, 0, 5)(self.alpha)
        return self.model(x, arch)

    def weight_step(self, x: Tensor, y: Tensor, arch: Matrices) -> dict[str, Any]:
        """One step of SGD on w, with `arch` held fixed. Returns loss and metrics of the batch."""
        if not self.model.training:
            self.model.train()
        logits = self.model(x, arch)
        loss = self.loss(logits, y)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(
            self.model.parameters(), self.grad_clip if self.grad_clip > 0 else torch.inf
        )
        self.optimizer.step()
        measured = {f"train_{k}": v for k, v in self.metrics(logits.detach(), y).items()}
        return {"train_loss": loss.detach(), **measured, "grad_norm": norm}

    def arch(self) -> dict[str, Tensor]:
        """The matrices now, on the CPU, without gradient; of a stopped search those of `stopped_at()`."""
        if stopped := self.stopped_at():
            lists = self.history.epochs[stopped - 1]["arch"]
            return {label: torch.tensor(matrix) for label, matrix in lists.items()}
        return {label: weights.detach().cpu() for label, weights in self.relaxation.arch(self.alpha).items()}

    def end_epoch(self) -> dict[str, Any]:
        """The matrices, for the history."""
        return {
            "arch": {label: matrix.tolist() for label, matrix in self.relaxation.arch(self.alpha).items()}
        }

    def learned(self) -> dict[str, Any]:
        """alpha and its optimizer, too."""
        optimizer = self.alpha_optimizer.state_dict()["state"]
        return {**super().learned(), "alpha": self.alpha, "alpha's optimizer": optimizer}

    def extra_state(self) -> dict[str, Any]:
        """alpha, its optimizer, and what the relaxation remembers."""
        alpha = {label: logits.detach() for label, logits in self.alpha.items()}
        optimizer = self.alpha_optimizer.state_dict()
        return {"alpha": alpha, "alpha_optimizer": optimizer, "relaxation": self.relaxation.state}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        for label, logits in self.alpha.items():
            logits.data.copy_(state["alpha"][label])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        self.relaxation.state = dict(state["relaxation"])
