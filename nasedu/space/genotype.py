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
from reprlib import repr as short  # bounded in length and in depth, since what was read may be anything
from typing import Any, cast

import torch
from torch import Tensor

from nasedu.errors import NaseduError
from nasedu.files import whole
from nasedu.space.choice import Arch, ArchError
from nasedu.space.ops import PRIMITIVES

Node = tuple[tuple[str, int], tuple[str, int]]
FORMAT = "nasedu-genotype"


class GenotypeError(NaseduError, ValueError):
    """Something is not a genotype: the message says what is wrong and where."""


def edges(n_nodes: int = 4) -> list[tuple[int, int]]:
    """The edges (source, node) of a cell in the order of the matrix's rows.

    The cell's inputs are 0 and 1, its nodes 2 ... n_nodes+1; node 2 has the edges (0, 2), (1, 2), node 3 has
    (0, 3), (1, 3), (2, 3), and so on: 14 edges for 4 nodes.
    """
    return [(source, node) for node in range(2, n_nodes + 2) for source in range(node)]


@dataclass(frozen=True)
class Genotype:
    """A normal and a reduction cell, each a tuple over nodes of two (operation, input) pairs.

    A cell's output is the concatenation of its nodes. A node adds its pairs, so their order means nothing:
    they are kept sorted by input. `source` says where the cell comes from and does not count when two
    genotypes are compared. Raises GenotypeError if an input is not an earlier state or the pairs are not two.
    """

    normal: tuple[Node, ...]
    reduce: tuple[Node, ...]
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for cell in ("normal", "reduce"):
            object.__setattr__(self, cell, _checked_cell(getattr(self, cell), cell))
        if len(self.normal) != len(self.reduce):
            raise GenotypeError(
                f"the normal cell has {len(self.normal)} nodes and the reduction cell {len(self.reduce)}; "
                "they must have the same number"
            )

    @property
    def n_nodes(self) -> int:
        """The number of nodes of each cell, inputs not counted."""
        return len(self.normal)

    @classmethod
    def derive(cls, arch: Arch, ops: Sequence[str] = PRIMITIVES, source: str = "") -> "Genotype":
        """Derive cells by the DARTS rule from softmaxed matrices {"normal": (E, O), "reduce": (E, O)}.

        An edge's strength is its largest weight other than that of "none"; each node keeps its two strongest
        edges, each with its strongest operation other than "none". Of equals the first wins. Raises ArchError
        for matrices that are not a cell's. DARTS, section 2.4.
        """
        cells = {label: _derive_cell(matrix, ops) for label, matrix in _cell_matrices(arch, ops).items()}
        return cls(**cells, source=source)

    @classmethod
    def from_arch(cls, arch: Arch, ops: Sequence[str] = PRIMITIVES, source: str = "") -> "Genotype":
        """Read cells off a discrete `arch` (counts whose sum is 2 for each node): the inverse of `arch()`."""
        cells = {label: _read_cell(matrix, ops, label) for label, matrix in _cell_matrices(arch, ops).items()}
        return cls(**cells, source=source)

    def arch(self, ops: Sequence[str] = PRIMITIVES) -> dict[str, Tensor]:
        """How often each edge has each operation (0, 1, 2), as {"normal": (E, O), "reduce": (E, O)} tensors.

        Raises GenotypeError for an operation that is not among `ops`.
        """
        matrices = {}
        for label, cell in (("normal", self.normal), ("reduce", self.reduce)):
            rows = {edge: row for row, edge in enumerate(edges(self.n_nodes))}
            matrix = torch.zeros(len(rows), len(ops))
            for node, pairs in enumerate(cell, start=2):
                for op, source in pairs:
                    if op not in ops:
                        raise GenotypeError(
                            f"the {label} cell has the operation {op!r}, the matrix only {tuple(ops)}"
                        )
                    matrix[rows[source, node], list(ops).index(op)] += 1
            matrices[label] = matrix
        return matrices

    def to_json(self) -> str:
        """The genotype as JSON text, the same text for the same genotype."""
        data: dict[str, Any] = {"format": FORMAT, "version": 1}
        if self.source:
            data["source"] = self.source
        return json.dumps({**data, "normal": self.normal, "reduce": self.reduce})

    @classmethod
    def from_json(cls, text: str) -> "Genotype":
        """Read what `to_json` wrote. Raises GenotypeError, saying what is wrong, for anything else."""
        try:
            data = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise GenotypeError(f"a genotype is JSON text, and this is not: {error}") from error
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: object) -> "Genotype":
        """The same for parsed JSON: a dict with "format", "version", "normal" and "reduce"."""
        if not isinstance(data, Mapping):
            raise GenotypeError(f"a genotype is a JSON object, got {type(data).__name__}")
        form, version = data.get("format"), data.get("version")
        if form != FORMAT or type(version) is not int or version != 1:
            raise GenotypeError(
                f'a genotype says "format": "{FORMAT}", "version": 1; '
                f"this says {short(form)}, {short(version)}"
            )
        unknown = set(data) - {"format", "version", "source", "normal", "reduce"}
        missing = {"normal", "reduce"} - set(data)
        if unknown or missing:
            extra = short(sorted(unknown, key=str))
            raise GenotypeError(f"this genotype has the unknown keys {extra} and lacks {sorted(missing)}")
        source = data.get("source", "")
        if not isinstance(source, str):
            raise GenotypeError(f"a genotype's source is a text, got {short(source)}")
        return cls(data["normal"], data["reduce"], source)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON text to `path`, whole or not at all."""
        with whole(path) as temporary:
            temporary.write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Genotype":
        """Read a genotype from a file that `save` wrote."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (GenotypeError, UnicodeDecodeError) as error:
            raise GenotypeError(f"{path}: {error}") from error


