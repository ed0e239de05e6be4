"""The end of a search that samples: score several architectures on the same images and keep the best."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from nasedu.data.datasets import seeded
from nasedu.search.base import SearchTrainer
from nasedu.search.evaluation import accuracy, batch_statistics, evaluate
from nasedu.space.choice import ArchError, choices, random_arch
from nasedu.space.derive import describe
from nasedu.space.genotype import Genotype

Reward = Callable[[Tensor, Tensor], float | Tensor]


def reward_accuracy(output: Tensor, target: Tensor) -> float:
    """ENAS's reward: the accuracy of logits (B, C) on labels (B,), from 0 to 1."""
    return accuracy(output, target)["acc1"]


class Candidate(NamedTuple):
    """An architecture and what it scored: "reward", "loss" and the metrics."""

    arch: dict[str, Tensor]
    scores: dict[str, float]


class SamplingSearch(SearchTrainer):
    """What ENAS and random search share: they draw architectures, and at the end keep the best of several.

    `n_candidates` are scored by `reward_function(logits, target)` on the same `candidate_images` images of
    the second half of the dataset. The other arguments are those of `SearchTrainer`. Raises ArchError at
    once if the model has nothing to search or nothing that can be exported.
    """

    def __init__(
        self,
        *common: Any,
        reward_function: Reward = reward_accuracy,
        n_candidates: int = 10,
        candidate_images: int = 2000,
        **options: Any,
    ):
        super().__init__(*common, **options)
        for name, number in (("n_candidates", n_candidates), ("candidate_images", candidate_images)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} must be a whole number from 1 up, got {number!r}")
        if not choices(self.model):
            raise ArchError("the model has nothing to search: build it with LayerChoice or InputChoice")
        describe(self.model, random_arch(self.model, seeded(0)))
        self.reward_function = reward_function
        self.n_candidates, self.candidate_images = n_candidates, candidate_images
        self._candidates: tuple[object, list[Candidate]] = (None, [])

    def propose(self, n: int) -> list[dict[str, Tensor]]:
        """Draw n architectures as the search would now; the same until it goes on."""
        raise NotImplementedError

    def rank(self, archs: Iterable[dict[str, Tensor]]) -> list[Candidate]:
        """Score architectures in the supernet on the same images, by batch statistics; best first."""
        images = self.valid_half.take(range(min(self.candidate_images, len(self.valid_half))))

        def metrics(output: Tensor, target: Tensor) -> dict[str, float]:
            return {**self.metrics(output, target), "reward": float(self.reward_function(output, target))}

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
        """The matrices of the best candidate."""
        return self.candidates()[0].arch

    def genotype(self) -> Genotype:
        """The cells of the best candidate, for models of normal and reduction cells as `CNN`."""
        return Genotype.from_dict(self.export())

    def export(self) -> dict[str, Any]:
        """The best candidate as a dict that `json.dump` takes; see `derive.describe`."""
        return describe(self.model, self.best())
