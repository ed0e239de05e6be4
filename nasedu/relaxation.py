"""From logits to the matrix of an architecture, in the ways that the remedies for DARTS's failures need.

DARTS itself takes a softmax of each row (arXiv:1806.09055, eq. 2).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def edge_shares(logits: Tensor, nodes: Sequence[int]) -> Tensor:
    """(E,) logits, one for each edge -> (E,) shares: a softmax over the edges into the same node.

    `nodes[e]` is the node that edge e goes into. Edge normalisation of PC-DARTS (arXiv:1907.05737, eq. 3): a
    row of the matrix is multiplied by its edge's share.
    """
    if len(nodes) != len(logits):
        raise ValueError(f"{len(logits)} edges, but {len(nodes)} nodes; wanted one for each edge")
    shares = torch.empty_like(logits)
    for node in set(nodes):
        mine = torch.tensor([n == node for n in nodes], device=logits.device)
        shares = shares.masked_scatter(mine, logits[mine].softmax(dim=0))
    return shares


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
