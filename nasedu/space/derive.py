"""From a matrix to a decision, for any model: what stays, and how it is written down.

discretise    matrix of weights -> matrix of zeros and ones: the strongest candidate of each row stays
describe      matrix of zeros and ones -> names, as a dict that `json.dump` takes
read          the dict back into matrices
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nasedu.space.choice import Arch, ArchError, InputChoice, LayerChoice, check_arch, choices, points
from nasedu.space.genotype import FORMAT, Genotype, GenotypeError


def _is_cell(point: LayerChoice | InputChoice) -> bool:
    return isinstance(point, LayerChoice) and point.node is not None


def _has_cells(model: nn.Module) -> bool:
    """Has the model normal and reduction cells and nothing else, so that a genotype says all about it?"""
    found = points(model)
    return set(found) == {"normal", "reduce"} and all(_is_cell(rows[0]) for rows in found.values())


def discretise(model: nn.Module, arch: Arch) -> dict[str, Tensor]:
    """Keep the strongest: of a cell's node two edges (the DARTS rule, see `Genotype.derive`), of a
    `LayerChoice` one layer, of an `InputChoice` its `n_chosen` inputs, or where their number is open all
    whose weight is above 1/2.

    Returns matrices of zeros and ones of the same shapes, float32 on the CPU.
    """
    check_arch(choices(model), arch)
    found = points(model)
    if _has_cells(model):
        ops = found["normal"][0].names
        return Genotype.derive(arch, ops).arch(ops)
    kept = {}
    for label, rows in found.items():
        weights = arch[label].detach().float().cpu()
        matrix = torch.zeros(weights.shape)
        for i, point in enumerate(rows):
            if _is_cell(point):
                raise ArchError(
                    "a model of cells must have the labels 'normal' and 'reduce' and no others, "
                    f"got {sorted(found)}"
                )
            if isinstance(point, InputChoice) and point.n_chosen is None:
                matrix[i] = (weights[i] > 0.5).float()
            else:
                n = point.n_chosen if isinstance(point, InputChoice) else 1
                matrix[i, weights[i].argsort(descending=True, stable=True)[:n]] = 1.0
        kept[label] = matrix
    return kept


def describe(model: nn.Module, arch: Arch) -> dict[str, Any]:
    """A discrete `arch` in names. For a model of normal and reduction cells it is the genotype's dict, which
    `Genotype.from_dict` reads; else {label: for each row the name of the layer, or the list of the inputs}.
    """
    check_arch(choices(model), arch)
    found = points(model)
    if _has_cells(model):
        genotype = Genotype.from_arch(arch, found["normal"][0].names)
        cells = {"normal": genotype.normal, "reduce": genotype.reduce}
        as_lists = {name: [[list(pair) for pair in node] for node in cell] for name, cell in cells.items()}
        return {"format": FORMAT, "version": 1, **as_lists}
    answer: dict[str, Any] = {}
    for label, rows in found.items():
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
    found = points(model)
    if _has_cells(model):
        try:
            arch = Genotype.from_dict(decisions).arch(found["normal"][0].names)
        except GenotypeError as error:
            raise ArchError(f"not an export of this model: {error}") from error
        check_arch(choices(model), arch)
        return arch
    if not isinstance(decisions, Mapping) or set(decisions) != set(found):
        got = sorted(decisions) if isinstance(decisions, Mapping) else decisions
        raise ArchError(f"not an export of this model: wanted the labels {sorted(found)}, got {got!r:.200}")
    arch = {}
    for label, rows in found.items():
        matrix = torch.zeros(choices(model)[label])
        if not isinstance(decisions[label], list) or len(decisions[label]) != len(rows):
            raise ArchError(f"{label!r} wants a list of {len(rows)} decisions, got {decisions[label]!r:.200}")
        for i, (point, decision) in enumerate(zip(rows, decisions[label], strict=True)):
            chosen = decision if isinstance(point, InputChoice) else [decision]
            names = list(range(point.n_candidates)) if isinstance(point, InputChoice) else list(point.names)
            if not isinstance(chosen, list) or not all(choice in names for choice in chosen):
                raise ArchError(f"row {i} of {label!r} can choose from {names}, got {decision!r:.80}")
            for choice in chosen:
                matrix[i, names.index(choice)] = 1.0
        arch[label] = matrix
    return arch
