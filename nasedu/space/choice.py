"""The two decision points of a search space, and the architecture that decides them.

An architecture is a dict of matrices, label -> (rows, columns). A `LayerChoice` weighs candidate layers with
one row of the matrix of its label, an `InputChoice` weighs candidate inputs. Both take the architecture as an
argument:

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            candidates = {"3x3": nn.Conv2d(3, 8, 3, padding=1), "5x5": nn.Conv2d(3, 8, 5, padding=2)}
            self.conv = LayerChoice(candidates, "conv")

        def forward(self, x, arch):
            return self.conv(x, arch)

    choices(Net())                                       # {"conv": (1, 2)}
    Net()(x, {"conv": torch.tensor([[0.3, 0.7]])})       # 0.3 conv3x3(x) + 0.7 conv5x5(x)

Points that share a label and a row share their weights: in a DARTS supernet every normal cell has 14
`LayerChoice`s with the label "normal", one per row.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor  # torch.func.debug_unwrap is not in torch 2.6
from torch.autograd.forward_ad import unpack_dual

from nasedu.errors import ArgumentError, NaseduError, check_whole, short
from nasedu.space.ops import Zero

Arch = Mapping[str, Tensor]
MOST = 10_000  # rows of a matrix, and columns
NUMBERS = {torch.float16, torch.bfloat16, torch.float32, torch.float64} | {
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64
}  # fmt: skip


class Sampled(dict[str, Tensor]):
    """An architecture whose zeros are meant: their layers are not run, even where it is differentiated.

    What GDAS needs (Dong, Yang, CVPR 2019, arXiv:1910.04465): one operation runs on each edge, and the
    gradient reaches the logits through that one's weight. A plain dict runs all, since a weight of zero has a
    derivative too.
    """

    def chosen(self, label: str) -> list[list[bool]]:
        """Which entries of a matrix are not zero; it is read once, however many rows ask."""
        seen: dict[str, tuple[Tensor, list[list[bool]]]] = self.__dict__.setdefault("seen", {})
        if label not in seen or seen[label][0] is not self[label]:
            seen[label] = self[label], (self[label] != 0).tolist()
        return seen[label][1]


class ArchError(NaseduError, ValueError):
    """An architecture does not fit the model it is given to."""


class _Point(nn.Module):
    """What the two decision points have in common: a label, a row, and the weights found there."""

    def __init__(self, label: str, row: int):
        super().__init__()
        if not isinstance(label, str) or not label:
            raise ArgumentError(f"a decision point needs a label, a non-empty string, got {short(label)}")
        self.label = label
        self.row = check_whole("a decision point's row", row, 0, MOST)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the candidates, one per column."""
        raise NotImplementedError

    def weights(self, arch: Arch, x: Tensor | None = None) -> Sequence[Tensor | float]:
        """This point's weights, one per candidate, for the input x.

        Where the row is being differentiated they are tensors, and all of them matter: a weight of zero has a
        derivative too (but see `Sampled`). So they are on a GPU, which a look at the numbers would wait for.
        Else they are plain numbers, and a zero can be left out.
        """
        if not isinstance(arch, Mapping) or self.label not in arch:
            raise ArchError(f"the architecture lacks the label {self.label!r}; it has {labels_of(arch)}")
        matrix = arch[self.label]
        shape = _shape(matrix)
        if isinstance(shape, str) or len(shape) != 2 or shape[0] <= self.row or shape[1] != len(self.names):
            raise ArchError(
                f"this point wants row {self.row} of a matrix with {len(self.names)} columns "
                f"({', '.join(self.names)}) as arch[{self.label!r}], got {shape}"
            )
        row = matrix[self.row]
        if getattr(x, "device", None) != matrix.device:
            _readable(self.label, matrix)
        if matrix.device.type == "cpu" and not is_differentiated(matrix):
            weights = [float(weight) for weight in _readable(self.label, row).tolist()]
            if not all(map(math.isfinite, weights)):
                raise _not_finite(self.label)
            return weights
        if not _is_finite(row):
            raise _not_finite(self.label)
        if isinstance(arch, Sampled):
            chosen = arch.chosen(self.label)[self.row]
            return [weight if run else 0.0 for weight, run in zip(row, chosen, strict=True)]
        return row.unbind()


def is_transformed(x: Tensor) -> bool:
    """Is `x` inside a transform of `torch.func` (`grad`, `vmap`, ...), or a dual number of forward mode?"""
    return is_functorch_wrapped_tensor(x) or unpack_dual(x).tangent is not None


def is_differentiated(matrix: Tensor) -> bool:
    """Is a derivative with respect to `matrix` being taken: by autograd, in forward mode, or by torch.func?

    `requires_grad` alone does not say: it is False in an inner `grad` over the weights while an outer one
    differentiates the architecture, and True under `torch.no_grad()`.
    """
    return (matrix.requires_grad and torch.is_grad_enabled()) or is_transformed(matrix)


