"""Honest comparisons: random search in the same supernet, with the same loop and the same export."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nasedu.candidates import SamplingSearch
from nasedu.choice import random_arch
from nasedu.data import seeded
from nasedu.evaluation import Metrics


class RandomSearch(SamplingSearch):
    """Random search with weight sharing, for any model built from `LayerChoice` and `InputChoice`.

    Each training batch trains the weights of one architecture drawn uniformly (`random_arch`); at the end
    `n_candidates` more are drawn, scored on the same images, and the best is exported. Li, Talwalkar, UAI
    2019, arXiv:1902.07638, section 3. The arguments are those of `EnasTrainer`, less what belongs to a
    controller; keyword-only: `reward_function`, `n_candidates`, `candidate_images` (see `SamplingSearch`),
    `augment` and all of `Trainer`. A line of the history has train_loss, metrics and lr.
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
        n_candidates: int = 20,
        **options: Any,
    ):
        common = (model, loss, metrics, optimizer, num_epochs, dataset)
        options = {"n_candidates": n_candidates, **options}
        super().__init__(*common, batch_size, device, log_frequency, grad_clip, **options)
        self.steps_per_epoch = self.batches_per_half

    def train_step(self, epoch: int, step: int) -> dict[str, float]:
        """One step on the weights of one architecture drawn uniformly."""
        arch = random_arch(self.model, seeded(self.seed, epoch, 0, step, 4))
        return self.weight_step(*self.train_batch(epoch, step), arch)

    def propose(self, n: int) -> list[dict[str, Tensor]]:
        """Draw n architectures uniformly, the same each time."""
        generator = seeded(self.seed, 4)
        return [random_arch(self.model, generator) for _ in range(n)]
