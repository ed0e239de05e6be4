"""A plan: everything a model leaves open, as a list of parts that a controller writes one after the other.

CellPart      a cell: for each node two inputs, then two operations
LayerPart     a `LayerChoice` that stands alone: one draw
InputPart     an `InputChoice`: `n_chosen` draws, or a coin for each input where their number is open
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from nasedu.space.choice import ArchError, InputChoice, LayerChoice, points
from nasedu.space.genotype import edges


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


def plan_of(model: nn.Module) -> list[Part]:
    """Everything a model leaves open, in the order in which its decision points were made.

    Raises ArchError if there is nothing to decide, or if the rows of a cell are not `genotype.edges`.
    """
    found = points(model)
    plan: list[Part] = []
    seen = set()
    for point in model.modules():
        if not isinstance(point, LayerChoice | InputChoice):
            continue
        cell = isinstance(point, LayerChoice) and point.node is not None
        if (point.label, cell or point.row) in seen:
            continue
        seen.add((point.label, cell or point.row))
        if isinstance(point, InputChoice):
            plan.append(InputPart(point.label, point.row, point.n_candidates, point.n_chosen))
        elif not cell:
            plan.append(LayerPart(point.label, point.row, point.names))
        else:
            rows = found[point.label]
            nodes = [row.node if isinstance(row, LayerChoice) else None for row in rows]
            n_nodes = (nodes[-1] or 0) - 1
            if nodes != [node for _, node in edges(n_nodes)] or any(row.names != point.names for row in rows):
                raise ArchError(
                    f"the cell {point.label!r} must have the rows of genotype.edges, all with the same "
                    f"candidates; its rows have the nodes {nodes}"
                )
            plan.append(CellPart(point.label, n_nodes, point.names))
    if not plan:
        raise ArchError("the model has nothing to search: build it with LayerChoice or InputChoice")
    return plan


def shapes_of(plan: Sequence[Part]) -> dict[str, tuple[int, int]]:
    """The matrices that a plan fills, label -> (rows, columns)."""
    shapes: dict[str, tuple[int, int]] = {}
    for part in plan:
        if isinstance(part, CellPart):
            shapes[part.label] = (len(edges(part.n_nodes)), len(part.names))
        else:
            columns = part.n_candidates if isinstance(part, InputPart) else len(part.names)
            shapes[part.label] = (max(part.row + 1, shapes.get(part.label, (0, 0))[0]), columns)
    return shapes
