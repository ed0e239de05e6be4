"""The fast path of a `Cell`: the numbers of the readable one, from fewer and larger pieces of work.

What a search step does is little arithmetic on many small feature maps, so its time is that of moving maps
through memory and of starting kernels. Four ideas, each a function below:

    edges side by side    The edges that leave a state read the same map, so an operation of all of them is
                          computed at once, on E x C channels: `_side_by_side`, `Depthwise`, `_pointwise`.
    fold what is linear   A batch norm is y -> s y + t, once its mean and variance are known. The last one of
                          an operation and the edge's weight are one scale and shift, applied while summing:
                          `WeightedSum`. Neither the normalised nor the weighted map is ever written.
    compute it again      Batch norm, ReLU and depthwise convolution keep only what came in; the map between
                          them is made once more on the way back: `NormReluDepthwise`.
    share what is equal   Pools and identities are the same map on all edges out of a state: one batch norm
                          for all of them, and one product of matrices: `_unweighted`.

Nothing here has weights: it reads those of the cell's modules, and moves their running averages. `Cell` calls
it where `applies` says that it may; whatever it does not know, such as an operation of your own, runs as the
readable path would run it.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from nasedu.space.choice import Arch, LayerChoice, Sampled, is_differentiated, is_transformed
from nasedu.space.fast_ops import AvgPool, DilatedConv, MaxPool, Pointwise, ReLU, once
from nasedu.space.genotype import edges as edges_of
from nasedu.space.ops import FactorizedReduce, Zero, known

if TYPE_CHECKING:
    from nasedu.space.cells import Cell, PartialEdge

LAST = torch.channels_last
# Bytes of one map of all edges side by side, at most: larger ones do not stay in the cache of a CPU.
WIDE = 6 * 2**20

conv_backward = torch.ops.aten.convolution_backward
bn_backward = torch.ops.aten.native_batch_norm_backward


# ---- Statistics and running averages


def _rows(x: Tensor) -> Tensor:
    """(B, C, H, W) in channels-last memory -> its (B H W, C) pixels, the same memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _tile(x: Tensor) -> int:
    """How many pixels of a map go side by side, for rows of 32 numbers or more: short rows are slow."""
    n, pixels = max(1, 32 // x.shape[1]), x.numel() // x.shape[1]
    return n if pixels % n == 0 else 1


def statistics(y: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) -> mean and (biased) variance of each channel, (C,) each."""
    if y.device.type != "cpu":
        variance, mean = torch.var_mean(y, (0, 2, 3), correction=0)
        return mean, variance
    n = _tile(y)
    rows = _rows(y).view(-1, n * y.shape[1], 1, 1)
    means, variances = (v.view(n, -1) for v in torch.batch_norm_update_stats(rows, None, None, 0.0))
    mean = means.mean(dim=0)
    # The law of total variance: the mean of the variances and the variance of the means.
    return mean, variances.mean(dim=0) + (means - mean).square().mean(dim=0)


class Averages:
    """The batch norms that a forward pass has used, with what they saw; `update` moves their averages."""

    def __init__(self) -> None:
        self.norms: list[nn.BatchNorm2d] = []
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []

    def see(self, y: Tensor, norms: Sequence[nn.BatchNorm2d], shared: bool = False) -> tuple[Tensor, Tensor]:
        """The statistics of `y`: of the maps of len(norms) edges side by side, or of one that they share."""
        with torch.no_grad():
            mean, variance = statistics(y)
            n, pixels = len(norms), y.numel() // y.shape[1]
            unbiased = variance * (pixels / max(pixels - 1, 1))
            self.norms += norms
            self.means += [mean] * n if shared else mean.chunk(n)
            self.variances += [unbiased] * n if shared else unbiased.chunk(n)
        return mean, variance

    @torch.no_grad()
    def update(self) -> None:
        """As `nn.BatchNorm2d` does in training, for all of them at once."""
        by_momentum: dict[float | None, list[Any]] = {}
        for seen in zip(self.norms, self.means, self.variances, strict=True):
            if seen[0].track_running_stats:
                by_momentum.setdefault(seen[0].momentum, []).append(seen)
        for momentum, of in by_momentum.items():
            norms, means, variances = zip(*of, strict=True)
            torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)
            averages = [norm.running_mean for norm in norms] + [norm.running_var for norm in norms]
            if momentum is not None:
                torch._foreach_lerp_(averages, means + variances, momentum)
                continue
            counts = [norm.num_batches_tracked for norm in norms] * 2  # plain means
            for average, seen, count in zip(averages, means + variances, counts, strict=True):
                average.lerp_(seen, 1.0 / count.to(seen))


# ---- The three functions with a backward pass of their own


def _differentiably(
    plain: Callable, inputs: Sequence[Tensor], gradient: Tensor, needed: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of `plain(*inputs)`, themselves with a graph: for second derivatives (create_graph)."""
    with torch.enable_grad():
        own = [x.view_as(x) for x in inputs]  # names of their own: an input may depend on another one
        wanted = [x for x, need in zip(own, needed, strict=True) if need]
        found = iter(torch.autograd.grad(plain(*own), wanted, gradient, create_graph=True))
    return [next(found) if need else None for need in needed]


def _depthwise(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])


