"""DARTS: search by gradient descent on a matrix of weights (Liu, Simonyan, Yang, ICLR 2019,
arXiv:1806.09055).

Algorithm 1 of the paper, one step:

    1. alpha <- alpha - (Adam on the hypergradient of L_val(w', alpha))     hypergrad.first_order or .unrolled
    2. w     <- w - (SGD on grad_w L_train(w, alpha))
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nasedu.data.datasets import batches, seeded
from nasedu.search import hypergrad
from nasedu.search.base import SearchTrainer
from nasedu.search.early_stop import largest_eigenvalue, stop_epoch
from nasedu.search.evaluation import Metrics, batch_statistics, buffers_kept, prefixed
from nasedu.search.relaxation import Relaxation
from nasedu.space.choice import choices


class DartsTrainer(SearchTrainer):
    """Search any model built from `LayerChoice` and `InputChoice` by DARTS. The keyword names are those
    of NNI 2.x.

    `dataset` is cut into two halves, one for w and one for alpha. `optimizer` (SGD) belongs to w; alpha
    has Adam with rate `arc_learning_rate`, betas (0.5, 0.999) and weight decay 1e-3, and starts at 1e-3
    x normal noise. `unrolled` chooses the second-order hypergradient; its step size xi is w's current
    learning rate, or `learning_rate` if given. `grad_clip` bounds the norm of w's gradient (0: no
    bound). `workers` is accepted and unused: there are no worker processes. Keyword-only: `augment`, all
    of `Trainer` (scheduler, seed, checkpoint, callbacks, progress), and the remedies for DARTS's failures:

    - `hessian_images`: after each epoch the largest eigenvalue of the Hessian of L_val in alpha, on so many
      images of alpha's half, goes into the history (0: not measured); with `stop_factor` (RobustDARTS: 1.3)
      the search ends by `hessian.stop_epoch`, and `arch()` is that of the epoch it says.
    - `edge_normalisation` (PC-DARTS): each edge has a logit, too, and its row is multiplied by its share of
      its node; the values are those of `Relaxation`. Partial channels are a property of the model:
      `CNN(..., partial=4)`.
    - `gumbel`=(10.0, 0.1) (GDAS): temperatures of the first and the last epoch. Each step draws one
      operation an edge by `relaxation.gumbel_one_hot`, and only that one is run.

    A line of the history has train_loss, valid_loss (of the batches as they came, before each step), the
    metrics, lr, "arch", the matrices after the epoch, as lists, and "eigenvalue" where it is measured.
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
        hessian_images: int = 0,
        stop_factor: float | None = None,
        edge_normalisation: bool | Mapping[str, Sequence[int]] = False,
        gumbel: tuple[float, float] | None = None,
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
        if stop_factor is not None and hessian_images < 1:
            raise ValueError("stop_factor wants eigenvalues: give hessian_images, the images to measure on")
        if gumbel is not None and not min(gumbel) > 0:
            raise ValueError(f"gumbel wants two temperatures above 0, (first, last), got {gumbel}")
        self.hessian_images, self.stop_factor, self.gumbel = hessian_images, stop_factor, gumbel
        self.relaxation = Relaxation(model, edge_normalisation)
        self.alpha = {
            label: logits.to(self.device).requires_grad_()
            for label, logits in self.relaxation.start(seeded(self.seed, 3)).items()
        }
        self.alpha_optimizer = torch.optim.Adam(
            list(self.alpha.values()), lr=arc_learning_rate, betas=(0.5, 0.999), weight_decay=1e-3
        )

    def weights_of(
        self, alpha: Mapping[str, Tensor], noise: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """alpha -> arch, see `Relaxation.arch`; with `noise` an architecture drawn at this `temperature`."""
        return self.relaxation.arch(alpha, noise, self.temperature)

    @property
    def temperature(self) -> float:
        """GDAS's temperature in this epoch, on a straight line from the first to the last."""
        first, last = self.gumbel or (1.0, 1.0)
        return first + (last - first) * min(self.epoch / max(self.num_epochs - 1, 1), 1.0)

    def _noise(self, epoch: int, step: int, stream: int) -> dict[str, Tensor] | None:
        """The Gumbel noise of this step; None for a search that draws nothing."""
        drawn = self.gumbel is not None
        return self.relaxation.noise(seeded(self.seed, epoch, step, stream)) if drawn else None

    def arch(self) -> dict[str, Tensor]:
        """The matrices now, on the CPU, without gradient; of a stopped search those of `stopped_at()`."""
        if stopped := self.stopped_at():
            lists = self.history.epochs[stopped - 1]["arch"]
            return {label: torch.tensor(matrix) for label, matrix in lists.items()}
        return {label: weights.detach().cpu() for label, weights in self.weights_of(self.alpha).items()}

    def stopped_at(self) -> int | None:
        """The epoch, counted from 1, that early stopping has gone back to; None while the search goes on."""
        if self.stop_factor is None:
            return None
        return stop_epoch([line["eigenvalue"] for line in self.history.epochs], self.stop_factor)

    def finished(self) -> bool:
        """All epochs are done, or the eigenvalue has grown too far."""
        return super().finished() or self.stopped_at() is not None

    def train_step(self, epoch: int, step: int) -> dict[str, float]:
        """One step of algorithm 1: alpha on a validation batch, then w on a training batch."""
        train, valid = self.train_batch(epoch, step), self.valid_batch(epoch, step)
        numbers = self.alpha_step(train, valid, self._noise(epoch, step, 4))
        with torch.no_grad():
            arch = self.weights_of(self.alpha, self._noise(epoch, step, 5))
        return {**self.weight_step(*train, arch), **numbers}

    def alpha_step(
        self,
        train: tuple[Tensor, Tensor],
        valid: tuple[Tensor, Tensor],
        noise: Mapping[str, Tensor] | None = None,
    ) -> dict[str, float]:
        """One step of Adam on alpha. Weights, momentum and batch-norm buffers stay as they are.

        Returns loss and metrics of the validation batch (at the virtual weights w', if `unrolled`).
        """
        self.model.train()
        w = {name: weight.detach() for name, weight in self.model.named_parameters()}
        numbers: dict[str, float] = {}

        def logits(x: Tensor, w: Mapping[str, Tensor], alpha: Mapping[str, Tensor]) -> Tensor:
            return functional_call(self.model, dict(w), (x, self.weights_of(alpha, noise)))

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

    def eigenvalue(self) -> float:
        """The largest eigenvalue of the Hessian of L_val in alpha now, on `hessian_images` images of alpha's
        half, by batch statistics.
        """
        images = self.valid_half.take(range(min(self.hessian_images, len(self.valid_half))))
        x, y = next(batches(images, len(images), device=self.device))
        with batch_statistics(self.model):
            return largest_eigenvalue(
                lambda alpha: self.loss(self.model(x, self.weights_of(alpha)), y), self.alpha
            )

    def end_epoch(self) -> dict[str, Any]:
        """The matrices, for the history, and the eigenvalue if it is asked for."""
        weights = self.weights_of(self.alpha)
        line: dict[str, Any] = {"arch": {label: matrix.tolist() for label, matrix in weights.items()}}
        return {**line, "eigenvalue": self.eigenvalue()} if self.hessian_images else line

    def config(self) -> dict[str, Any]:
        """See `Trainer.config`."""
        remedies = f"{self.hessian_images} {self.stop_factor} {self.relaxation.nodes} {self.gumbel}"
        return {**super().config(), "unrolled": self.unrolled, "remedies": remedies}

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
