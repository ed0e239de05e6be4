"""A recipe: what a search or a training from scratch is made of, in one place, checked, and kept in records.

recipe = Recipe(pixels=16, images=5_000, channels=8, layers=3, epochs=4, batch_size=64,
                methods={"DARTS 1st": {"arc_learning_rate": 0.01}})
train, valid, test = recipe.datasets("cifar10")
trainer = recipe.search("DARTS 1st", train, seed=0)       # ready to fit
judge = recipe.training(network, train, valid, seed=0)    # the same for one network, from scratch
"""

import dataclasses
import math
import numbers
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nasedu.data.datasets import Augment, get_dataset
from nasedu.data.images import ImageDataset
from nasedu.errors import NaseduError
from nasedu.search import registry
from nasedu.search.base import arguments
from nasedu.search.early_stop import Eigenvalues
from nasedu.search.relaxation import EdgeShares
from nasedu.search.standalone import StandaloneTrainer, cosine, one_cycle
from nasedu.space import small
from nasedu.space.cells import CNN

Datasets = tuple[ImageDataset, ImageDataset, ImageDataset]
LINE = 88  # characters: as wide as a slide
SCHEDULES = {"cosine": cosine, "one_cycle": one_cycle}


class RecipeError(NaseduError, ValueError):
    """A recipe holds a value that nothing can be done with; the message names it and what is wanted."""