def _grids(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 4 C, H/2, W/2): the four interleaved grids that dilation 2 never mixes."""
    b, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(b, h // 2, 2, w // 2, 2, c)
    return x.transpose(2, 3).reshape(b, h // 2, w // 2, 4 * c).permute(0, 3, 1, 2)


def _depthwise_backward(
    g: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, need_x: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `_depthwise` in x and in the weight, as compositions that are fast on a CPU."""
    k = weight.shape[-1]
    p = k // 2

    def gradient(x: Tensor, weight: Tensor, padding: Sequence[int], mask: Sequence[bool]) -> tuple:
        sizes = [stride, stride], padding, [dilation, dilation]
        return conv_backward(g, x, weight, None, *sizes, False, [0, 0], x.shape[1], [*mask, False])[:2]

    same = [dilation * p] * 2
    if x.device.type != "cpu":
        return gradient(x, weight, same, (need_x, need_weight))
    gx = None
    if need_x and stride == 1:  # the same convolution with the kernel turned round: a forward pass is faster
        gx = _depthwise(g, weight.flip(2, 3), 1, dilation)
    elif need_x:
        gx = gradient(x, weight, same, (True, False))[0]
    if not need_weight:
        return gx, None
    grids = dilation == 2 and stride == 1 and x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
    if grids:
        g, x, dilation, same = _grids(g), _grids(x), 1, [p, p]
    weight = weight.new_empty(x.shape[1], 1, k, k)
    if k == 3 or dilation > 1:
        gw = gradient(x, weight, same, (False, True))[1]
    else:  # oneDNN is fast for kernels of three columns, and many times slower beyond: three at a time
        gw = torch.cat(
            [
                gradient(F.pad(x, (p - i, i + n - 1 - p, p, p)), weight[..., :n], [0, 0], (False, True))[1]
                for i in range(0, k, 3)
                for n in [min(3, k - i)]
            ],
            dim=3,
        )
    return gx, gw.view(4, -1, 1, k, k).sum(dim=0) if grids else gw


