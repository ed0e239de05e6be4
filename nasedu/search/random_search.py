"""Honest comparisons: random search, in the same supernet or without one, with the same loop and export."""

import os
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nasedu.data.datasets import Transform, seeded
from nasedu.errors import check_callable
from nasedu.search.base import Candidate, Reward, SamplingSearch, reward_accuracy
from nasedu.search.evaluation import Metrics
from nasedu.search.fingerprint import described
from nasedu.search.standalone import cosine
from nasedu.space.choice import random_arch


class RandomSearch(SamplingSearch):
    """Random search, for any model built from `LayerChoice` and `InputChoice`.

    With weight sharing each training batch trains the weights of one architecture drawn uniformly
    (`random_arch`); at the end `n_candidates` more are drawn, scored on the same images, and the best is
    exported. Li, Talwalkar, UAI 2019, arXiv:1902.07638, section 3.

    With `weight_sharing=False` the same `n_candidates` share the same number of steps, a step more or less,
    and each is trained alone: from the weights that `model` and `optimizer` came with, on the same batches,
    the learning rate going once through `schedule` (from 1 to 0, as `StandaloneTrainer`'s, in place of a
    scheduler). Each is scored as its training ends, like the others; the last one's weights stay in `model`.

    `reward_function`, `n_candidates`, `candidate_images`: see `SamplingSearch`; everything else: see
    `SearchTrainer`. A line of the history has train_loss, metrics and lr. Raises ValueError if there are more
    candidates than steps, or both a scheduler and training alone.
    """

    kind = "random search"

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        metrics: Metrics,
        optimizer: torch.optim.Optimizer,
        num_epochs: int,
        dataset: Any,
        batch_size: int = 64,
        workers: int = 4,
        device: torch.device | str | None = None,
        log_frequency: int | None = None,
        grad_clip: float = 5.0,
        *,
        reward_function: Reward = reward_accuracy,
        n_candidates: int = 20,
        candidate_images: int = 2000,
        weight_sharing: bool = True,
        schedule: Callable[[float], float] = cosine,
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
            model, loss, metrics, optimizer, num_epochs, dataset, batch_size, device, log_frequency,
            grad_clip, scheduler=scheduler, augment=augment, valid_share=valid_share, seed=seed,
            checkpoint=checkpoint, checkpoint_every=checkpoint_every, callbacks=callbacks, progress=progress,
            precision=precision,
        )  # fmt: skip
        self.judge_by(reward_function, n_candidates, candidate_images)
        check_callable("schedule", schedule, or_none=True)
        self.weight_sharing, self.schedule = weight_sharing, schedule
        if not weight_sharing:
            self._prepare_training_alone()

    def train_step(self, epoch: int, step: int) -> dict[str, float]:
        """One step on the weights of one architecture: drawn uniformly, or the candidate whose turn it is."""
        if not self.weight_sharing:
            return self.step_alone(epoch * self.steps_per_epoch + step)
        arch = random_arch(self.model, seeded(self.seed, epoch, 0, step, 4))
        return self.weight_step(*self.train_batch(epoch, step), arch)

    def propose(self, n: int) -> list[dict[str, Tensor]]:
        """Draw n architectures uniformly, the same each time."""
        generator = seeded(self.seed, 4)
        return [random_arch(self.model, generator) for _ in range(n)]

    def arch(self, n: int = 100) -> dict[str, Tensor]:
        """The mean matrices of n draws: the distribution that is searched, the same from start to end."""
        drawn = self.propose(n)
        return {label: torch.stack([arch[label] for arch in drawn]).mean(dim=0) for label in drawn[0]}

    # Without weight sharing.

    def _prepare_training_alone(self) -> None:
        if self.scheduler is not None:
            raise ValueError(
                "without weight sharing each candidate goes through a schedule of its own, which would "
                "overrule the scheduler; give schedule=cosine, one_cycle or a function of your own"
            )
        n, steps = self.n_candidates, self.num_epochs * self.steps_per_epoch
        if n > steps:
            raise ValueError(
                f"{n} candidates, but only {steps} steps to train them: use fewer, or more epochs"
            )
        self.starts = [i * steps // n for i in range(n + 1)]  # the first step of each, and the end
        self.archs = self.propose(n)
        self.fresh = {
            "model": deepcopy(dict(self.model.state_dict())),
            "optimizer": deepcopy(self.optimizer.state_dict()),
        }
        self.trained: list[Candidate] = []
        self.remembered["candidates alone"] = [n, self.candidate_images, described(self.schedule)]

    def step_alone(self, number: int) -> dict[str, float]:
        """Step `number` of the whole search; the first of a candidate starts it, the last scores it."""
        i = bisect_right(self.starts, number) - 1
        start, end = self.starts[i], self.starts[i + 1]
        if number == start:
            self.model.load_state_dict(self.fresh["model"])
            # It keeps the tensors that it is given, so it gets its own.
            self.optimizer.load_state_dict(deepcopy(self.fresh["optimizer"]))
        first = self.fresh["optimizer"]["param_groups"]
        for group, fresh in zip(self.optimizer.param_groups, first, strict=True):
            group["lr"] = fresh["lr"] * self.schedule((number - start) / (end - start))
        numbers = self.weight_step(*self.train_batch(0, number - start), self.archs[i])
        if number == end - 1:
            self.trained += self.rank([self.archs[i]])
        return numbers

    def candidates(self) -> list[Candidate]:
        """The candidates with their scores, best first: those that are trained, if they are trained alone."""
        if self.weight_sharing:
            return super().candidates()
        if not self.trained:
            raise RuntimeError("no candidate is trained yet: call fit() first")
        return sorted(self.trained, key=lambda candidate: -candidate.scores["reward"])

    def extra_state(self) -> dict[str, Any]:
        """Without weight sharing: the weights that each candidate starts from, and those trained."""
        if self.weight_sharing:
            return super().extra_state()
        return {"fresh": self.fresh, "trained": [candidate._asdict() for candidate in self.trained]}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        super().load_extra_state(state)
        if not self.weight_sharing:
            self.fresh = state["fresh"]
            self.trained = [Candidate(**candidate) for candidate in state["trained"]]
