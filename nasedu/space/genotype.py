"""Genotype: a derived cell, two inputs and two operations per node; read off a matrix, and one again.

- `derive`: matrix of weights -> Genotype, by the DARTS rule (arXiv:1806.09055, section 2.4)
- `from_arch`: matrix of 0, 1, 2 -> Genotype, exactly what a controller or a random draw wrote
- `arch`: Genotype -> matrix of 0, 1, 2, so that the supernet can run the derived cell
- `to_json`, `from_json`, `save`, `load`: text, validated when read, never evaluated
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nasedu.errors import NaseduError, check_whole, parsed, short
from nasedu.files import save_text
from nasedu.space.choice import Arch, ArchError, check_arch, labels_of
from nasedu.space.ops import PRIMITIVES

Node = tuple[tuple[str, int], tuple[str, int]]
Ops = Sequence[str] | Mapping[str, Sequence[str]]
FORMAT = "nasedu-genotype"
PAIR = ("normal", "reduce")  # the labels of DARTS and ENAS


class GenotypeError(NaseduError, ValueError):
    """Something is not a genotype: the message says what is wrong and where."""


def edges(n_nodes: int = 4) -> list[tuple[int, int]]:
    """The edges (source, node) of a cell in the order of the matrix's rows.

    The cell's inputs are 0 and 1, its nodes 2 ... n_nodes+1; node 2 has the edges (0, 2), (1, 2), node 3 has
    (0, 3), (1, 3), (2, 3), and so on: 14 edges for 4 nodes.
    """
    n_nodes = check_whole("n_nodes", n_nodes, 0, 1000)
    return [(source, node) for node in range(2, n_nodes + 2) for source in range(node)]


@dataclass(frozen=True)
class Genotype:
    """Derived cells by label, each a tuple over nodes of two (operation, input) pairs.

    `normal` and `reduce` are the cells of DARTS and ENAS; `others` has cells of any other label, and then
    these two may be left out. A cell's output is the concatenation of its nodes. A node adds its pairs, so
    their order means nothing: they are kept sorted by input. `source` says where the cells come from and does
    not count when two genotypes are compared. Raises GenotypeError if an input is not an earlier state or the
    pairs are not two.
    """

    normal: tuple[Node, ...] = ()
    reduce: tuple[Node, ...] = ()
    source: str = field(default="", compare=False)
    others: Mapping[str, tuple[Node, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.others, Mapping) or not all(isinstance(k, str) and k for k in self.others):
            raise GenotypeError(f"others are cells by label, got {short(self.others)}")
        if not isinstance(self.source, str):
            raise GenotypeError(f"a genotype's source is a text, got {short(self.source)}")
        others = {label: checked_cell(cell, label) for label, cell in self.others.items()}
        object.__setattr__(self, "others", others)
        for label, other in (("normal", self.reduce), ("reduce", self.normal)):
            cell = getattr(self, label)
            if cell != () or not (others or other):
                object.__setattr__(self, label, checked_cell(cell, label))
        if self.normal and self.reduce and len(self.normal) != len(self.reduce):
            raise GenotypeError(
                f"the normal cell has {len(self.normal)} nodes and the reduction cell {len(self.reduce)}; "
                "they must have the same number"
            )

    @classmethod
    def of(cls, cells: Mapping[str, Any], source: str = "") -> "Genotype":
        """The genotype of these cells, label -> for each node two (operation, input) pairs."""
        others = {label: cell for label, cell in cells.items() if label not in PAIR}
        return cls(cells.get("normal", ()), cells.get("reduce", ()), source, others)

    @property
    def cells(self) -> dict[str, tuple[Node, ...]]:
        """All cells by label."""
        pair = {label: getattr(self, label) for label in PAIR if getattr(self, label)}
        return {**pair, **self.others}

    @property
    def n_nodes(self) -> int:
        """The number of nodes of a cell (the first, if they differ), inputs not counted."""
        return len(next(iter(self.cells.values())))

    @classmethod
    def derive(cls, arch: Arch, ops: Ops = PRIMITIVES, source: str = "") -> "Genotype":
        """Derive cells by the DARTS rule from softmaxed matrices (E, O): "normal" and "reduce", or others.

        `ops` names the O operations, of all cells or {label: of this cell}. An edge's strength is its largest
        weight other than that of "none"; each node keeps its two strongest edges, each with its strongest
        operation other than "none". Of equals the first wins. Raises ArchError for matrices that are not a
        cell's. DARTS, section 2.4.
        """
        return cls.of({label: derive_cell(arch, label, ops) for label in _labels(arch, ops)}, source)

    @classmethod
    def from_arch(cls, arch: Arch, ops: Ops = PRIMITIVES, source: str = "") -> "Genotype":
        """Read cells off a discrete `arch` (counts whose sum is 2 for each node): the inverse of `arch()`."""
        return cls.of({label: read_cell(arch, label, ops) for label in _labels(arch, ops)}, source)

    def arch(self, ops: Ops = PRIMITIVES) -> dict[str, Tensor]:
        """How often each edge has each operation (0, 1, 2), as {"normal": (E, O), "reduce": (E, O)} tensors.

        Raises GenotypeError for an operation that is not among `ops`.
        """
        return {label: matrix_of(cell, label, ops) for label, cell in self.cells.items()}

    def to_json(self) -> str:
        """The genotype as JSON text, the same text for the same genotype."""
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The same as a dict that `json.dump` takes: with "normal" and "reduce", or "cells" of any labels."""
        head = {"format": FORMAT, "version": 1, **({"source": self.source} if self.source else {})}
        cells = {
            label: [[list(pair) for pair in node] for node in cell] for label, cell in self.cells.items()
        }
        return {**head, **(cells if set(cells) == set(PAIR) else {"cells": cells})}

    @classmethod
    def from_json(cls, text: str) -> "Genotype":
        """Read what `to_json` wrote. Raises GenotypeError, saying what is wrong, for anything else."""
        return cls.from_dict(parsed(text, "a genotype", GenotypeError))

    @classmethod
    def from_dict(cls, data: object) -> "Genotype":
        """The same for parsed JSON: a dict as of `to_dict`."""
        if not isinstance(data, Mapping):
            raise GenotypeError(f"a genotype is a JSON object, got {type(data).__name__}")
        form, version = data.get("format"), data.get("version")
        if form != FORMAT or type(version) is not int or version != 1:
            raise GenotypeError(
                f'a genotype says "format": "{FORMAT}", "version": 1; '
                f"this says {short(form)}, {short(version)}"
            )
        wanted = {"cells"} if "cells" in data else set(PAIR)
        unknown, missing = set(data) - {"format", "version", "source"} - wanted, wanted - set(data)
        if unknown or missing:
            extra = short(sorted(unknown, key=str))
            raise GenotypeError(f"this genotype has the unknown keys {extra} and lacks {sorted(missing)}")
        source = data.get("source", "")
        if not isinstance(source, str):
            raise GenotypeError(f"a genotype's source is a text, got {short(source)}")
        if "cells" not in data:
            return cls(data["normal"], data["reduce"], source)
        cells = data["cells"]
        if not isinstance(cells, Mapping) or not cells or not all(isinstance(k, str) and k for k in cells):
            raise GenotypeError(f"a genotype's cells are an object, label -> cell, got {short(cells)}")
        return cls.of(cells, source)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON text to `path`, whole or not at all."""
        save_text(path, self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Genotype":
        """Read a genotype from a file that `save` wrote."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (GenotypeError, UnicodeDecodeError) as error:
            raise GenotypeError(f"{path}: {error}") from error


