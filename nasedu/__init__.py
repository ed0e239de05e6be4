"""nasedu: neural architecture search, built step by step. An architecture is a matrix; see the notebooks.

    nasedu.data     datasets in memory, batches of them       get_dataset, batches, Augment, ImageDataset
    nasedu.space    what can be searched
        models     CNN, Cell, MacroCNN, your own of LayerChoice and InputChoice; Network, DerivedCell
        matrices   choices, points, edges, uniform_arch, random_arch, check_arch, discretise, describe
        cells      Genotype, PUBLISHED, PRIMITIVES, MACRO_OPS, ENAS_OPS, make_op, register, read; n_parameters
    nasedu.search   how
        trainers   DartsTrainer, EnasTrainer, RandomSearch, StandaloneTrainer; Trainer; fit() -> History
        pieces     hypergrad, Controller, policy_loss, advantages, moving_baseline, reward_accuracy
        measures   accuracy, evaluate, batch_statistics
    nasedu.study    was it worth it                           truth, statistics, studies and recorded runs
    nasedu.show     what draws                                draw_cell, learning_curves, explore
    nasedu.check    self-checks for the exercises             check.mixed_op(mine)

Each room imports only from those above it. Errors are NaseduError: ArchError, GenotypeError and others.
`help(nasedu.CNN)` says more of a name. In short:

    model = CNN(32, 3, 16, 10, 8)
    logits = model(x, arch)
    arch = {"normal": (14, 8) tensor, "reduce": (14, 8) tensor}
    trainer = DartsTrainer(model=model, ...); trainer.fit(); trainer.export(); draw_cell(trainer.genotype())
"""

import importlib
from typing import TYPE_CHECKING, Any

from nasedu.data import Augment, ImageDataset, batches, get_dataset
from nasedu.errors import NaseduError
from nasedu.search import (
    ENAS_OPS,
    Controller,
    DartsTrainer,
    EnasTrainer,
    History,
    RandomSearch,
    StandaloneTrainer,
    Trainer,
    accuracy,
    advantages,
    batch_statistics,
    evaluate,
    hypergrad,
    moving_baseline,
    policy_loss,
    reward_accuracy,
)
from nasedu.space import (
    CNN,
    MACRO_OPS,
    PRIMITIVES,
    PUBLISHED,
    ArchError,
    Cell,
    DerivedCell,
    Genotype,
    GenotypeError,
    InputChoice,
    LayerChoice,
    MacroCNN,
    Network,
    check_arch,
    choices,
    describe,
    discretise,
    edges,
    make_op,
    n_parameters,
    points,
    random_arch,
    read,
    register,
    uniform_arch,
)

if TYPE_CHECKING:
    from nasedu import check, show, study
    from nasedu.show import draw_cell

__version__ = "0.1.0"

ROOMS = ("data", "space", "search", "study", "show", "check")
# Loaded when first touched: drawing needs matplotlib, which takes as long to import as torch.
_LATER = {"study": "", "show": "", "check": "", "draw_cell": "nasedu.show"}


__all__ = [
    "ArchError",
    "Augment",
    "CNN",
    "Cell",
    "Controller",
    "DartsTrainer",
    "DerivedCell",
    "ENAS_OPS",
    "EnasTrainer",
    "Genotype",
    "GenotypeError",
    "History",
    "ImageDataset",
    "InputChoice",
    "LayerChoice",
    "MACRO_OPS",
    "MacroCNN",
    "NaseduError",
    "Network",
    "PRIMITIVES",
    "PUBLISHED",
    "RandomSearch",
    "StandaloneTrainer",
    "Trainer",
    "accuracy",
    "advantages",
    "batch_statistics",
    "batches",
    "check",
    "check_arch",
    "choices",
    "data",
    "describe",
    "discretise",
    "draw_cell",
    "edges",
    "evaluate",
    "get_dataset",
    "hypergrad",
    "make_op",
    "moving_baseline",
    "n_parameters",
    "points",
    "policy_loss",
    "random_arch",
    "read",
    "register",
    "reward_accuracy",
    "search",
    "show",
    "space",
    "study",
    "uniform_arch",
]

_NAMES = [*__all__, "__version__"]
# Editors and type checkers read it. At run time help(nasedu) would print every class in it, 10,000 lines.
del __all__


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'nasedu' has no attribute {name!r}; `help(nasedu)` is a map of it")
    if _LATER[name]:
        return getattr(importlib.import_module(_LATER[name]), name)
    return importlib.import_module(f"nasedu.{name}")


def __dir__() -> list[str]:
    return _NAMES
