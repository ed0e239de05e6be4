"""What every search shares: a supernet, and the training images in two halves, one for w, one for alpha."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from nasedu.data.datasets import Augment, Batches, Transform, seeded
from nasedu.data.images import DatasetError, ImageDataset, InMemory, in_memory
from nasedu.errors import check_callable, check_number, check_whole
from nasedu.search import fingerprint
from nasedu.search.evaluation import Metrics, accuracy, batch_statistics, evaluate, prefixed, told
from nasedu.search.trainer import Trainer
from nasedu.space.choice import ArchError, choices, random_arch
from nasedu.space.derive import cells, describe, discretise
from nasedu.space.genotype import Genotype, read_cell

Reward = Callable[[Tensor, Tensor], float | Tensor]


def reward_accuracy(output: Tensor, target: Tensor) -> Any:
    """ENAS's reward: the accuracy of logits (B, C) on labels (B,), from 0 to 1; as `accuracy` gives it."""
    return accuracy(output, target)["acc1"]


class SearchTrainer(Trainer):
    """What DARTS, ENAS and random search share: a supernet, the training data cut in two halves, one for the
    weights and one for the architecture, batches drawn by number, and the same questions at the end.

    `model(x, arch)` is the supernet; `loss(logits, y)` and `metrics(logits, y)` judge a batch. `dataset` is
    an `ImageDataset`, an `InMemory`, or any dataset of (image or tensor, label), read once into memory.
    `augment` is applied to the batches of both halves (DARTS, section 3.1): None crops and flips images and
    leaves other data alone, False leaves all alone. `valid_share` of the data train the architecture: a half
    (DARTS), or less (ENAS as released: a tenth). `grad_clip` bounds the norm of w's gradient (0: no bound).
    `workers`, which NNI's trainers have, is accepted and unused: there are no worker processes. A callback
    that is a dataclass says by its fields what must be the same when a checkpoint is resumed. The other
    arguments are `Trainer`'s. Raises DatasetError if a half holds no batch.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        metrics: Metrics,
        optimizer: torch.optim.Optimizer,
        num_epochs: int,
        dataset: Any,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        log_frequency: int | None = None,
        grad_clip: float = 5.0,
        *,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        augment: Transform | Literal[False] | None = None,
        valid_share: float = 0.5,
        seed: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 100,
        callbacks: Sequence[Callable[[Any], None]] = (),
        progress: bool | None = None,
        precision: str | None = None,
    ):
        super().__init__(
            model, optimizer, num_epochs, batch_size, device, log_frequency, scheduler=scheduler, seed=seed,
            checkpoint=checkpoint, checkpoint_every=checkpoint_every, callbacks=callbacks, progress=progress,
            precision=precision,
        )  # fmt: skip
        self.loss, self.metrics = loss, told(metrics)
        self.grad_clip = check_number("grad_clip", grad_clip, 0)
        check_callable("loss", loss)
        check_callable("metrics", metrics)
        check_callable("augment", None if augment is False else augment, or_none=True)
        data = in_memory(dataset)
        valid_share = check_number("valid_share", valid_share, 1e-9, 1 - 1e-9)
        half = len(data) - round(valid_share * len(data) + 1e-9)  # of an odd number the smaller half
        if min(half, len(data) - half) < batch_size:
            raise DatasetError(
                f"{len(data)} items give parts of {half} and {len(data) - half}, one less than a batch "
                f"of {batch_size}; use more data or a smaller batch_size"
            )
        order = torch.randperm(len(data), generator=seeded(seed))
        self.train_half = data.take(order[:half]).to(self.device)
        self.valid_half = data.take(order[half:]).to(self.device)
        if augment is None and isinstance(data, ImageDataset):
            augment = Augment()
        self.augment: Transform | None = augment or None
        # Batch `number` of an epoch, from the half that trains the weights, and from the other: x, y.
        self.train_batch = Batches(self.train_half, batch_size, self.augment, seed, 1, self.device)
        self.valid_batch = Batches(self.valid_half, batch_size, self.augment, seed, 2, self.device)
        self.steps_per_epoch = half // batch_size  # a batch of the weights' half each
        settings = [repr(callback) for callback in self.callbacks if is_dataclass(callback)]
        self.remembered |= {
            "loss": fingerprint.described(loss),
            "metrics": fingerprint.described(metrics),
            "augment": fingerprint.described(self.augment),
            "grad_clip": grad_clip,
            "valid_share": valid_share,
            "choices": {label: list(shape) for label, shape in choices(self.model).items()},
            "callbacks": settings,
        }

    @cached_property
    def _data(self) -> dict[str, Any]:
        """Tells these data from others; made when a checkpoint first wants it."""
        return fingerprint.data(self.train_half, self.valid_half)

    def config(self) -> dict[str, Any]:
        """See `Trainer.config`; the data must be the same, too."""
        return {**super().config(), "data": self._data}

    def sample(self) -> InMemory:
        """The half of the weights."""
        return self.train_half

    def trial(self, x: Tensor) -> Any:
        """Logits of one architecture."""
        return self.model(x, random_arch(self.model, seeded(0)))

    def weight_step(self, x: Tensor, y: Tensor, arch: Mapping[str, Tensor]) -> dict[str, Any]:
        """One step of the optimizer on the weights, with `arch` held fixed; loss and metrics of the batch."""
        self.model.train()
        logits = self.model(x, arch)
        loss = self.loss(logits, y)
        norm = self.descend(loss, self.grad_clip)
        measured = prefixed("train", self.metrics(logits.detach(), y))
        return {"train_loss": loss.detach(), **measured, "grad_norm": norm}

    def stop(self, back_to: int | None = None) -> None:
        """End the search with this epoch, as a callback may; it goes back to epoch `back_to` (from 1)."""
        self.history.epochs[-1]["stopped_at"] = back_to or self.epoch

    def stopped_at(self) -> int | None:
        """The epoch, counted from 1, that a stopped search has gone back to; None while it goes on."""
        return self.history.epochs[-1].get("stopped_at") if self.history.epochs else None

    def finished(self) -> bool:
        """All epochs are done, or a callback has stopped the search."""
        return super().finished() or self.stopped_at() is not None

    def score(self, arch: Mapping[str, Tensor], dataset: InMemory | None = None) -> dict[str, float]:
        """Loss and metrics of one architecture in the supernet, on the architecture half or `dataset`.

        By batch statistics; it changes nothing.
        """
        images = self.valid_half if dataset is None else dataset
        with batch_statistics(self.model):
            return evaluate(
                lambda x: self.model(x, arch),
                images,
                self.loss,
                self.metrics,
                max(self.batch_size, 128),
                self.device,
            )

    # What the search has found: the same four questions for every method.

    def arch(self) -> dict[str, Tensor]:
        """The matrices as the search weighs them now, on the CPU, without gradient."""
        raise NotImplementedError

    def best(self) -> dict[str, Tensor]:
        """The architecture that it would decide for now, as matrices of zeros and ones (counts in a cell).

        Raises DivergedError for a search that has come to nothing: what it would decide for means nothing.
        """
        self.check_sound()
        return discretise(self.model, self.arch())

    def export(self) -> dict[str, Any]:
        """The same as a dict that `json.dump` takes; see `derive.describe`."""
        return describe(self.model, self.best())

    def genotype(self) -> Genotype:
        """Its cells. Raises ArchError for a model that has none."""
        ops = cells(self.model)
        if not ops:
            raise ArchError(
                f"the model has no cells, only {sorted(choices(self.model))}: see best(), export()"
            )
        best = self.best()
        return Genotype.of({label: read_cell(best, label, ops) for label in ops})


class Candidate(NamedTuple):
    """An architecture and what it scored: "reward", "loss" and the metrics."""

    arch: dict[str, Tensor]
    scores: dict[str, float]


class SamplingSearch(SearchTrainer):
    """What ENAS and random search share: they draw architectures, and at the end keep the best of several.

    `n_candidates` are scored by `reward_function(logits, target)` on the same `candidate_images` images of
    the second half of the dataset.
    """

    def judge_by(self, reward_function: Reward, n_candidates: int, candidate_images: int) -> None:
        """Say how candidates are scored: to be called by `__init__`.

        Raises ArchError at once if the model has nothing to search or nothing that can be exported.
        """
        n_candidates = check_whole("n_candidates", n_candidates, 1)
        candidate_images = check_whole("candidate_images", candidate_images, 1)
        check_callable("reward_function", reward_function)
        if not choices(self.model):
            raise ArchError("the model has nothing to search: build it with LayerChoice or InputChoice")
        describe(self.model, random_arch(self.model, seeded(0)))
        self.reward_function = reward_function
        self.n_candidates, self.candidate_images = n_candidates, candidate_images
        self.remembered["reward_function"] = fingerprint.described(reward_function)
        self._candidates: tuple[object, list[Candidate]] = (None, [])

    def propose(self, n: int) -> list[dict[str, Tensor]]:
        """Draw n architectures as the search would now; the same until it goes on."""
        raise NotImplementedError

    def rank(self, archs: Iterable[dict[str, Tensor]]) -> list[Candidate]:
        """Score architectures in the supernet on the same images, by batch statistics; best first."""
        images = self.valid_half.take(range(min(self.candidate_images, len(self.valid_half))))

        def metrics(output: Tensor, target: Tensor) -> dict[str, Any]:
            return {**self.metrics(output, target), "reward": self.reward_function(output, target)}

        def score(arch: dict[str, Tensor]) -> Candidate:
            size = max(self.batch_size, 128)
            scores = evaluate(lambda x: self.model(x, arch), images, self.loss, metrics, size, self.device)
            return Candidate(arch, scores)

        with batch_statistics(self.model):
            return sorted(map(score, archs), key=lambda candidate: -candidate.scores["reward"])

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Forget the candidates of before the load."""
        self._candidates = (None, [])

    def candidates(self) -> list[Candidate]:
        """`n_candidates` proposals with their scores, best first; kept until the search goes on."""
        now = (self.epoch, self.step, self.n_candidates)
        if self._candidates[0] != now:
            self._candidates = now, self.rank(self.propose(self.n_candidates))
        return self._candidates[1]

    def best(self) -> dict[str, Tensor]:
        """The matrices of the best candidate. Raises DivergedError, see `SearchTrainer.best`."""
        self.check_sound()
        return self.candidates()[0].arch


