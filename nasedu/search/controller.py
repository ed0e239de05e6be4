"""The controller of ENAS: an LSTM that writes an architecture, one decision after the other.

Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018,
arXiv:1802.03268, section 2. Where nothing else is said, the constants and the order of the steps are those of
the authors' released code (github.com/melodyguan/enas, src/cifar10/micro_controller.py).
"""

from collections.abc import Callable, Sequence
from math import log, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasedu.errors import ArgumentError, check_number, check_whole, short
from nasedu.search.decisions import (
    CellPart,
    Head,
    InputPart,
    LayerPart,
    Memory,
    Part,
    Sample,
    Writer,
    parts_of,
    shapes_of,
)
from nasedu.space.cells import check_ops
from nasedu.space.ops import PRIMITIVES

ENAS_OPS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "skip_connect")
"""The five operations of ENAS's micro search."""

MACRO_CONSTANTS = {"tanh_constant": 1.5, "op_tanh_reduce": 1.0}
"""Where the released code of the macro search differs from that of the micro search."""

IMPOSSIBLE = -1e9  # a logit of something that can't be chosen; finite, so that 0 x log 0 is 0


class Controller(nn.Module):
    """Writes cells token by token: `sample`. For any other model: `Controller.for_model(model)`.

    `Controller(n_nodes, ops, cells)` writes the cells in one breath: the LSTM's state goes on from the normal
    into the reduction cell. Of `ops` it draws all but "none". Being tiny it stays on the CPU. Its numbers:

    lstm_size       64, released code
    tanh_constant   logits become constant x tanh(logits), so that no probability comes near 0 or 1: 1.10
                    released micro code, 1.5 released macro code (`for_model` takes it where there are no
                    cells), 2.5 paper
    op_tanh_reduce  operations get tanh_constant / this: 2.5 released micro code, 1 (no such thing) macro code
    temperature     logits are divided by this before the tanh: 1 (none) released code, 5 paper
    start_bias      10: where the trainable bias of a cell's separable convolutions starts, the others' at 0
                    ([10, 10, 0, 0, 0] for `ENAS_OPS`); released micro code. In float32 tanh(10) is 1 and its
                    derivative 0, so the logits of separable convolutions stay at their bound for good
    normal_bias     0.25: in the normal cell added to the logits of separable convolutions, subtracted from
                    all others, never trained; released micro code
    skip_target     0.4: the share of open inputs to be taken, released macro code
    init_range      0.1: all other weights start uniform in (-0.1, 0.1), released code

    ("paper": as others cite it, not read at the source.) An open input j is taken with probability
    sigmoid(q_j), and `skip_penalty` is KL(sigmoid(q_j) || skip_target) of this very probability, summed over
    the inputs of an `InputChoice` and averaged over these. The released macro code draws with sigmoid(2 q)
    and penalises sigmoid(q); and its "entropy" is -p log p of the drawn action alone, where ours is the
    entropy of the distribution. An `InputChoice` of a given number draws without replacement.

    Several sequences give one matrix: a node's two (input, operation) pairs are drawn in an order, which the
    sum forgets. `log_prob` is that of the sequence; a matrix has the sum of its sequences' probabilities. And
    since the anchors of a cell's two inputs are zeros, as in the released code, what the LSTM writes next
    can't depend on which of the two was drawn.
    """

    def __init__(
        self,
        n_nodes: int = 4,
        ops: Sequence[str] = PRIMITIVES,
        cells: Sequence[str] = ("normal", "reduce"),
        *,
        parts: Sequence[Part] | None = None,
        lstm_size: int = 64,
        tanh_constant: float = 1.10,
        op_tanh_reduce: float = 2.5,
        temperature: float = 1.0,
        start_bias: float = 10.0,
        normal_bias: float = 0.25,
        skip_target: float = 0.4,
        init_range: float = 0.1,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        check_number("skip_target", skip_target, 1e-6, 1 - 1e-6)
        check_whole("lstm_size", lstm_size, 1, 10_000)
        for name, number in (("tanh_constant", tanh_constant), ("op_tanh_reduce", op_tanh_reduce),
                             ("temperature", temperature), ("init_range", init_range)):  # fmt: skip
            check_number(name, number, 1e-6, 1e6)
        for name, number in (("start_bias", start_bias), ("normal_bias", normal_bias)):
            check_number(name, number, -1e6, 1e6)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ArgumentError(f"generator is {short(generator)}; wanted a torch.Generator, or None")
        if parts is None:
            check_whole("n_nodes", n_nodes, 1, 50)
            check_ops(ops)
            if not isinstance(cells, Sequence) or isinstance(cells, str) or not cells:
                raise ArgumentError(f"cells is {short(cells)}; wanted labels, such as ('normal', 'reduce')")
            parts = [CellPart(label, n_nodes, tuple(ops)) for label in cells]
        if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, Part) for part in parts):
            raise ArgumentError(f"parts is {short(parts)}; wanted what parts_of(model) gives")
        self.parts = list(parts)
        self.shapes = shapes_of(self.parts)
        self.tanh_constant, self.op_tanh_constant = tanh_constant, tanh_constant / op_tanh_reduce
        self.temperature, self.normal_bias, self.skip_target = temperature, normal_bias, skip_target
        self.start = nn.Parameter(torch.empty(1, lstm_size))  # g_emb in the released code
        self.lstm = nn.LSTMCell(lstm_size, lstm_size, bias=False)
        self.key = nn.Linear(lstm_size, lstm_size, bias=False)  # W1
        self.query = nn.Linear(lstm_size, lstm_size, bias=False)  # W2
        self.value = nn.Linear(lstm_size, 1, bias=False)  # v
        # All cells with the same operations share a head, and so do the rows of one label.
        self.heads = nn.ModuleList()
        self.head_of: dict[object, int] = {}
        self.candidates = nn.ParameterDict()
        for number, part in enumerate(self.parts):
            if not isinstance(part, InputPart) and _sharing(part) not in self.head_of:
                self.head_of[_sharing(part)] = len(self.heads)
                self.heads.append(Head(lstm_size, part.names, isinstance(part, CellPart)))
            elif isinstance(part, InputPart) and not self._in_a_chain(number, part):
                self.candidates[str(number)] = nn.Parameter(torch.empty(part.n_candidates, lstm_size))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-init_range, init_range, generator=generator)
            for part in self.parts:
                if isinstance(part, CellPart):
                    self._head(part).logits.bias.copy_(start_bias * self._head(part).favoured)

    @classmethod
    def for_model(cls, model: nn.Module, **constants: Any) -> "Controller":
        """The controller for a model's decision points; `constants` are the arguments of the class."""
        parts = parts_of(model)
        cells = any(isinstance(part, CellPart) for part in parts)
        return cls(parts=parts, **{**({} if cells else MACRO_CONSTANTS), **constants})

    def sample(self, n: int = 1, generator: torch.Generator | None = None) -> Sample:
        """Write n architectures at once. Gradients flow into `log_prob`, `entropy` and `skip_penalty`."""
        return self._write(n, lambda p: torch.multinomial(p, 1, generator=generator)[:, 0])

    def replay(self, decisions: Tensor) -> Sample:
        """Write the samples of given decisions (n, T) again, with all their probabilities.

        Raises ValueError for decisions that can't be of this controller.
        """
        sizes = self.sizes
        if decisions.ndim != 2 or decisions.shape[1] != len(sizes):
            raise ValueError(f"wanted decisions (n, {len(sizes)}), got {tuple(decisions.shape)}")
        if bool((decisions < 0).any() or (decisions >= torch.tensor(sizes)).any()):
            raise ValueError(f"decision t must be from 0 up to, not including, {sizes}[t]")
        columns = iter(decisions.unbind(dim=1))
        return self._write(len(decisions), lambda p: next(columns))

    def log_prob(self, decisions: Tensor) -> Tensor:
        """The log-probabilities (n,) of given decisions (n, T)."""
        return self.replay(decisions).log_prob

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many options each of the T decisions has."""
        with torch.no_grad():
            return tuple(len(step.options) for step in self.sample(1, torch.Generator().manual_seed(0)).steps)

    def all_decisions(self, limit: int = 1_000_000) -> Tensor:
        """Every sequence of decisions there is, (N, T). Raises ValueError if there are more than `limit`."""
        if prod(self.sizes) > limit:
            raise ValueError(f"the space has {prod(self.sizes):,} sequences, more than limit={limit:,}")
        decisions = torch.cartesian_prod(*map(torch.arange, self.sizes)).reshape(-1, len(self.sizes))
        with torch.no_grad():
            return decisions[self.log_prob(decisions) > IMPOSSIBLE / 2]  # an input is not taken twice

    def _write(self, n: int, choose: Callable[[Tensor], Tensor]) -> Sample:
        writer = Writer(self.lstm, self.start.expand(n, -1), self.shapes, choose)
        for number, part in enumerate(self.parts):
            if isinstance(part, CellPart):
                self._write_cell(writer, part)
            elif isinstance(part, LayerPart):
                self._write_layer(writer, part)
            else:
                self._write_inputs(writer, part, number)
        return writer.finish()

    def _write_cell(self, writer: Writer, part: CellPart) -> None:
        head = self._head(part)
        fixed = self.normal_bias * (2.0 * head.favoured - 1.0) if part.label == "normal" else 0.0
        memory, writer.x, row = Memory(), writer.start, 0
        for _ in range(2):
            h = writer.advance()
            memory.add(torch.zeros_like(h), self.key(h))
        for node in range(2, part.n_nodes + 2):
            inputs, ops = [], []
            for _ in range(2):
                logits = self._attend(memory, writer.advance())
                inputs.append(writer.draw(f"{part.label} node {node}: input", _numbers(node), logits))
                writer.x = memory.recall(inputs[-1])
            for _ in range(2):
                logits = self._bounded(head.logits(writer.advance()), self.op_tanh_constant) + fixed
                ops.append(writer.draw(f"{part.label} node {node}: operation", head.names, logits))
                writer.x = head.embedding(ops[-1])
            for source, op in zip(inputs, ops, strict=True):
                writer.write(part.label, row + source, head.columns[op])
            h = writer.advance()
            memory.add(h, self.key(h))
            writer.x, row = writer.start, row + node

    def _write_layer(self, writer: Writer, part: LayerPart) -> None:
        head = self._head(part)
        logits = self._bounded(head.logits(writer.advance()), self.op_tanh_constant)
        op = writer.draw(f"{self._name(part)}: layer", head.names, logits)
        writer.write(part.label, part.row, op)
        writer.x = head.embedding(op)
        h = writer.advance()
        writer.layers.add(h, self.key(h))
        writer.x = writer.start

    def _write_inputs(self, writer: Writer, part: InputPart, number: int) -> None:
        k = part.n_candidates
        memory = Memory(writer.layers.anchors[:k], writer.layers.keys[:k])
        if str(number) in self.candidates:
            anchors = [a.expand_as(writer.h) for a in self.candidates[str(number)]]
            memory = Memory(anchors, [self.key(a) for a in anchors])
        name = f"{self._name(part)}: input"
        if part.n_chosen is None:
            q = self._attend(memory, writer.advance())  # (n, k)
            coins = [torch.stack([torch.zeros_like(q_j), q_j], dim=1) for q_j in q.unbind(dim=1)]
            taken = [writer.draw(f"{name} {j}", ("leave", "take"), coin) for j, coin in enumerate(coins)]
            take = torch.stack(taken, dim=1).to(q.dtype)
            writer.arch[part.label][:, part.row] = take.float()
            writer.penalties.append(_divergence(q, self.skip_target).sum(dim=1))
            total = (take[..., None] * torch.stack(memory.anchors, dim=1)).sum(dim=1)
            writer.x = total / (1 + take.sum(dim=1, keepdim=True))
            return
        gone = torch.zeros(len(writer.h), k, dtype=torch.bool)
        for _ in range(part.n_chosen):
            logits = self._attend(memory, writer.advance()).masked_fill(gone, IMPOSSIBLE)
            choice = writer.draw(name, _numbers(k), logits)
            gone = gone.scatter(1, choice[:, None], True)
            writer.write(part.label, part.row, choice)
            writer.x = memory.recall(choice)

    def _name(self, part: LayerPart | InputPart) -> str:
        return part.label if self.shapes[part.label][0] == 1 else f"{part.label} {part.row}"

    def _head(self, part: CellPart | LayerPart) -> Any:
        return self.heads[self.head_of[_sharing(part)]]

    def _attend(self, memory: Memory, h: Tensor) -> Tensor:
        """Logits (n, j) over what is in memory: v^T tanh(W1 h_j + W2 h), bounded."""
        keys = torch.stack(memory.keys, dim=1)  # (n, j, H)
        return self._bounded(self.value((keys + self.query(h)[:, None]).tanh())[..., 0], self.tanh_constant)

    def _bounded(self, logits: Tensor, constant: float) -> Tensor:
        return constant * (logits / self.temperature).tanh()

    def _in_a_chain(self, number: int, part: InputPart) -> bool:
        """Are its candidates as many as the layers before the latest? Then it attends to these."""
        layers = sum(isinstance(before, LayerPart) for before in self.parts[:number])
        return part.n_candidates == layers - 1


def _sharing(part: CellPart | LayerPart) -> object:
    return part.names if isinstance(part, CellPart) else (part.label, part.names)


def _numbers(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def _divergence(q: Tensor, target: float) -> Tensor:
    """KL(sigmoid(q) || target), element by element."""
    p, log_p, log_not = q.sigmoid(), F.logsigmoid(q), F.logsigmoid(-q)
    return p * (log_p - log(target)) + (1 - p) * (log_not - log(1 - target))
