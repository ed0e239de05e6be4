"""The end of a search that samples: score several architectures on the same images and keep the best."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from nasedu.evaluation import accuracy, batch_statistics, evaluate
from nasedu.images import ImageDataset
from nasedu.search import SearchTrainer

Reward = Callable[[Tensor, Tensor], float | Tensor]


def reward_accuracy(output: Tensor, target: Tensor) -> float:
    """ENAS's reward: the accuracy of logits (B, C) on labels (B,), from 0 to 1."""
    return accuracy(output, target)["acc1"]


class Candidate(NamedTuple):
    """An architecture and what it scored: "reward", "loss" and the metrics."""

    arch: dict[str, Tensor]
    scores: dict[str, float]


def ranked(
    trainer: SearchTrainer, archs: Sequence[dict[str, Tensor]], reward: Reward, images: ImageDataset
) -> list[Candidate]:
    """Score every architecture in the trainer's supernet on the same images; the best comes first.

    By batch statistics; it changes nothing.
    """

    def metrics(output: Tensor, target: Tensor) -> dict[str, float]:
        return {**trainer.metrics(output, target), "reward": float(reward(output, target))}

    found = []
    with batch_statistics(trainer.model):
        for arch in archs:

            def forward(x: Tensor, arch: Mapping[str, Tensor] = arch) -> Tensor:
                return trainer.model(x, arch)

            size = max(trainer.batch_size, 128)
            scores = evaluate(forward, images, trainer.loss, metrics, size, trainer.device)
            found.append(Candidate(arch, scores))
    return sorted(found, key=lambda candidate: -candidate.scores["reward"])  # of equals the first drawn
