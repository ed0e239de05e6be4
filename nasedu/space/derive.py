"""From a matrix to a decision, for any model: what stays, and how it is written down.

discretise    matrix of weights -> matrix of zeros and ones: the strongest candidate of each row stays
describe      matrix of zeros and ones -> names, as a dict that `json.dump` takes
read          the dict back into matrices
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nasedu.errors import short
from nasedu.space.choice import (
    Arch,
    ArchError,
    InputChoice,
    LayerChoice,
    check_arch,
    choices,
    labels_of,
    points,
)
from nasedu.space.genotype import (
    Genotype,
    GenotypeError,
    checked_cell,
    derive_cell,
    edges,
    matrix_of,
    read_cell,
)


def cells(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The labels of a model that are cells, and the operations of each.

    Raises ArchError if the rows of a cell are not `genotype.edges`, all with the same operations.
    """
    found = {}
    for label, rows in points(model).items():
        nodes = [row.node if isinstance(row, LayerChoice) else None for row in rows]
        if set(nodes) == {None}:
            continue
        wanted = [node for _, node in edges((nodes[-1] or 0) - 1)]
        if nodes != wanted or any(row.names != rows[0].names for row in rows):
            raise ArchError(
                f"the cell {label!r} must have the rows of genotype.edges, all with the same candidates; its "
                f"rows have the nodes {nodes}"
            )
        found[label] = rows[0].names
    return found


def discretise(model: nn.Module, arch: Arch) -> dict[str, Tensor]:
    """Keep the strongest: of a cell's node two edges (the DARTS rule, see `Genotype.derive`), of a
    `LayerChoice` one layer, of an `InputChoice` its `n_chosen` inputs, or where their number is open all
    whose weight is above 1/2.

    Returns matrices of zeros and ones of the same shapes, float32 on the CPU.
    """
    check_arch(choices(model), arch)
    ops, kept = cells(model), {}
    for label, rows in points(model).items():
        if label in ops:
            kept[label] = matrix_of(derive_cell(arch, label, ops), label, ops)
            continue
        weights = arch[label].detach().float().cpu()
        matrix = torch.zeros(weights.shape)
        for i, point in enumerate(rows):
            if isinstance(point, InputChoice) and point.n_chosen is None:
                matrix[i] = (weights[i] > 0.5).float()
            else:
                n = point.n_chosen if isinstance(point, InputChoice) else 1
                matrix[i, weights[i].argsort(descending=True, stable=True)[:n]] = 1.0
        kept[label] = matrix
    return kept


def describe(model: nn.Module, arch: Arch) -> dict[str, Any]:
    """A discrete `arch` in names. For a model of cells and nothing else it is the genotype's dict, which
    `Genotype.from_dict` reads; else {label: for each row the name of the layer or the list of the inputs, for
    each node of a cell two [operation, input]}.
    """
    check_arch(choices(model), arch)
    found, ops = points(model), cells(model)
    if set(ops) == set(found):
        return Genotype.of({label: read_cell(arch, label, ops) for label in ops}).to_dict()
    answer: dict[str, Any] = {}
    for label, rows in found.items():
        if label in ops:
            answer[label] = [[list(pair) for pair in node] for node in read_cell(arch, label, ops)]
            continue
        answer[label] = []
        for point, weights in zip(rows, arch[label].tolist(), strict=True):
            chosen = [i for i, weight in enumerate(weights) if weight]
            if isinstance(point, InputChoice):
                answer[label].append(chosen)
            elif len(chosen) == 1:
                answer[label].append(point.names[chosen[0]])
            else:
                raise ArchError(
                    f"row {point.row} of {label!r} chooses {len(chosen)} layers, wanted one; "
                    "discretise it first"
                )
    return answer


def read(model: nn.Module, decisions: Mapping[str, Any]) -> dict[str, Tensor]:
    """The matrices of what `describe` wrote and `trainer.export()` gives.

    Raises ArchError if it is not of this model.
    """
    found, ops = points(model), cells(model)
    if set(ops) == set(found):
        try:
            arch = Genotype.from_dict(decisions).arch(ops)
        except (GenotypeError, KeyError) as error:
            raise ArchError(f"not an export of this model: {error}") from error
        check_arch(choices(model), arch)
        return arch
    if not isinstance(decisions, Mapping) or set(decisions) != set(found):
        got = labels_of(decisions) if isinstance(decisions, Mapping) else short(decisions)
        raise ArchError(f"not an export of this model: wanted the labels {sorted(found)}, got {got}")
    arch = {}
    for label, rows in found.items():
        if label in ops:
            try:
                arch[label] = matrix_of(checked_cell(decisions[label], label), label, ops)
            except GenotypeError as error:
                raise ArchError(f"not an export of this model: {error}") from error
            continue
        matrix = torch.zeros(choices(model)[label])
        if not isinstance(decisions[label], list) or len(decisions[label]) != len(rows):
            raise ArchError(f"{label!r} wants a list of {len(rows)} decisions, got {decisions[label]!r:.200}")
        for i, (point, decision) in enumerate(zip(rows, decisions[label], strict=True)):
            chosen = decision if isinstance(point, InputChoice) else [decision]
            names = list(range(point.n_candidates)) if isinstance(point, InputChoice) else list(point.names)
            n = len(chosen) if isinstance(chosen, list) else -1
            fits = (
                n >= 0 and all(type(c) in (int, str) and c in names for c in chosen) and len(set(chosen)) == n
            )
            if not fits or (isinstance(point, InputChoice) and point.n_chosen not in (None, n)):
                raise ArchError(f"row {i} of {label!r} can choose from {names}, got {short(decision)}")
            for choice in chosen:
                matrix[i, names.index(choice)] = 1.0
        arch[label] = matrix
    check_arch(choices(model), arch)
    return arch
