"""What is new is one class and no edit elsewhere: SNAS's concrete samples, and P-DARTS's masks."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
import torch
from killing import assert_same, stopped_and_resumed
from models import small_darts

from nasedu import DartsTrainer, LayerChoice
from nasedu.search import Softmax, gumbel
from nasedu.space import Sampled


@dataclass
class Concrete(Softmax):
    """SNAS: each step runs all operations, mixed by a sample from the concrete distribution.

    Xie, Zheng, Liu, Lin, ICLR 2019, arXiv:1812.09926, eq. 4. The temperature falls from `first` to `last`.
    """

    first: float = 2.0
    last: float = 0.1

    def draw(self, alpha, progress, generator):
        """softmax((log softmax(alpha) + Gumbel noise) / temperature), row by row."""
        temperature = self.first + (self.last - self.first) * progress
        return {
            label: (
                (logits.log_softmax(-1) + gumbel(logits.shape, generator).to(logits)) / temperature
            ).softmax(-1)
            for label, logits in alpha.items()
        }


@dataclass
class Fewer(Softmax):
    """P-DARTS: after epoch e only the `keep[e]` strongest operations of each edge are left; no other is run.

    Chen, Xie, Wu, Tian, ICCV 2019, arXiv:1904.12760, section 3.2. It is its own callback, and what it has
    left out is in the checkpoints.
    """

    keep: dict[int, int] = field(default_factory=dict)

    def arch(self, alpha):
        """Softmaxes over what is left."""
        masked = {
            k: a.masked_fill(self.state[k], -torch.inf) if k in self.state else a for k, a in alpha.items()
        }
        return Sampled(super().arch(masked))

    @staticmethod
    def after_an_epoch(trainer):
        """Leave out the weakest, if it is time."""
        mine = trainer.relaxation
        if n := mine.keep.get(trainer.epoch):
            weights = mine.arch(trainer.alpha).items()
            mine.state = {k: w < w.topk(n, dim=-1).values[:, -1:] for k, w in weights}


def search(relaxation, checkpoint=None, **options) -> DartsTrainer:
    given = {"relaxation": relaxation, "checkpoint": checkpoint, **options}
    return small_darts(4, 64, num_epochs=4, arc_learning_rate=0.05, **given)


def operations_run(trainer) -> list[Counter]:
    """A counter for each forward pass: how often each operation was run."""
    passes: list[Counter] = []
    trainer.model.register_forward_pre_hook(lambda *_: passes.append(Counter()))
    for point in trainer.model.modules():
        if isinstance(point, LayerChoice):
            for name, layer in point.layers.items():
                layer.register_forward_hook(lambda *_, name=name: passes[-1].update([name]))
    return passes


@pytest.mark.parametrize("unrolled", [False, True])
def test_snas_is_one_class(unrolled):
    trainer = search(Concrete(2.0, 0.1), unrolled=unrolled)
    given = []
    trainer.model.register_forward_pre_hook(lambda _, args: given.append(args[1]["cell"].detach()))
    trainer.fit()
    _, *given = given  # before the first step the trainer tries a forward pass
    first, last = given[0], given[-1]
    torch.testing.assert_close(first.sum(1), torch.ones(3))
    assert last.amax(1).mean() > first.amax(1).mean() and (first > 0).all()  # colder: nearer to one operation
    steps = 4 * 4
    assert len(given) == steps * (5 if unrolled else 2)
    # All passes of one hypergradient see one sample of noise: two of alpha's rows differ by alpha alone.
    assert torch.equal(
        trainer.drawing(0, 1, 4)(trainer.alpha)["cell"], trainer.drawing(0, 1, 4)(trainer.alpha)["cell"]
    )
    assert not torch.equal(
        trainer.drawing(0, 1, 4)(trainer.alpha)["cell"], trainer.drawing(0, 2, 4)(trainer.alpha)["cell"]
    )
    torch.testing.assert_close(trainer.arch()["cell"], trainer.alpha["cell"].detach().softmax(1))
    assert len(trainer.export()["cell"]) == 3
    again = search(Concrete(2.0, 0.1), unrolled=unrolled)
    again.fit()
    assert again.history == trainer.history


def test_pdarts_masks_are_one_class():
    trainer = search(Fewer({1: 3, 3: 1}), callbacks=[Fewer.after_an_epoch])
    passes = operations_run(trainer)
    trainer.fit()
    _, *passes = passes  # before the first step the trainer tries a forward pass
    per_epoch = len(passes) // 4
    for epoch, left in enumerate([5, 3, 3, 1]):
        arch = torch.tensor(trainer.history.epochs[epoch]["arch"]["cell"])
        assert (arch > 0).sum(1).tolist() == [left] * 3
        torch.testing.assert_close(arch.sum(1), torch.ones(3))
        ran = sum(sum(p.values()) for p in passes[epoch * per_epoch : (epoch + 1) * per_epoch]) / per_epoch
        nones = 0.0 if epoch == 0 else (arch[:, 0] > 0).sum().item()  # "none" is in no forward pass
        assert ran == 3 * 3 * (left if epoch else left - 1) - 3 * nones  # 3 cells of 3 edges
    one = trainer.best()["cell"]
    assert torch.equal(one, torch.tensor(trainer.history.epochs[-1]["arch"]["cell"]))


def test_masks_are_in_the_checkpoint(tmp_path):
    def make(checkpoint=None):
        return search(Fewer({1: 3, 3: 1}), checkpoint, callbacks=[Fewer.after_an_epoch], checkpoint_every=1)

    assert_same(*stopped_and_resumed(make, tmp_path, [10]))
