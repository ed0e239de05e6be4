"""What a controller decides: the parts that a model leaves open, and what is written into them.

CellPart      a cell: for each node two inputs, then two operations
LayerPart     a `LayerChoice` that stands alone: one draw
InputPart     an `InputChoice`: `n_chosen` draws, or a coin for each input where their number is open

`parts_of(model)` lists them in the order in which a controller writes them; a `Writer` holds what n samples
have written so far; a `Sample` is what comes of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from nasedu.space.choice import ArchError, InputChoice, LayerChoice, points
from nasedu.space.derive import cells
from nasedu.space.genotype import edges

Shapes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class CellPart:
    """A cell of `n_nodes` nodes whose edges all have the candidates `names`."""

    label: str
    n_nodes: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class LayerPart:
    """Row `row` of `label`: one of `names`."""

    label: str
    row: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class InputPart:
    """Row `row` of `label`: `n_chosen` of `n_candidates` inputs, or any of them (None)."""

    label: str
    row: int
    n_candidates: int
    n_chosen: int | None


Part = CellPart | LayerPart | InputPart


def parts_of(model: nn.Module) -> list[Part]:
    """Everything a model leaves open, in the order in which its decision points were made.

    Raises ArchError if there is nothing to decide, or if the rows of a cell are not `genotype.edges`.
    """
    found, ops = points(model), cells(model)
    parts: list[Part] = []
    seen = set()
    for point in model.modules():
        if not isinstance(point, LayerChoice | InputChoice):
            continue
        row = 0 if point.label in ops else point.row  # a cell is written whole
        if (point.label, row) in seen:
            continue
        seen.add((point.label, row))
        if point.label in ops:
            last = found[point.label][-1]
            n_nodes = cast(LayerChoice, last).node or 0
            parts.append(CellPart(point.label, n_nodes - 1, ops[point.label]))
        elif isinstance(point, InputChoice):
            parts.append(InputPart(point.label, point.row, point.n_candidates, point.n_chosen))
        else:
            parts.append(LayerPart(point.label, point.row, point.names))
    if not parts:
        raise ArchError("the model has nothing to search: build it with LayerChoice or InputChoice")
    return parts


def shapes_of(parts: Sequence[Part]) -> dict[str, tuple[int, int]]:
    """The matrices that these parts fill, label -> (rows, columns)."""
    shapes: dict[str, tuple[int, int]] = {}
    for part in parts:
        if isinstance(part, CellPart):
            shapes[part.label] = (len(edges(part.n_nodes)), len(part.names))
        else:
            columns = part.n_candidates if isinstance(part, InputPart) else len(part.names)
            shapes[part.label] = (max(part.row + 1, shapes.get(part.label, (0, 0))[0]), columns)
    return shapes


@dataclass(frozen=True)
class Step:
    """One decision of n samples: the options, their probabilities (n, options), the choice (n,)."""

    name: str
    options: tuple[str, ...]
    probabilities: Tensor
    choice: Tensor
    log_prob: Tensor
    entropy: Tensor


@dataclass(frozen=True)
class Sample:
    """n architectures that a controller wrote; `sample[i]` is number i, ready for `model(x, arch)`.

    arch            label -> (n, rows, columns), counts: a cell's node sums to 2, an edge drawn twice with one
                    operation has 2
    decisions       (n, T) int64, the choices, step after step
    log_prob        (n,) of the sequence: the sum of the steps' log-probabilities
    entropy         (n,) in nats: the sum of the entropies of the distributions along the path that was taken.
                    Its mean over samples is the entropy of the whole distribution over sequences
    skip_penalty    (n,), see `Controller`
    steps           every decision with all its probabilities
    """

    arch: dict[str, Tensor]
    decisions: Tensor
    log_prob: Tensor
    entropy: Tensor
    skip_penalty: Tensor
    steps: list[Step]

    def __len__(self) -> int:
        """The number of architectures."""
        return len(self.decisions)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        """Architecture number i, label -> (rows, columns)."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"there are {len(self)} samples, asked for number {i}")
        return {label: matrices[i] for label, matrices in self.arch.items()}


class Head(nn.Module):
    """Logits over operations (a cell's without "none"), and an embedding of each for the step after."""

    def __init__(self, lstm_size: int, names: Sequence[str], cell: bool):
        super().__init__()
        drawn = [i for i, name in enumerate(names) if not (cell and name == "none")]
        self.names = [names[i] for i in drawn]
        self.logits = nn.Linear(lstm_size, len(drawn), bias=cell)
        self.embedding = nn.Embedding(len(drawn), lstm_size)
        self.register_buffer("columns", torch.tensor(drawn), persistent=False)
        favoured = torch.tensor([name.startswith("sep_conv") for name in self.names])
        self.register_buffer("favoured", favoured, persistent=False)
        self.columns: Tensor
        self.favoured: Tensor


class Memory:
    """What can be attended to: anchors (n, H), and of each the key W1 h."""

    def __init__(self, anchors: Sequence[Tensor] = (), keys: Sequence[Tensor] = ()):
        self.anchors, self.keys = list(anchors), list(keys)

    def add(self, anchor: Tensor, key: Tensor) -> None:
        """Remember one more."""
        self.anchors.append(anchor)
        self.keys.append(key)

    def recall(self, choice: Tensor) -> Tensor:
        """The anchor that each sample chose, (n, H)."""
        return torch.stack(self.anchors, dim=1)[torch.arange(len(choice)), choice]


class Writer:
    """What n samples have written so far, and the state of the LSTM that writes them.

    `start` (n, H) is the LSTM's first input; `choose(probabilities) -> (n,)` takes each decision.
    """

    def __init__(self, lstm: nn.LSTMCell, start: Tensor, shapes: Shapes, choose: Callable[[Tensor], Tensor]):
        self.lstm, self.choose, self.numbers = lstm, choose, torch.arange(len(start))
        self.x = self.start = start  # x is the LSTM's next input
        self.h = self.c = torch.zeros_like(start)
        self.arch = {label: torch.zeros(len(start), *shape) for label, shape in shapes.items()}
        self.layers = Memory()
        self.steps: list[Step] = []
        self.penalties: list[Tensor] = []

    def advance(self) -> Tensor:
        """One step of the LSTM; h (n, H)."""
        self.h, self.c = self.lstm(self.x, (self.h, self.c))
        return self.h

    def draw(self, name: str, options: Sequence[str], logits: Tensor) -> Tensor:
        """For each sample one of the options, by logits (n, options); their numbers (n,)."""
        log_p = logits.log_softmax(dim=1)
        p = log_p.exp()
        choice = self.choose(p.detach())
        log_prob = log_p.gather(1, choice[:, None])[:, 0]
        entropy = -(p * log_p).sum(dim=1)
        self.steps.append(Step(name, tuple(options), p.detach(), choice, log_prob, entropy))
        return choice

    def write(self, label: str, row: Tensor | int, column: Tensor) -> None:
        """Count one more in each sample's matrix, at its own row and column (n,)."""
        self.arch[label][self.numbers, row, column] += 1.0

    def finish(self) -> Sample:
        """Everything that was written."""
        none = torch.zeros(len(self.start), dtype=self.start.dtype)
        return Sample(
            arch=self.arch,
            decisions=torch.stack([step.choice for step in self.steps], dim=1),
            log_prob=torch.stack([step.log_prob for step in self.steps]).sum(dim=0),
            entropy=torch.stack([step.entropy for step in self.steps]).sum(dim=0),
            skip_penalty=torch.stack(self.penalties).mean(dim=0) if self.penalties else none,
            steps=self.steps,
        )
