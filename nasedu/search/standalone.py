"""One architecture, trained from scratch: the judge of every search."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nasedu.data.datasets import Augment, Transform, batch_at, seeded
from nasedu.data.images import DatasetError, ImageDataset, InMemory, in_memory
from nasedu.errors import ArgumentError, check_callable, check_number, short
from nasedu.search import fingerprint
from nasedu.search.evaluation import Metrics, accuracy, evaluate, modes_kept, prefixed, told
from nasedu.search.trainer import Trainer
from nasedu.space.choice import Arch
from nasedu.space.network import Network


def cosine(t: float) -> float:
    """The learning rate's factor at progress t in [0, 1]: from 1 to 0 (DARTS's evaluation)."""
    return 0.5 * (1 + math.cos(math.pi * t))


def one_cycle(t: float, warm_up: float = 0.2) -> float:
    """Up in a straight line for the share `warm_up` of the run, then by a cosine to 0 (Smith, 1803.09820)."""
    return max(t, 0.001) / warm_up if t < warm_up else cosine((t - warm_up) / (1 - warm_up))


class StandaloneTrainer(Trainer):
    """Train one architecture from scratch on all of `dataset`, and evaluate it on `valid` after each epoch.

    `model` is called as model(x, arch), or as model(x) if `arch` is None. A model with an auxiliary head
    gives two logits in training; the second loss counts `auxiliary_weight`. `drop_path` is the probability
    at the end of training, reached in a straight line, epoch by epoch (for a `Network`). The learning rate of
    a step is that of `optimizer` at the start times `schedule(t)`, with t from 0 to 1; so there is no
    `scheduler`. `grad_clip` bounds the gradient's norm (0: no bound). The defaults are those of DARTS's
    evaluation (arXiv:1806.09055, section 3.2). The other arguments are `Trainer`'s.

    `compile=True` has torch.compile translate the model (a minute or more, then faster steps on a GPU); a
    string names another backend of it. Searches have no such argument: what a supernet runs changes with
    its arch, and it falls into dozens of graphs, each translated anew.

    A line of the history has train_loss, valid_loss and metrics; those of training are of the batches as they
    came. Raises DatasetError if there is no batch, or no image to evaluate on.
    """

    kind = "standalone"

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        num_epochs: int,
        dataset: InMemory,
        valid: InMemory,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        log_frequency: int | None = None,
        *,
        arch: Arch | None = None,
        schedule: Callable[[float], float] = cosine,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        metrics: Metrics = accuracy,
        augment: Transform | Literal[False] | None = None,
        grad_clip: float = 5.0,
        auxiliary_weight: float = 0.4,
        drop_path: float = 0.0,
        seed: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 100,
        callbacks: Sequence[Callable[[Any], None]] = (),
        progress: bool | None = None,
        precision: str | None = None,
        compile: bool | str = False,
    ):
        super().__init__(
            model, optimizer, num_epochs, batch_size, device, log_frequency, seed=seed, checkpoint=checkpoint,
            checkpoint_every=checkpoint_every, callbacks=callbacks, progress=progress,
            precision=precision,
        )  # fmt: skip
        if not isinstance(compile, bool) and compile not in (known := torch.compiler.list_backends(())):
            raise ArgumentError(
                f"compile is {short(compile)}; wanted True, False, or one of {', '.join(known)}"
            )
        if compile:
            self.model.compile(backend="inductor" if compile is True else compile)
            self.remembered["compile"] = compile  # it rounds otherwise
        dataset, valid = in_memory(dataset), in_memory(valid)
        for name, function in (("loss", loss), ("augment", None if augment is False else augment)):
            check_callable(name, function, or_none=True)
        check_callable("metrics", metrics)
        matrices = arch.values() if isinstance(arch, Mapping) else [arch]
        if arch is not None and not all(isinstance(matrix, Tensor) for matrix in matrices):
            raise ArgumentError(f"arch is {short(arch)}; wanted a dict, label -> matrix, or None")
        check_callable("schedule", schedule)
        check_number("auxiliary_weight", auxiliary_weight, 0)
        check_number("drop_path", drop_path, 0, 1 - 1e-9)
        if len(dataset) < batch_size or not len(valid):
            raise DatasetError(
                f"{len(dataset)} images give no batch of batch_size={batch_size}, or the {len(valid)} "
                "validation images are none; use more images or a smaller batch_size"
            )
        if drop_path > 0 and not isinstance(model, Network):
            raise ValueError(f"drop_path={drop_path}, but a {type(model).__name__} has none; leave it at 0")
        self.dataset, self.valid = dataset.to(self.device), valid.to(self.device)
        # On the CPU, where its zeros are seen without waiting for a GPU.
        self.arch = None if arch is None else {label: m.cpu() for label, m in arch.items()}
        self.schedule, self.loss, self.metrics = schedule, loss or nn.CrossEntropyLoss(), told(metrics)
        if augment is None and isinstance(dataset, ImageDataset):
            augment = Augment()
        self.augment: Transform | None = augment or None
        self.grad_clip = check_number("grad_clip", grad_clip, 0)
        self.auxiliary_weight, self.drop_path = auxiliary_weight, drop_path
        self.lrs = [group["lr"] for group in optimizer.param_groups]
        self.dtype = next(model.parameters()).dtype
        self.steps_per_epoch = len(dataset) // batch_size
        self.remembered |= {
            "arch": fingerprint.described(self.arch),
            "schedule": fingerprint.described(schedule),
            "loss": fingerprint.described(self.loss),
            "metrics": fingerprint.described(metrics),
            "augment": fingerprint.described(self.augment),
            "grad_clip": grad_clip,
            "auxiliary_weight": auxiliary_weight,
            "drop_path": drop_path,
        }

    def _logits(self, x: Tensor) -> Any:
        x = x.to(self.dtype) if x.is_floating_point() else x
        return self.model(x) if self.arch is None else self.model(x, self.arch)

    def sample(self) -> InMemory:
        """All training images."""
        return self.dataset

    def trial(self, x: Tensor) -> Any:
        """Logits, and those of the auxiliary head."""
        return self._logits(x)

    def train_step(self, epoch: int, step: int) -> dict[str, float]:
        """One step of SGD on the next batch of this epoch's permutation."""
        t = (epoch * self.steps_per_epoch + step) / (self.num_epochs * self.steps_per_epoch)
        for group, lr in zip(self.optimizer.param_groups, self.lrs, strict=True):
            group["lr"] = lr * self.schedule(t)
        if isinstance(self.model, Network):
            self.model.drop_path = self.drop_path * epoch / self.num_epochs
        order = torch.randperm(len(self.dataset), generator=seeded(self.seed, epoch))
        chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
        x, y = batch_at(self.dataset, chosen, self.augment, seeded(self.seed, epoch, step), self.device)
        self.model.train()
        logits = self._logits(x)
        if isinstance(logits, tuple):
            logits, auxiliary = logits
            loss = self.loss(logits, y) + self.auxiliary_weight * self.loss(auxiliary, y)
        else:
            loss = self.loss(logits, y)
        norm = self.descend(loss, self.grad_clip)
        measured = prefixed("train", self.metrics(logits.detach(), y))
        return {"train_loss": loss.detach(), **measured, "grad_norm": norm}

    def evaluate(self, dataset: InMemory) -> dict[str, float]:
        """Loss and metrics of the model as it is now, by the running averages of its batch norms.

        It changes nothing: a model in training is in training afterwards.
        """
        with modes_kept(self.model):
            self.model.eval()
            return evaluate(self._logits, dataset, self.loss, self.metrics, device=self.device)

    def end_epoch(self) -> dict[str, Any]:
        """Loss and metrics on `valid`, for the history."""
        return prefixed("valid", self.evaluate(self.valid))

    @cached_property
    def _data(self) -> dict[str, Any]:
        """Tells these data from others; made when a checkpoint first wants it."""
        return {"data": fingerprint.data(self.dataset), "valid": fingerprint.data(self.valid)}

    def config(self) -> dict[str, Any]:
        """See `Trainer.config`; the data must be the same, too."""
        return {**super().config(), **self._data}
