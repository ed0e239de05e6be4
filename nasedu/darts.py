"""DARTS: search by gradient descent on a matrix of weights (Liu, Simonyan, Yang, ICLR 2019,
arXiv:1806.09055).

Algorithm 1 of the paper, one step:

    1. alpha <- alpha - (Adam on the hypergradient of L_val(w', alpha))     hypergrad.first_order or .unrolled
    2. w     <- w - (SGD on grad_w L_train(w, alpha))
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nasedu import hypergrad
from nasedu.choice import InputChoice, choices, points
from nasedu.data import seeded
from nasedu.derive import describe, discretise
from nasedu.evaluation import Metrics, buffers_kept, prefixed
from nasedu.genotype import Genotype
from nasedu.search import SearchTrainer


class DartsTrainer(SearchTrainer):
    """Search any model built from `LayerChoice` and `InputChoice` by DARTS. The keyword names are those
    of NNI 2.x.

    `dataset` is cut into two halves, one for w and one for alpha. `optimizer` (SGD) belongs to w; alpha
    has Adam with rate `arc_learning_rate`, betas (0.5, 0.999) and weight decay 1e-3, and starts at 1e-3
    x normal noise. `unrolled` chooses the second-order hypergradient; its step size xi is w's current
    learning rate, or `learning_rate` if given. `grad_clip` bounds the norm of w's gradient (0: no
    bound). `workers` is accepted and unused: there are no worker processes. Keyword-only: `augment` and
    all of `Trainer` (scheduler, seed, checkpoint, callbacks, progress).

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
        **options: Any,
    ):
        super().__init__(
            model,
            loss,
            metrics,
            optimizer,
            num_epochs,
            dataset,
            batch_size,
            device,
            log_frequency,
            grad_clip,
            **options,
        )
        if not choices(model):
            raise ValueError("the model has nothing to search: build it with LayerChoice or InputChoice")
        self.unrolled, self.learning_rate = unrolled, learning_rate
        self.steps_per_epoch = self.batches_per_half
        noise = seeded(self.seed, 3)
        self.alpha = {
            label: (1e-3 * torch.randn(shape, generator=noise)).to(self.device).requires_grad_()
            for label, shape in choices(model).items()
        }
        self.alpha_optimizer = torch.optim.Adam(
            list(self.alpha.values()), lr=arc_learning_rate, betas=(0.5, 0.999), weight_decay=1e-3
        )
        # Where any number of inputs may be chosen, each has a gate of its own; elsewhere candidates compete.
        self._gates = {
            label
            for label, rows in points(model).items()
            if isinstance(rows[0], InputChoice) and rows[0].n_chosen is None
        }

    def weights_of(self, alpha: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """alpha -> arch: softmax of each row (DARTS, eq. 2); a sigmoid where any number may be chosen."""
        return {
            label: logits.sigmoid() if label in self._gates else logits.softmax(dim=-1)
            for label, logits in alpha.items()
        }

    def arch(self) -> dict[str, Tensor]:
        """The matrices as they are now, on the CPU, without gradient."""
        return {label: weights.detach().cpu() for label, weights in self.weights_of(self.alpha).items()}

    def genotype(self) -> Genotype:
        """The cells that the DARTS rule derives now. For models of normal and reduction cells, as `CNN`."""
        return Genotype.derive(self.arch(), points(self.model)["normal"][0].names)

    def export(self) -> dict[str, Any]:
        """What the search has decided so far, as a dict that `json.dump` takes; see `derive.describe`."""
        return describe(self.model, discretise(self.model, self.arch()))

    def train_step(self, epoch: int, step: int) -> dict[str, float]:
        """One step of algorithm 1: alpha on a validation batch, then w on a training batch."""
        train, valid = self.train_batch(epoch, step), self.valid_batch(epoch, step)
        numbers = self.alpha_step(train, valid)
        return {**self.weight_step(*train, self.arch()), **numbers}

    def alpha_step(self, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]) -> dict[str, float]:
        """One step of Adam on alpha. Weights, momentum and batch-norm buffers stay as they are.

        Returns loss and metrics of the validation batch (at the virtual weights w', if `unrolled`).
        """
        self.model.train()
        w = {name: weight.detach() for name, weight in self.model.named_parameters()}
        numbers: dict[str, float] = {}

        def logits(x: Tensor, w: Mapping[str, Tensor], alpha: Mapping[str, Tensor]) -> Tensor:
            return functional_call(self.model, dict(w), (x, self.weights_of(alpha)))

        def train_loss(w: dict[str, Tensor], alpha: dict[str, Tensor]) -> Tensor:
            return self.loss(logits(train[0], w, alpha), train[1])

        def val_loss(w: dict[str, Tensor], alpha: dict[str, Tensor]) -> Tensor:
            output = logits(valid[0], w, alpha)
            loss = self.loss(output, valid[1])
            measured = self.metrics(output.detach(), valid[1])
            numbers.update(valid_loss=loss.item(), **prefixed("valid", measured))
            return loss

        with buffers_kept(self.model):  # a forward pass moves the running averages of batch norms
            if self.unrolled:
                gradient = hypergrad.unrolled(train_loss, val_loss, w, self.alpha, **self._virtual_step())
            else:
                gradient = hypergrad.first_order(val_loss, w, self.alpha)
        for label, logit in self.alpha.items():
            logit.grad = gradient[label]
        self.alpha_optimizer.step()
        return numbers

    def _virtual_step(self) -> dict[str, Any]:
        """The step size, momentum and weight decay of w's optimizer, as `hypergrad.unrolled` takes them."""
        group = self.optimizer.param_groups[0]
        if len(self.optimizer.param_groups) > 1 or group.get("nesterov") or "momentum" not in group:
            raise ValueError(
                "unrolled=True wants a plain torch.optim.SGD with one parameter group and no Nesterov "
                "momentum, since its virtual step (eq. 6) is that optimizer's step; got "
                f"{type(self.optimizer).__name__}"
            )
        buffers = {
            name: self.optimizer.state[weight]["momentum_buffer"]
            for name, weight in self.model.named_parameters()
            if self.optimizer.state.get(weight, {}).get("momentum_buffer") is not None
        }
        return {
            "lr": group["lr"] if self.learning_rate is None else self.learning_rate,
            "momentum": group["momentum"],
            "buffers": buffers,
            "weight_decay": group["weight_decay"],
        }

    def end_epoch(self) -> dict[str, Any]:
        """The matrices, for the history."""
        return {"arch": {label: weights.tolist() for label, weights in self.arch().items()}}

    def config(self) -> dict[str, Any]:
        """See `Trainer.config`."""
        return {**super().config(), "unrolled": self.unrolled}

    def extra_state(self) -> dict[str, Any]:
        """alpha and its optimizer."""
        alpha = {label: logits.detach() for label, logits in self.alpha.items()}
        return {"alpha": alpha, "alpha_optimizer": self.alpha_optimizer.state_dict()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take alpha and its optimizer back."""
        with torch.no_grad():
            for label, logits in self.alpha.items():
                logits.copy_(state["alpha"][label])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