def _shape(matrix: object) -> tuple[int, ...] | str:
    """The shape of a tensor of real numbers, the kind of anything else."""
    if not isinstance(matrix, Tensor):
        return type(matrix).__name__
    if matrix.layout != torch.strided or matrix.dtype not in NUMBERS:
        return (
            f"a tensor of {matrix.dtype}, {matrix.layout}; use real numbers, and .to_dense() of a sparse one"
        )
    return tuple(matrix.shape)


def labels_of(arch: object) -> str:
    """The labels of an architecture, for a message; whatever it is that came for one."""
    return short(sorted(arch, key=short)) if isinstance(arch, Mapping) else f"none, it is {short(arch)}"


def _is_finite(matrix: Tensor) -> bool:
    """Is it, as far as that can be seen for nothing: on an accelerator one would wait for the answer."""
    if matrix.device.type != "cpu" or is_transformed(matrix):
        return True
    matrix = matrix.detach()
    return math.isfinite(matrix.sum()) or bool(torch.isfinite(matrix).all())


def _not_finite(label: str) -> ArchError:
    return ArchError(f"the architecture's matrix {label!r} holds numbers that are not finite")


def _readable(label: str, matrix: Tensor) -> Tensor:
    if matrix.device.type == "meta":
        raise ArchError(f"arch[{label!r}] has no numbers, it is on the device 'meta'; make it on another")
    return matrix


class LayerChoice(_Point):
    """Which layer? The sum of the candidates' outputs, each times its weight in row `row` of `arch[label]`.

    Candidates are a mapping name -> module or a sequence of modules (then named "0", "1", ...); their outputs
    must have one shape. A candidate of weight zero is not run, unless the row is differentiated. `node`
    groups the rows of a cell: of all rows with the same node only two stay in a derived cell (None: the row
    stands alone, and one candidate stays). DARTS, arXiv:1806.09055, eq. 2.
    """

    def __init__(
        self,
        candidates: Mapping[str, nn.Module] | Sequence[nn.Module],
        label: str,
        row: int = 0,
        node: int | None = None,
    ):
        super().__init__(label, row)
        if isinstance(candidates, Sequence | nn.ModuleList):
            candidates = {str(i): layer for i, layer in enumerate(candidates)}
        if not isinstance(candidates, Mapping | nn.ModuleDict):
            raise ArgumentError(
                f"the candidates of {label!r} are {short(candidates)}; wanted a list or a dict"
            )
        if not candidates:
            raise ArgumentError(f"the LayerChoice {label!r} has no candidates; give it one layer or more")
        try:
            self.layers = nn.ModuleDict(candidates)
        except (KeyError, TypeError) as error:  # a name with a dot, or of a method; no module
            raise ArgumentError(
                f"the candidates of {label!r} are {short(candidates)}; wanted layers (nn.Module), by "
                f"names that can name a module: {error}"
            ) from error
        self.node = None if node is None else check_whole("node", node, 0, MOST)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the candidates, one per column."""
        return tuple(self.layers)

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """Weigh and add the candidates' outputs. Raises ArchError for a row of zeros without a "none"."""
        total = self.weighted_sum(x, arch)
        if isinstance(total, Tensor):
            return total
        for layer in self.layers.values():
            if isinstance(layer, Zero):
                return layer(x)
        raise ArchError(
            f"row {self.row} of {self.label!r} is all zeros: a layer must be chosen from {self.names}"
        )

    def weighted_sum(self, x: Tensor, arch: Arch) -> Tensor | int:
        """As `forward`, but where nothing is run the answer is the number 0, which adds to any tensor.

        Zeros ("none") are not added: the sum and its gradient are the same without them.
        """
        pairs = zip(self.weights(arch, x), self.layers.values(), strict=True)
        return sum(
            weight * layer(x)
            for weight, layer in pairs
            if not isinstance(layer, Zero) and not (isinstance(weight, float) and weight == 0.0)
        )


class InputChoice(_Point):
    """Which inputs? The sum of the inputs, each times its weight in row `row` of `arch[label]`.

    `n_chosen` of the `n_candidates` inputs stay in a derived architecture; None leaves the number open (none
    at all is allowed, and gives zeros), as the skip connections of ENAS's macro space want it
    (arXiv:1802.03268, section 2.3).
    """

    def __init__(self, n_candidates: int, n_chosen: int | None = 1, label: str = "", row: int = 0):
        super().__init__(label, row)
        self.n_candidates = check_whole(f"n_candidates of {label!r}", n_candidates, 1, MOST)
        self.n_chosen = n_chosen
        if n_chosen is not None:
            self.n_chosen = check_whole(f"n_chosen of {label!r}", n_chosen, 1, n_candidates)

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs' numbers, "0", "1", ..., one per column."""
        return tuple(str(i) for i in range(self.n_candidates))

    def forward(self, inputs: Sequence[Tensor], arch: Arch) -> Tensor:
        """Weigh and add `inputs`, tensors of one shape; zeros of that shape where none is chosen."""
        if not isinstance(inputs, Sequence) or len(inputs) != self.n_candidates:
            got = len(inputs) if isinstance(inputs, Sequence) else short(inputs)
            raise ArchError(f"the InputChoice {self.label!r} wants {self.n_candidates} inputs, got {got}")
        pairs = zip(self.weights(arch, inputs[0]), inputs, strict=True)
        total = sum(w * x for w, x in pairs if not (isinstance(w, float) and w == 0.0))
        return total if isinstance(total, Tensor) else torch.zeros_like(inputs[0])