def checked_cell(cell: object, name: str) -> tuple[Node, ...]:
    """`cell` as nested tuples, or GenotypeError with the place that is wrong."""
    if not isinstance(cell, Sequence) or isinstance(cell, str) or not cell:
        raise GenotypeError(f"the {name} cell must be a list of nodes, got {short(cell)}")
    nodes = []
    for node, pairs in enumerate(cell, start=2):
        where = f"node {node} of the {name} cell"
        if not isinstance(pairs, Sequence) or isinstance(pairs, str) or len(pairs) != 2:
            raise GenotypeError(f"{where} must be two (operation, input) pairs, got {short(pairs)}")
        for pair in pairs:
            if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
                raise GenotypeError(f"{where} must be two (operation, input) pairs, got {short(pair)}")
            op, source = pair
            if not isinstance(op, str) or not op or op == "none":
                raise GenotypeError(
                    f"{where} needs the name of an operation other than 'none', got {short(op)}"
                )
            if type(source) is not int or not 0 <= source < node:
                raise GenotypeError(
                    f"{where} takes its input from a state 0 ... {node - 1}, got {short(source)}"
                )
        nodes.append(
            tuple(sorted(((op, source) for op, source in pairs), key=lambda pair: (pair[1], pair[0])))
        )
    return cast(tuple[Node, ...], tuple(nodes))


def _labels(arch: Arch, ops: Ops) -> list[str]:
    """The cells in `arch`, all checked: "normal" and "reduce", if it has either, else all that it has."""
    if not isinstance(arch, Mapping):
        raise ArchError(f"an architecture is a dict, label -> matrix, got {short(arch)}")
    labels = list(PAIR) if not arch or not set(PAIR).isdisjoint(arch) else list(arch)
    for label in labels:
        _nodes(arch, label, _ops_of(ops, label))
    return labels