class Depthwise(Function):
    """A convolution of each channel alone: x (B, K, H, W), weight (K, 1, k, k), stride, dilation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        """See `_depthwise`."""
        ctx.save_for_backward(x, weight)
        ctx.sizes = stride, dilation
        return _depthwise(x, weight, stride, dilation)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        """One gradient for each argument of `forward`, None where there is none."""
        needed = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():
            found = _differentiably(lambda *xs: _depthwise(*xs, *ctx.sizes), ctx.saved_tensors, g, needed)
            return *found, None, None
        g = g.contiguous(memory_format=LAST)
        return *_depthwise_backward(g, *ctx.saved_tensors, *ctx.sizes, *needed), None, None


def _normalised(y: Tensor, eps: float) -> Tensor:
    return F.batch_norm(y, None, None, training=True, eps=eps)


class NormReluDepthwise(Function):
    """Batch norm, ReLU, depthwise convolution of y (B, K, H, W), whose mean and variance are given.

    It keeps y alone, and makes the map between, max((y - mean) / sigma, 0), again on the way back.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
        """The convolution of `between`."""
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(y, weight, mean, inverse)
        ctx.eps = eps
        return _depthwise(NormReluDepthwise.between(y, mean, inverse), weight)

    @staticmethod
    def between(y: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
        """The map that is not kept."""
        column = (1, -1, 1, 1)
        return torch.addcmul((-mean * inverse).view(column), y, inverse.view(column)).relu_()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        """One gradient for each argument of `forward`, None where there is none."""
        y, weight, mean, inverse = ctx.saved_tensors
        need_y, need_weight = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():

            def plain(y: Tensor, weight: Tensor) -> Tensor:
                return _depthwise(F.relu(_normalised(y, ctx.eps)), weight)

            return *_differentiably(plain, (y, weight), g, (need_y, need_weight)), None, None, None
        g, middle = g.contiguous(memory_format=LAST), NormReluDepthwise.between(y, mean, inverse)
        gz, gw = _depthwise_backward(g, middle, weight, 1, 1, need_y, need_weight)
        if gz is None:
            return None, gw, None, None, None
        gz = torch.ops.aten.threshold_backward(gz, middle, 0)
        gy = bn_backward(gz, y, None, None, None, mean, inverse, True, ctx.eps, [True, False, False])[0]
        return gy, gw, None, None, None


def scale_and_shift(weights: Tensor, means: Tensor, inverses: Tensor) -> tuple[Tensor, Tensor]:
    """s_i (n, K) and t (K,) of sum_i w_i (y_i - mean_i) / sigma_i = sum_i s_i y_i + t; weights (E, n)."""
    scales = weights.t().repeat_interleave(means.shape[1] // len(weights), dim=1) * inverses
    return scales, -(scales * means).sum(dim=0)


class WeightedSum(Function):
    """sum_i w_i (y_i - mean_i) / sigma_i: batch norm, weight and sum of n maps, each of E edges side by side.

    weights (E, n); ys n maps (B, E x C, H, W); moments their n means, then their n variances, (E x C,) each.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, eps: float, moments: Sequence[Tensor], *ys: Tensor) -> Tensor:
        """The sum, one map after the other."""
        n, (b, k, h, w) = len(ys), ys[0].shape
        means = torch.stack(list(moments[:n]))  # (n, K)
        inverses = (torch.stack(list(moments[n:])) + eps).rsqrt()
        scales, shift = scale_and_shift(weights, means, inverses)
        ctx.save_for_backward(weights, means, inverses, scales, *ys)
        ctx.eps, tile = eps, _tile(ys[0])
        shift, scales = shift.repeat(tile), scales.repeat(1, tile)
        total = torch.addcmul(shift, _rows(ys[0]).view(-1, tile * k), scales[0])
        for y, scale in zip(ys[1:], scales[1:], strict=True):
            total.addcmul_(_rows(y).view(-1, tile * k), scale)
        return total.view(b, h, w, k).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        """One gradient for each argument of `forward`, None where there is none."""
        weights, means, inverses, scales, *ys = ctx.saved_tensors
        needed = ctx.needs_input_grad[:1] + ctx.needs_input_grad[3:]
        b, k, h, w = g.shape
        if torch.is_grad_enabled():

            def plain(weights: Tensor, *ys: Tensor) -> Tensor:
                columns = weights.t().repeat_interleave(k // len(weights), dim=1)[:, :, None, None]
                return sum(c * _normalised(y, ctx.eps) for c, y in zip(columns, ys, strict=True))

            of_weights, *rest = _differentiably(plain, (weights, *ys), g, needed)
            return of_weights, None, None, *rest
        tile, pixels = _tile(g), g.numel() // k
        g = _rows(g.contiguous(memory_format=LAST)).view(-1, tile * k)
        flat = [_rows(y).view(-1, tile * k) for y in ys]
        g_sum = g.sum(dim=0).view(tile, k).sum(dim=0)
        gy_sums = torch.stack([(g * y).sum(dim=0).view(tile, k).sum(dim=0) for y in flat])  # (n, K)
        gz_sums = (gy_sums - means * g_sum) * inverses  # of the gradient times the normalised map
        of_weights = gz_sums.view(len(ys), len(weights), -1).sum(dim=2).t() if needed[0] else None
        # The gradient of a batch norm is a g + b y + c.
        of_y = -scales * inverses * gz_sums / pixels
        constant = -scales * g_sum / pixels - of_y * means
        a, of_y, constant = (v.repeat(1, tile) for v in (scales, of_y, constant))
        gys = [
            torch.addcmul(constant[i], g, a[i]).addcmul_(y, of_y[i]).view(b, h, w, k).permute(0, 3, 1, 2)
            if needed[1 + i]
            else None
            for i, y in enumerate(flat)
        ]
        return of_weights, None, None, *gys


# ---- The operations of all edges that leave a state


class _Side:
    """A state x (B, C, H, W) on its way into `n` edges of one stride, side by side."""

    def __init__(self, x: Tensor, n: int, stride: int, averages: Averages):
        self.n, self.stride, self.averages = n, stride, averages
        self.relu = once(x, "relu", F.relu)

    @cached_property
    def repeated(self) -> Tensor:
        """max(x, 0) for each edge: (B, n x C, H, W)."""
        return torch.cat([self.relu] * self.n, dim=1)

    @cached_property
    def even(self) -> Tensor:
        """The same for the grid of even rows and columns, which is all that dilation and stride 2 want."""
        return torch.cat([self.relu[:, :, ::2, ::2]] * self.n, dim=1)


def _weights(convolutions: Sequence[nn.Conv2d]) -> Tensor:
    return torch.cat([convolution.weight for convolution in convolutions])


# Each takes the state and, for each layer of the operation, those of all edges. The answer is their maps side
# by side as they come into the last batch norm, and these batch norms.
Maps = tuple[Tensor, Sequence[nn.BatchNorm2d]]


def _sep_conv(side: _Side, layers: Sequence[Sequence]) -> Maps:
    _, first, mix_first, norms, _, second, mix_second, last = layers
    u = Depthwise.apply(side.repeated, _weights(first), side.stride, 1)
    y = F.conv2d(u, _weights(mix_first), groups=side.n)
    u = NormReluDepthwise.apply(y, _weights(second), *side.averages.see(y, norms), norms[0].eps)
    return F.conv2d(u, _weights(mix_second), groups=side.n), last


def _dil_conv(side: _Side, layers: Sequence[Sequence]) -> Maps:
    _, depthwise, mix, norms = layers
    if side.stride == 2 and side.relu.shape[2] % 2 == side.relu.shape[3] % 2 == 0:
        u = Depthwise.apply(side.even, _weights(depthwise), 1, 1)
    else:
        u = Depthwise.apply(side.repeated, _weights(depthwise), side.stride, 2)
    return F.conv2d(u, _weights(mix), groups=side.n), norms


def _conv(side: _Side, layers: Sequence[Sequence]) -> Maps:
    _, convolutions, norms = layers
    x, weight, stride = side.relu, _weights(convolutions), side.stride
    if weight.shape[-1] == 1:  # see `fast_ops.Pointwise`
        x, stride = x[:, :, ::stride, ::stride], 1
    return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2), norms


def _reduce(side: _Side, layers: Sequence[Sequence]) -> Maps:
    pixels = torch.cat([side.relu[:, :, ::2, ::2], side.relu[:, :, 1::2, 1::2]], dim=1)
    blocks = [torch.block_diag(r.conv_1.weight.flatten(1), r.conv_2.weight.flatten(1)) for r in layers[0]]
    return F.conv2d(pixels, torch.cat(blocks)[:, :, None, None]), [r.bn for r in layers[0]]


_NORM = nn.BatchNorm2d
CONVOLUTIONS: dict[tuple[type, ...], Callable[[_Side, Sequence[Sequence]], Maps]] = {
    (ReLU, nn.Conv2d, nn.Conv2d, _NORM) * 2: _sep_conv,
    (ReLU, DilatedConv, nn.Conv2d, _NORM): _dil_conv,
    (ReLU, nn.Conv2d, _NORM): _conv,
    (ReLU, Pointwise, _NORM): _conv,
    (FactorizedReduce,): _reduce,
}
UNWEIGHTED = {(MaxPool, _NORM), (AvgPool, _NORM), (nn.Identity,)}
BUILT_IN = known()  # operations of your own come later


def _layers(operation: nn.Module) -> tuple[nn.Module, ...]:
    return tuple(operation.children()) if type(operation) is nn.Sequential else (operation,)


def _types(operation: nn.Module) -> tuple[type, ...]:
    return tuple(map(type, _layers(operation)))


def _normalised_once(y: Tensor, norms: Sequence[nn.BatchNorm2d], averages: Averages) -> Tensor:
    """Batch norm without affine, of one map that all `norms` see."""
    moments = averages.see(y, norms, shared=True)
    return WeightedSum.apply(y.new_ones(1, 1), norms[0].eps, moments, y)


class _Edge(NamedTuple):
    """An edge out of a state: its row of the matrix, its operations, and which of them are run."""

    row: int
    choice: LayerChoice
    run: Sequence[str]


class _Weights:
    """The matrix of one label, and which of its entries are run: all where one is differentiated."""

    def __init__(self, arch: Arch, label: str):
        matrix = arch[label]
        # Of a plain matrix on an accelerator zeros are run, too: to read it would be to wait for it.
        on_cpu = matrix.device.type == "cpu"
        self.run = [[True] * matrix.shape[1]] * matrix.shape[0]
        if isinstance(arch, Sampled):
            self.run = arch.chosen(label)
        elif on_cpu and not is_differentiated(matrix):
            self.run = (matrix != 0).tolist()
        self.entries = [row.unbind() for row in matrix.unbind()]

    def __call__(self, edges: Sequence[_Edge], like: Tensor) -> Tensor:
        """(E, n): how much each edge takes of each operation that edges[0] runs, as all of them do."""
        columns = [edges[0].choice.names.index(name) for name in edges[0].run]
        rows = [torch.stack([self.entries[edge.row][i] for i in columns]) for edge in edges]
        return torch.stack(rows).to(like)


def _unweighted(x: Tensor, edges: Sequence[_Edge], weights: _Weights, averages: Averages) -> Sequence[Tensor]:
    """The weighted sum of pools and identity for each edge: one product (E, n) @ (n, numbers of a map)."""
    maps = []
    for name in edges[0].run:
        pool, *norms = zip(*(_layers(edge.choice.layers[name]) for edge in edges), strict=True)
        y = pool[0](x)
        maps.append(_normalised_once(y, norms[0], averages) if norms else y)
    b, c, h, w = maps[0].shape
    mixed = weights(edges, x) @ torch.stack([_rows(z).flatten() for z in maps])
    return [one.view(b, h, w, c).permute(0, 3, 1, 2) for one in mixed.unbind()]


def _convolutions(
    x: Tensor, edges: Sequence[_Edge], stride: int, weights: _Weights, averages: Averages
) -> Sequence[Tensor]:
    """The weighted sum of the operations with weights for each edge."""
    side, ys, moments = _Side(x, len(edges), stride, averages), [], []
    for name in edges[0].run:
        layers = list(zip(*(_layers(edge.choice.layers[name]) for edge in edges), strict=True))
        y, norms = CONVOLUTIONS[_types(edges[0].choice.layers[name])](side, layers)
        ys.append(y)
        moments.append(averages.see(y, norms))
    means, variances = zip(*moments, strict=True)
    total = WeightedSum.apply(weights(edges, x), norms[0].eps, means + variances, *ys)
    return total.chunk(len(edges), dim=1)


def _out_of(
    x: Tensor, edges: Sequence[_Edge], stride: int, weights: _Weights, averages: Averages
) -> dict[int, list[Tensor]]:
    """Row of each edge that leaves the state x -> the terms of its sum; none where nothing is run."""
    terms: dict[int, list[Tensor]] = {edge.row: [] for edge in edges}
    pools: dict[tuple, list[_Edge]] = {}  # edges that run the same operations of a kind go together
    convolutions: dict[tuple, list[_Edge]] = {}
    for edge in edges:
        types = {name: _types(edge.choice.layers[name]) for name in edge.run}
        built_in = {name: of for name, of in types.items() if name in BUILT_IN}
        for groups, kinds in (pools, UNWEIGHTED), (convolutions, CONVOLUTIONS):
            if mine := {name: of for name, of in built_in.items() if of in kinds}:
                groups.setdefault(tuple(mine.items()), []).append(edge._replace(run=list(mine)))
                types = {name: of for name, of in types.items() if name not in mine}
        for name, of in types.items():
            if of != (Zero,):
                entry = weights.entries[edge.row][edge.choice.names.index(name)]
                terms[edge.row].append(entry.to(x.device) * edge.choice.layers[name](x))
    for group in pools.values():
        for edge, term in zip(group, _unweighted(x, group, weights, averages), strict=True):
            terms[edge.row].append(term)
    most = max(1, WIDE // (x.numel() * x.element_size()))
    for group in convolutions.values():
        size = -(-len(group) // -(-len(group) // most))  # as even as can be, at most `most`
        for part in (group[i : i + size] for i in range(0, len(group), size)):
            for edge, term in zip(part, _convolutions(x, part, stride, weights, averages), strict=True):
                terms[edge.row].append(term)
    return terms


# ---- The cell


def _autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _choices(cell: "Cell") -> list[LayerChoice]:
    """The mixed edge of each row; with partial channels it stands inside a `PartialEdge`."""
    return [cast(LayerChoice, getattr(edge, "choice", edge)) for edge in cell.edges]


def applies(cell: "Cell", s0: Tensor, s1: Tensor, arch: Arch) -> bool:
    """May the fast path compute this cell? Else the readable one must.

    It must with hooks on a layer, batch norms in eval mode, autocast, forward-mode derivatives or
    `torch.func` transforms, and for inputs that it would refuse.
    """
    wanted = s0.device.type == "cpu" if cell.fast is None else cell.fast
    matrix = arch.get(cell.label)
    if not wanted or not isinstance(matrix, Tensor) or _autocast(s0.device.type):
        return False
    choices = _choices(cell)
    if tuple(matrix.shape) != (len(choices), len(choices[0].names)):
        return False
    if any(map(is_transformed, (s0, s1, matrix))):
        return False
    if cell.label == "reduce" and (s1.shape[2] % 2 or s1.shape[3] % 2):
        return False
    above = [module for part in (*cell.preprocess, *cell.edges) for module in (part, *part.children())]
    operations = [operation for choice in choices for operation in choice.layers.values()]
    modules = above + operations + [layer for operation in operations for layer in operation.children()]
    return all(
        not (module._forward_hooks or module._forward_pre_hooks)
        and (not isinstance(module, nn.BatchNorm2d) or (module.training and not module.affine))
        for module in modules
    )


def _preprocessed(layer: nn.Module, s: Tensor, averages: Averages) -> Tensor:
    """The same as `layer(s)`, a `FactorizedReduce` or `relu_conv_bn`."""
    side, layers = _Side(s.contiguous(memory_format=LAST), 1, 1, averages), [(one,) for one in _layers(layer)]
    return _normalised_once(*(_reduce if len(layers) == 1 else _conv)(side, layers), averages)


def _total(terms: Sequence[Tensor]) -> Tensor:
    """The sum; the first sum is a new tensor, and the other terms are added to it in place."""
    total = terms[0] if len(terms) < 2 else terms[0] + terms[1]
    for term in terms[2:]:
        total += term
    return total.contiguous(memory_format=LAST)


def forward(cell: "Cell", s0: Tensor, s1: Tensor, arch: Arch) -> Tensor:
    """`Cell.forward`, the fast way."""
    averages, weights = Averages(), _Weights(arch, cell.label)
    choices, pairs = _choices(cell), edges_of(cell.n_nodes)
    pre = zip(cell.preprocess, (s0, s1), strict=True)
    states = [_preprocessed(layer, s, averages) for layer, s in pre]
    incoming: dict[int, list[Tensor]] = {node: [] for _, node in pairs}
    for source in range(cell.n_nodes + 2):
        if source >= 2:  # all edges into it have been computed
            terms = incoming[source]
            states.append(_total(terms) if terms else cell.zero(states[0]))
        x, stride = states[source], 2 if cell.label == "reduce" and source < 2 else 1
        part = x if cell.partial == 1 else x[:, : x.shape[1] // cell.partial].contiguous(memory_format=LAST)
        out = [
            _Edge(
                row, choices[row], [name for i, name in enumerate(choices[row].names) if weights.run[row][i]]
            )
            for row, (start, _) in enumerate(pairs)
            if start == source
        ]
        for row, terms in _out_of(part, out, stride, weights, averages).items():
            if cell.partial > 1:
                edge = cast("PartialEdge", cell.edges[row])
                whole = edge.rejoin(_total(terms) if terms else 0, x, arch)
                terms = [whole] if isinstance(whole, Tensor) else []
            incoming[pairs[row][1]] += terms
    averages.update()
    return torch.cat(states[2:], dim=1)