def _checked_cell(cell: object, name: str) -> tuple[Node, ...]:
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


def _cell_matrices(arch: Arch, ops: Sequence[str]) -> dict[str, list[list[list[float]]]]:
    """The two matrices cut into nodes: label -> node -> input -> weights."""
    cut: dict[str, list[list[list[float]]]] = {}
    for label in ("normal", "reduce"):
        if label not in arch:
            raise ArchError(f"a genotype wants the matrices 'normal' and 'reduce', got {sorted(arch)}")
        if not isinstance(arch[label], Tensor):
            raise ArchError(f"the matrix {label!r} must be a tensor, got a {type(arch[label]).__name__}")
        matrix = arch[label].detach()
        rows, n_nodes = (matrix.shape[0] if matrix.ndim else 0), 1
        while _n_edges(n_nodes) < rows:
            n_nodes += 1
        if matrix.ndim != 2 or _n_edges(n_nodes) != rows or matrix.shape[1] != len(ops):
            raise ArchError(
                f"the matrix {label!r} has shape {tuple(matrix.shape)}; wanted are 2, 5, 9, 14, ... rows "
                f"(edges of a cell of 1, 2, 3, 4, ... nodes) and {len(ops)} columns (operations)"
            )
        if not bool(torch.isfinite(matrix).all()):
            raise ArchError(f"the matrix {label!r} holds numbers that are not finite")
        values = matrix.tolist()
        cut[label] = [values[_n_edges(i) : _n_edges(i + 1)] for i in range(n_nodes)]
    return cut


def _n_edges(n_nodes: int) -> int:
    """2 + 3 + ... + (n_nodes + 1), the length of `edges(n_nodes)`."""
    return n_nodes * (n_nodes + 3) // 2


def _derive_cell(nodes: list[list[list[float]]], ops: Sequence[str]) -> tuple[Node, ...]:
    real = [column for column, name in enumerate(ops) if name != "none"]
    cell = []
    for rows in nodes:
        best = [max(real, key=row.__getitem__) for row in rows]
        strongest = sorted(range(len(rows)), key=lambda i: -rows[i][best[i]])[:2]
        cell.append(tuple((ops[best[i]], i) for i in strongest))
    return cast(tuple[Node, ...], tuple(cell))


def _read_cell(nodes: list[list[list[float]]], ops: Sequence[str], label: str) -> tuple[Node, ...]:
    cell = []
    for node, rows in enumerate(nodes, start=2):
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


def _published() -> dict[str, Genotype]:
    text = resources.files("nasedu.space").joinpath("published.json").read_text(encoding="utf-8")
    return {name: Genotype.from_dict(data) for name, data in json.loads(text).items()}


PUBLISHED: dict[str, Genotype] = _published()
"""Cells from the literature by name: DARTS_V1, DARTS_V2, PC_DARTS; each says its source."""