def points(model: nn.Module) -> dict[str, list[LayerChoice | InputChoice]]:
    """The decision points of a model: label -> one point per row, in the order of the rows.

    Points that share label and row share a decision, so the first of them stands for all. Raises ArchError
    where they do not agree on their candidates, or where a row is missing.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"the model is {short(model)}; wanted an nn.Module")
    found: dict[str, dict[int, LayerChoice | InputChoice]] = {}
    for module in model.modules():
        if not isinstance(module, LayerChoice | InputChoice):
            continue
        rows = found.setdefault(module.label, {})
        first = rows.setdefault(module.row, module)
        other = next(iter(rows.values()))
        if _decision(first) != _decision(module):
            raise ArchError(
                f"the points that share the label {module.label!r} and row {module.row} must agree: one is "
                f"{_decision(first)}, another {_decision(module)}; give them different labels or rows"
            )
        if len(other.names) != len(module.names):
            raise ArchError(
                f"the rows of {module.label!r} must have one number of candidates: one has {other.names}, "
                f"another {module.names}; give them different labels"
            )
    for label, rows in found.items():
        if sorted(rows) != list(range(len(rows))):
            raise ArchError(
                f"the rows of {label!r} must count 0, 1, 2, ... without a gap, got {sorted(rows)}"
            )
    return {label: [rows[i] for i in range(len(rows))] for label, rows in found.items()}


def _decision(point: LayerChoice | InputChoice) -> tuple:
    return type(point).__name__, point.names, point.n_chosen if isinstance(point, InputChoice) else point.node


def choices(model: nn.Module) -> dict[str, tuple[int, int]]:
    """What there is to decide in a model: label -> shape (rows, columns) of its matrix."""
    return {label: (len(rows), len(rows[0].names)) for label, rows in points(model).items()}


def check_shapes(shapes: Mapping[str, tuple[int, int]], arch: Arch) -> None:
    """Raise ArchError unless `arch` has exactly the labels of `shapes`, and tensors of these shapes."""
    if not isinstance(arch, Mapping) or set(arch) != set(shapes):
        raise ArchError(
            f"the architecture has the labels {labels_of(arch)}, the model wants {labels_of(shapes)}"
        )
    for label, shape in shapes.items():
        if _shape(arch[label]) != tuple(shape):
            raise ArchError(
                f"arch[{label!r}] must be a tensor of shape {tuple(shape)}, got {_shape(arch[label])}"
            )


def check_arch(shapes: Mapping[str, tuple[int, int]], arch: Arch) -> None:
    """As `check_shapes`, and raise ArchError for a number that is not finite, too."""
    check_shapes(shapes, arch)
    for label, matrix in arch.items():
        if not bool(torch.isfinite(_readable(label, matrix.detach())).all()):
            raise _not_finite(label)


def check_weights(shapes: Mapping[str, tuple[int, int]], arch: Arch, x: Tensor) -> None:
    """As `check_shapes`, for a model that is given x: the matrices are on the CPU, or where x is, and on the
    CPU they are finite. (On an accelerator a NaN is not looked for: the step would wait for the answer.)
    """
    check_shapes(shapes, arch)
    for label, matrix in arch.items():
        if matrix.device.type != "cpu" and matrix.device != x.device:
            raise ArchError(
                f"arch[{label!r}] is on {matrix.device}, x on {x.device}; bring it there with .to"
            )
        if not _is_finite(matrix):
            raise _not_finite(label)


def random_arch(model: nn.Module, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Draw an architecture uniformly, as zeros and ones (float32, on the CPU).

    A plain `LayerChoice` gets one candidate; a node of a cell gets two different inputs, each with one
    operation other than "none"; an `InputChoice` gets `n_chosen` inputs, or a coin flip for each where the
    number is open.
    """

    def pick(n: int, k: int) -> list[int]:
        return torch.randperm(n, generator=generator)[:k].tolist()

    arch = {}
    for label, rows in points(model).items():
        matrix = torch.zeros(len(rows), len(rows[0].names))
        nodes: dict[int, list[int]] = {}
        for i, point in enumerate(rows):
            if isinstance(point, InputChoice):
                if point.n_chosen is None:
                    matrix[i] = torch.randint(2, (point.n_candidates,), generator=generator).float()
                else:
                    matrix[i, pick(point.n_candidates, point.n_chosen)] = 1.0
            elif point.node is None:
                matrix[i, pick(len(point.names), 1)] = 1.0
            else:
                nodes.setdefault(point.node, []).append(i)
        for node_rows in nodes.values():
            for chosen in pick(len(node_rows), 2):
                i = node_rows[chosen]
                real = [column for column, name in enumerate(rows[i].names) if name != "none"]
                matrix[i, real[pick(len(real), 1)[0]]] = 1.0
        arch[label] = matrix
    return arch
