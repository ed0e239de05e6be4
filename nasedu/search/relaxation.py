"""From logits to the matrix of an architecture, in other ways than DARTS's `Softmax`.

    DartsTrainer(..., relaxation=Gumbel(10.0, 0.1))

    Gumbel(10.0, 0.1)       GDAS: one operation an edge, drawn anew in each step
    EdgeShares()            PC-DARTS: a row for the operations, and a share for the edge

A new one is a subclass of `Softmax` and no edit elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nasedu.search.darts import Matrices, Softmax
from nasedu.space.choice import Sampled, points

EDGES = " edges"  # alpha[label + EDGES] are the logits of the edges themselves, with edge normalisation


def edge_shares(logits: Tensor, nodes: Sequence[int]) -> Tensor:
    """(E,) logits, one for each edge -> (E,) shares: a softmax over the edges into the same node.

    `nodes[e]` is the node that edge e goes into. Edge normalisation of PC-DARTS (arXiv:1907.05737, eq. 3): a
    row of the matrix is multiplied by its edge's share.
    """
    if len(nodes) != len(logits):
        raise ValueError(f"{len(logits)} edges, but {len(nodes)} nodes; wanted one for each edge")
    same = torch.tensor([[mine == other for other in nodes] for mine in nodes], device=logits.device)
    return logits.expand(len(nodes), len(nodes)).masked_fill(~same, -torch.inf).softmax(dim=1).diagonal()


def gumbel(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise: the row's argmax of logits + noise is a draw from softmax(logits)."""
    return -torch.log(torch.empty(tuple(shape)).exponential_(generator=generator))


def gumbel_one_hot(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Rows of one 1 and zeros, drawn from softmax(logits); differentiable by the straight-through rule.

    Forward it is the one-hot argmax of logits + noise, backward the softmax of (log softmax(logits) + noise)
    / temperature. GDAS (arXiv:1910.04465, eq. 3-5); Jang, Gu, Poole, ICLR 2017, arXiv:1611.01144.
    """
    soft = ((logits.log_softmax(dim=-1) + noise) / temperature).softmax(dim=-1)
    hard = torch.zeros_like(soft).scatter(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
    # hard + soft - soft.detach(), with zeros that stay exactly zero
    return hard + (soft - soft.detach())


@dataclass
class Gumbel(Softmax):
    """GDAS: each step draws one operation an edge by `gumbel_one_hot`, and only that one is run.

    The temperature goes in a straight line from `first` (first epoch) to `last` (last epoch); what is shown
    and derived is the softmax. Dong, Yang, CVPR 2019, arXiv:1910.04465.
    """

    first: float = 10.0
    last: float = 0.1

    def __post_init__(self) -> None:
        if not min(self.first, self.last) > 0:
            raise ValueError(f"Gumbel wants two temperatures above 0, got {self.first} and {self.last}")

    def temperature(self, progress: float) -> float:
        """From `first` at 0 to `last` at 1."""
        return self.first + (self.last - self.first) * progress

    def draw(self, alpha: Matrices, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Rows of a single 1; gates are open to their degree."""
        arch = Sampled(self.arch(alpha))
        for label, shape in self.shapes.items():
            noise = gumbel(shape, generator).to(alpha[label], non_blocking=True)
            if label not in self.gates:
                arch[label] = gumbel_one_hot(alpha[label], noise, self.temperature(progress))
        return arch


@dataclass
class EdgeShares(Softmax):
    """Edge normalisation of PC-DARTS: an edge has a logit, too, and its row is multiplied by its share.

    The edges' logits are alpha[label + EDGES], their shares `edge_shares`. `nodes` is {label: the node of
    each row}; None takes those of the model's cells. `rows` makes the rows themselves: `Softmax()`, or
    `Gumbel()`. Partial channels belong to the model: `CNN(..., partial=4)`. Raises ValueError where a node is
    missing. Xu et al., ICLR 2020, arXiv:1907.05737, eq. 3.
    """

    nodes: Mapping[str, Sequence[int]] | None = None
    rows: Softmax = field(default_factory=Softmax)

    def prepare(self, model: nn.Module) -> None:
        """Look at what there is to decide, and which edges go into the same node."""
        super().prepare(model)
        self.rows.prepare(model)
        found = {label: [getattr(row, "node", None) for row in rows] for label, rows in points(model).items()}
        cells = {label: nodes for label, nodes in found.items() if any(node is not None for node in nodes)}
        # A model without cells is told of, with all its labels, rather than searched without shares.
        self.node_of: dict[str, Any] = dict((cells or found) if self.nodes is None else self.nodes)
        for label, nodes in self.node_of.items():
            if label not in self.shapes or len(nodes) != self.shapes[label][0] or None in nodes:
                raise ValueError(
                    f"EdgeShares wants the node of each row of {label!r}, got {nodes}; the model has "
                    f"{self.shapes}; give nodes={{label: [node of row 0, node of row 1, ...]}}"
                )

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The rows' logits, and those of the edges."""
        edges = {label + EDGES: (len(nodes),) for label, nodes in self.node_of.items()}
        alpha = self.rows.start(generator)
        return alpha | {k: 1e-3 * torch.randn(shape, generator=generator) for k, shape in edges.items()}

    def arch(self, alpha: Matrices) -> dict[str, Tensor]:
        """The rows' matrices, times shares."""
        return self._shared(self.rows.arch(alpha), alpha)

    def draw(self, alpha: Matrices, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """The same of what the rows draw."""
        return self._shared(self.rows.draw(alpha, progress, generator), alpha)

    def _shared(self, arch: dict[str, Tensor], alpha: Matrices) -> dict[str, Tensor]:
        for label, nodes in self.node_of.items():
            arch[label] = arch[label] * edge_shares(alpha[label + EDGES], nodes)[:, None]
        return arch