def arguments(
    recipe: Any, model: nn.Module, train: ImageDataset, num_epochs: int, seed: int
) -> dict[str, Any]:
    """What every search of the course gives its trainer: cross-entropy, accuracy, and SGD with a cosine.

    `recipe` has lr, lr_min, momentum, weight_decay and batch_size, as `nasedu.study.Recipe`.
    """
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    return {
        "model": model,
        "loss": nn.CrossEntropyLoss(),
        "metrics": accuracy,
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_epochs, recipe.lr_min),
        "num_epochs": num_epochs,
        "dataset": train,
        "batch_size": recipe.batch_size,
        "seed": seed,
    }


def gap_callback(valid: ImageDataset) -> Callable[[SearchTrainer], None]:
    """A callback that writes, after each epoch, two accuracies on `valid` into the history.

    "supernet_acc1" is the supernet's with the epoch's matrix, "derived_acc1" its accuracy when cut down to
    the derived architecture, with the same weights: their difference is the discretisation gap.
    """

    def measure(trainer: SearchTrainer) -> None:
        line = trainer.history.epochs[-1]
        arch = {label: torch.tensor(matrix) for label, matrix in line["arch"].items()}
        line["supernet_acc1"] = trainer.score(arch, valid)["acc1"]
        line["derived_acc1"] = trainer.score(discretise(trainer.model, arch), valid)["acc1"]

    return measure
