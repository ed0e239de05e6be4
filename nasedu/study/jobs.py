"""The searches of the command line, `make run` and the recorded runs: one setting, two methods.

settings = Settings(input_size=32, channels=8, layers=5, epochs=10, batch_size=64)
trainer = darts(settings, train)          # or enas(settings, train)
trainer.fit()
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from nasedu.data.datasets import ImageDataset
from nasedu.profiles import Profile
from nasedu.search.base import arguments, reward_accuracy
from nasedu.search.darts import DartsTrainer
from nasedu.search.enas import EnasTrainer
from nasedu.space.network import CNN


@dataclass(frozen=True)
class Settings:
    """The sizes of a search. The rates of w are those of DARTS (arXiv:1806.09055, section 3.1.1).

    The architecture's rates are larger than the papers' (3e-4 for DARTS's alpha, 3.5e-3 for ENAS's controller
    with 30 updates an epoch over 150 epochs): a short search has some hundred steps, not some ten thousand.
    """

    input_size: int
    channels: int
    layers: int
    epochs: int
    batch_size: int
    seed: int = 0
    lr: float = 0.025
    lr_min: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    alpha_lr: float = 3e-3
    unrolled: bool = False
    ctrl_lr: float = 3.5e-3
    ctrl_steps: int = 10
    ctrl_samples: int = 10

    @classmethod
    def of(cls, profile: Profile, seed: int = 0) -> "Settings":
        """The sizes that `make run` takes on this kind of machine."""
        return cls(
            input_size=profile.image_size,
            channels=profile.channels,
            layers=profile.layers,
            epochs=profile.run_epochs,
            batch_size=profile.batch_size,
            seed=seed,
            alpha_lr=0.02,  # some 150 steps, and the matrix should be seen to lean
        )

    def as_dict(self, method: str) -> dict[str, Any]:
        """The settings that count for this method, by name."""
        others = ("ctrl_lr", "ctrl_steps", "ctrl_samples") if method == "DARTS" else ("alpha_lr", "unrolled")
        return {name: value for name, value in asdict(self).items() if name not in others}


def _common(settings: Settings, train: ImageDataset) -> dict[str, Any]:
    """What both trainers are given: the supernet, seeded, its optimizer and schedule, images, sizes."""
    torch.manual_seed(settings.seed)
    in_channels = train.images.shape[1]
    model = CNN(settings.input_size, in_channels, settings.channels, len(train.classes), settings.layers)
    return arguments(settings, model, train, settings.epochs, settings.seed)


def darts(settings: Settings, train: ImageDataset, **options: Any) -> DartsTrainer:
    """A DARTS search; `options` go to `DartsTrainer` (checkpoint, callbacks, progress, device, ...)."""
    return DartsTrainer(
        **_common(settings, train),
        arc_learning_rate=settings.alpha_lr,
        unrolled=settings.unrolled,
        **options,
    )


def enas(settings: Settings, train: ImageDataset, **options: Any) -> EnasTrainer:
    """An ENAS search of the same supernet on the same images; `options` go to `EnasTrainer`."""
    return EnasTrainer(
        **_common(settings, train),
        reward_function=reward_accuracy,
        ctrl_lr=settings.ctrl_lr,
        ctrl_steps=settings.ctrl_steps,
        ctrl_steps_aggregate=settings.ctrl_samples,
        **options,
    )