def wrapped(text: str, width: int = LINE) -> list[str]:
    """Cut a text into lines, between words alone."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


@dataclass(frozen=True)
class Recipe:
    """The numbers of a search or a training. The rates of w are those of DARTS (arXiv:1806.09055, 3.1.1).

    Images: squares of `pixels`; of the dataset's training images `pool` are loaded (0: as many as `images`)
    and the first `images` of them used, `valid_images` more are held out, and `test_images` are of its test
    images. `data_seed` chooses them. Networks: `channels` of the first cell, `layers` cells (0: the small
    space's network). Training: `epochs` of `batch_size` by SGD, from `lr` down to `lr_min` (a search), or
    `lr` times the `schedule` (a training from scratch), in `precision`; crops of `crop_padding` pixels.

    `methods` are the searches: names of `search.METHODS`, each with the trainer's arguments that differ from
    the method's own, "epochs" where they are not the recipe's, and "hessian_images" to measure eigenvalues.
    A name of another kind is a variant: it says its "method". `model` are arguments of the supernet (a `CNN`,
    or the small space's).
    """

    pixels: int
    images: int
    channels: int
    layers: int
    epochs: int
    batch_size: int
    pool: int = 0
    valid_images: int = 2_500
    test_images: int = 10_000
    data_seed: int = 0
    lr: float = 0.025
    lr_min: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 3e-4
    schedule: str = "cosine"
    crop_padding: int = 2
    precision: str = "float32"
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every value. Raises RecipeError."""
        least = {"pixels": 8, "images": 2, "channels": 1, "epochs": 1, "batch_size": 1, "test_images": 1}
        for name in (f.name for f in dataclasses.fields(self) if f.type is int):
            value = getattr(self, name)
            whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            if not whole or not least.get(name, 0) <= value < 2**31:
                raise RecipeError(
                    f"{name} is {value!r:.80}; wanted a whole number, {least.get(name, 0)} or more"
                )
        if self.layers in (1, 2):
            raise RecipeError(f"layers is {self.layers}; wanted 3 cells or more, two of them reductions")
        for name in ("lr", "lr_min", "momentum", "weight_decay"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise RecipeError(f"{name} is {value!r:.80}; wanted a number, 0 or more")
        for name, known in (("schedule", tuple(SCHEDULES)), ("precision", ("float32", "float64"))):
            if getattr(self, name) not in known:
                raise RecipeError(f"{name} is {getattr(self, name)!r:.80}; wanted one of {', '.join(known)}")
        if self.pool and self.pool < self.images:
            raise RecipeError(f"pool is {self.pool}; wanted 0, or at least the {self.images} images used")
        for name in ("methods", "model"):
            if not isinstance(getattr(self, name), Mapping):
                raise RecipeError(f"{name} is {getattr(self, name)!r:.80}; wanted names and their arguments")
        for name, own in self.methods.items():
            if not isinstance(own, Mapping) or own.get("method", name) not in tuple(registry.METHODS):
                raise RecipeError(
                    f"method {name!r:.80} is {own!r:.80}; wanted one of {', '.join(registry.METHODS)}, or "
                    'arguments with its "method", one of these'
                )

    def __str__(self) -> str:
        """What it is made of but the methods, as lines of text; what is 0 or empty is left out."""
        given = {key: value for key, value in dataclasses.asdict(self).items() if value and key != "methods"}
        settings = ", ".join(f"{key} {value}" for key, value in given.items())
        return "\n".join(wrapped(settings))

    @classmethod
    def from_dict(cls, data: Any) -> "Recipe":
        """Read what `dataclasses.asdict` gave. Raises RecipeError for a field too many, too few, or odd."""
        names = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(data, Mapping) or set(data) != names:
            got = sorted(data) if isinstance(data, Mapping) else data
            raise RecipeError(f"a recipe wants the fields {sorted(names)}, got {got!r:.400}")
        return cls(**data)

    def datasets(self, name: str) -> Datasets:
        """(train, valid, test) of the dataset `name`, as `get_dataset` knows it; train is the whole pool."""
        pool = self.pool or self.images
        subset = (pool + self.valid_images, self.test_images)
        rest, test = get_dataset(name, subset=subset, seed=self.data_seed, input_size=self.pixels)
        return (*rest.split(pool), test) if self.valid_images else (rest, test, test)

    def epochs_of(self, method: str) -> int:
        """The epochs of this method. Raises RecipeError if the recipe has none of that name."""
        if method not in self.methods:
            raise RecipeError(f"no method {method!r}; there are {', '.join(self.methods)}")
        return int(self.methods[method].get("epochs", self.epochs))

    def supernet(self, method: str, classes: int = 10, in_channels: int = 3) -> nn.Module:
        """What the method searches: a `CNN` or the small space's network, drawn from torch's random state."""
        options = {**self._method(method).model, **self.model}
        if self.layers:
            return CNN(self.pixels, in_channels, self.channels, classes, self.layers, **options)
        return small.SmallCNN(self.channels, classes, in_channels, **options)

    def search(self, method: str, train: ImageDataset, seed: int, **options: Any) -> Any:
        """The trainer of this method, on a fresh supernet and the first `images` of `train`, ready to fit.

        `options` go to it (checkpoint, callbacks, progress, device, ...).
        """
        epochs, kind = self.epochs_of(method), self._method(method)
        own = {**kind.options, **self.methods[method]}
        for name in ("method", "epochs"):
            own.pop(name, None)
        if not self.layers and isinstance(own.get("relaxation"), EdgeShares):
            own["relaxation"] = EdgeShares({"cell": [node for _, node in small.EDGES]})
        if images := own.pop("hessian_images", 0):
            options["callbacks"] = [Eigenvalues(images), *options.get("callbacks", ())]
        torch.manual_seed(seed)
        model = self.supernet(method, len(train.classes), train.images.shape[1])
        train = train.take(range(min(self.images, len(train))))
        augment = Augment(self.crop_padding)
        common = {**arguments(self, model, train, epochs, seed), "augment": augment, "progress": False}
        return kind.trainer(**{**common, **own, **options})

    def _method(self, name: str) -> registry.Method:
        return registry.METHODS[self.methods[name].get("method", name)]

    def training(
        self, network: nn.Module, train: ImageDataset, valid: ImageDataset, seed: int, **options: Any
    ) -> StandaloneTrainer:
        """What trains `network` from scratch on the first `images` of `train`, ready to fit."""
        network = network.to(getattr(torch, self.precision))
        optimizer = torch.optim.SGD(
            network.parameters(), self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )
        common = {
            "schedule": SCHEDULES[self.schedule],
            "augment": Augment(self.crop_padding),
            "seed": seed,
            "progress": False,
        }
        train = train.take(range(min(self.images, len(train))))
        return StandaloneTrainer(
            network, optimizer, self.epochs, train, valid, self.batch_size, **{**common, **options}
        )