def _ops_of(ops: Ops, label: str) -> Sequence[str]:
    names = ops.get(label) if isinstance(ops, Mapping) else ops
    fits = isinstance(names, Sequence) and not isinstance(names, str)
    if not (fits and names and all(isinstance(name, str) for name in names) and set(names) != {"none"}):
        raise ArchError(
            f"the operations of {short(label)} are {short(names)}; wanted a list of names, one besides 'none'"
        )
    return names


def _nodes(arch: Arch, label: str, ops: Sequence[str]) -> list[list[list[float]]]:
    """A matrix cut into nodes: node -> input -> weights."""
    if label not in arch:
        raise ArchError(f"a genotype wants the matrices 'normal' and 'reduce', got {labels_of(arch)}")
    if not isinstance(arch[label], Tensor):
        raise ArchError(f"the matrix {label!r} must be a tensor, got a {type(arch[label]).__name__}")
    matrix = arch[label].detach()
    check_arch({label: cast(Any, tuple(matrix.shape))}, {label: matrix})  # real numbers, finite
    rows, n_nodes = (matrix.shape[0] if matrix.ndim else 0), 1
    while _n_edges(n_nodes) < rows:
        n_nodes += 1
    if matrix.ndim != 2 or _n_edges(n_nodes) != rows or matrix.shape[1] != len(ops):
        raise ArchError(
            f"the matrix {label!r} has shape {tuple(matrix.shape)}; wanted are 2, 5, 9, 14, ... rows "
            f"(edges of a cell of 1, 2, 3, 4, ... nodes) and {len(ops)} columns (operations)"
        )
    values = matrix.tolist()
    return [values[_n_edges(i) : _n_edges(i + 1)] for i in range(n_nodes)]


def _n_edges(n_nodes: int) -> int:
    """2 + 3 + ... + (n_nodes + 1), the length of `edges(n_nodes)`."""
    return n_nodes * (n_nodes + 3) // 2


def derive_cell(arch: Arch, label: str, ops: Ops) -> tuple[Node, ...]:
    """One cell by the DARTS rule, see `Genotype.derive`."""
    ops = _ops_of(ops, label)
    real = [column for column, name in enumerate(ops) if name != "none"]
    cell = []
    for rows in _nodes(arch, label, ops):
        best = [max(real, key=row.__getitem__) for row in rows]
        strongest = sorted(range(len(rows)), key=lambda i: -rows[i][best[i]])[:2]
        cell.append(tuple((ops[best[i]], i) for i in strongest))
    return cast(tuple[Node, ...], tuple(cell))


def read_cell(arch: Arch, label: str, ops: Ops) -> tuple[Node, ...]:
    """One cell of counts, see `Genotype.from_arch`."""
    ops = _ops_of(ops, label)
    cell = []
    for node, rows in enumerate(_nodes(arch, label, ops), start=2):
        pairs = []
        for source, row in enumerate(rows):
            for op, count in zip(ops, row, strict=True):
                if count not in (0, 1, 2):
                    raise ArchError(
                        f"the matrix {label!r} is not discrete: edge ({source}, {node}) has {op!r} "
                        f"{count} times; use Genotype.derive for weights"
                    )
                pairs += [(op, source)] * int(count)
        if len(pairs) != 2:
            raise ArchError(
                f"node {node} of {label!r} must have two (operation, input) pairs, got {len(pairs)}: {pairs}"
            )
        cell.append(tuple(pairs))
    return cast(tuple[Node, ...], tuple(cell))


def matrix_of(cell: Sequence[Node], label: str, ops: Ops) -> Tensor:
    """The counts (E, O) of one cell, see `Genotype.arch`."""
    ops = list(_ops_of(ops, label))
    rows = {edge: row for row, edge in enumerate(edges(len(cell)))}
    matrix = torch.zeros(len(rows), len(ops))
    for node, pairs in enumerate(cell, start=2):
        for op, source in pairs:
            if op not in ops:
                raise GenotypeError(
                    f"the {label} cell has the operation {op!r}, the matrix only {tuple(ops)}"
                )
            matrix[rows[source, node], ops.index(op)] += 1
    return matrix


def _published() -> dict[str, Genotype]:
    text = resources.files("nasedu.space").joinpath("published.json").read_text(encoding="utf-8")
    return {name: Genotype.from_dict(data) for name, data in json.loads(text).items()}


PUBLISHED: dict[str, Genotype] = _published()
"""Cells from the literature by name: DARTS_V1, DARTS_V2, PC_DARTS; each says its source."""
