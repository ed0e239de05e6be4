"""From logits to the matrix of an architecture, in the ways that the remedies for DARTS's failures need.

DARTS itself takes a softmax of each row (arXiv:1806.09055, eq. 2).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nasedu.space.choice import InputChoice, Sampled, choices, points

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


class Relaxation:
    """alpha -> arch: a dict of logits becomes the matrices that `model` takes.

    A row is the softmax of its logits (DARTS, eq. 2); where any number of inputs may be chosen, each has a
    gate of its own, a sigmoid. With `edge_normalisation` an edge has a logit, too, in alpha[label + EDGES],
    and its row is multiplied by its share (`edge_shares`). True takes the nodes of the model's cells, for
    other models give {label: the node of each row}; ValueError where a node is missing.
    """

    def __init__(self, model: nn.Module, edge_normalisation: bool | Mapping[str, Sequence[int]] = False):
        self.shapes = choices(model)
        found = points(model)
        self.gates = {
            label
            for label, rows in found.items()
            if isinstance(rows[0], InputChoice) and rows[0].n_chosen is None
        }
        if isinstance(edge_normalisation, Mapping):
            self.nodes: dict[str, list[Any]] = {k: list(nodes) for k, nodes in edge_normalisation.items()}
        else:
            asked = found.items() if edge_normalisation else ()
            self.nodes = {label: [getattr(row, "node", None) for row in rows] for label, rows in asked}
        for label, nodes in self.nodes.items():
            if label not in self.shapes or len(nodes) != self.shapes[label][0] or None in nodes:
                raise ValueError(
                    f"edge_normalisation wants the node of each row of {label!r}, got {nodes}; the model "
                    f"has {self.shapes}; give {{label: [node of row 0, node of row 1, ...]}}"
                )

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """alpha for the start of a search: 1e-3 x normal noise."""
        shapes: dict[str, tuple[int, ...]] = dict(self.shapes)
        shapes |= {label + EDGES: (len(nodes),) for label, nodes in self.nodes.items()}
        return {label: 1e-3 * torch.randn(shape, generator=generator) for label, shape in shapes.items()}

    def noise(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Gumbel noise for one draw of an architecture."""
        return {label: gumbel(shape, generator) for label, shape in self.shapes.items()}

    def arch(
        self,
        alpha: Mapping[str, Tensor],
        noise: Mapping[str, Tensor] | None = None,
        temperature: float = 1.0,
    ) -> dict[str, Tensor]:
        """The matrices of `alpha`; with `noise` (GDAS) rows of a single 1, drawn by `gumbel_one_hot`."""
        arch: dict[str, Tensor] = {} if noise is None else Sampled()
        for label in self.shapes:
            if label in self.gates:
                arch[label] = alpha[label].sigmoid()
            elif noise is None:
                arch[label] = alpha[label].softmax(dim=-1)
            else:
                arch[label] = gumbel_one_hot(alpha[label], noise[label].to(alpha[label]), temperature)
            if label in self.nodes:
                arch[label] = arch[label] * edge_shares(alpha[label + EDGES], self.nodes[label])[:, None]
        return arch
