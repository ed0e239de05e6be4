"""The methods of search by name: from here the command line, the studies and `make run` know them.

    METHODS["PC-DARTS"]                                  what it is, and what makes it differ
    model = CNN(32, 3, 16, 10, 8, **METHODS["PC-DARTS"].model)
    trainer = build("PC-DARTS", model=model, loss=..., optimizer=..., num_epochs=..., dataset=...)

A new method is a file with its trainer, and one entry here: `METHODS[name] = Method(MyTrainer, "...")`. A
trainer is a `SearchTrainer`: `fit() -> History`, `arch()`, `best()`, `export()`, `genotype()`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nasedu.search.base import SearchTrainer, reward_accuracy
from nasedu.search.darts import DartsTrainer
from nasedu.search.enas import EnasTrainer
from nasedu.search.random_search import RandomSearch
from nasedu.search.relaxation import EdgeShares, Gumbel


@dataclass(frozen=True)
class Method:
    """A way to search: `trainer(**arguments, **options)` on a supernet that was made with `model`, too.

    `about` says in a sentence or two what it does; `options` are the trainer's own arguments that make it
    this method, `model` those of the supernet (`CNN`, `SmallCNN`).
    """

    trainer: Callable[..., SearchTrainer]
    about: str
    options: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    def takes(self) -> frozenset[str]:
        """The names of all arguments of its trainer."""
        return frozenset(inspect.signature(self.trainer).parameters)


METHODS: dict[str, Method] = {
    "DARTS 1st": Method(
        DartsTrainer,
        "All operations at once, mixed by a softmax; the mixture is trained by gradient descent on held-out "
        "images. Of each node the two strongest edges are kept.",
    ),
    "DARTS 2nd": Method(
        DartsTrainer,
        "As DARTS 1st; the gradient of the mixture counts how one step of the weights would answer to it.",
        {"unrolled": True},
    ),
    "PC-DARTS": Method(
        DartsTrainer,
        "As DARTS 1st, with a quarter of the channels through the operations and a share for each edge.",
        {"relaxation": EdgeShares()},
        {"partial": 4},
    ),
    "GDAS": Method(
        DartsTrainer,
        "As DARTS 1st, but each step draws one operation an edge, and only that one is run.",
        {"relaxation": Gumbel(10.0, 0.1)},
    ),
    "ENAS": Method(
        EnasTrainer,
        "A controller, an LSTM, writes one architecture after another; the accuracy of each on held-out "
        "images is its reward. Of its last samples the best is kept.",
        {"reward_function": reward_accuracy},
    ),
    "random": Method(
        RandomSearch,
        "Each batch trains the weights of an architecture drawn blindly. Of some more, scored with these "
        "weights, the best is kept.",
    ),
}


def build(name: str, rates: Mapping[str, Any] | None = None, **arguments: Any) -> SearchTrainer:
    """The trainer of this method, ready to fit.

    All of `arguments` go to it, and of `rates` those that it takes: so one mapping can hold DARTS's
    `arc_learning_rate`, ENAS's `ctrl_lr` and random search's `n_candidates`. An argument overrules a rate,
    and both overrule the method's own options. Raises ValueError for a name that is not in `METHODS`.
    """
    if name not in METHODS:
        raise ValueError(f"no method {name!r}; there are {', '.join(METHODS)}")
    method = METHODS[name]
    taken = {key: value for key, value in (rates or {}).items() if key in method.takes()}
    return method.trainer(**{**method.options, **taken, **arguments})
