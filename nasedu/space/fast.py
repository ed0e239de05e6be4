"""The fast path of a `Cell`: the numbers of the readable one, from fewer and larger pieces of work.

What a search step does is little arithmetic on many small feature maps, so its time is that of moving maps
through memory and of starting kernels. Five ideas, each a function below:

    edges side by side    The edges that leave a state read the same map, so an operation of all of them is
                          computed at once, on E x C channels: `_Side`, `Depthwise`, `_pointwise`.
    add up early          What flows back into a state is the sum over its edges, so `Depthwise` hands back
                          one map and not E: `_unfolded`.
    fold what is linear   A batch norm is y -> s y + t, once its mean and variance are known. The last one of
                          an operation and the edge's weight are one scale and shift, applied while summing:
                          `WeightedSum`. Neither the normalised nor the weighted map is ever written.
    compute it again      Between its halves a separable convolution keeps the normalised map, and makes the
                          ReLU of it once more on the way back: `NormReluDepthwise`. So is the map of an
                          operation's last 1x1 convolution, for which a product is enough: `WeightedSum`.
    share what is equal   Pools and identities are the same map on all edges out of a state: one batch norm
                          for all of them, and one product of matrices: `_unweighted`.

Nothing here has weights: it reads those of the cell's modules, and moves their running averages. `Cell` calls
it where `applies` says that it may; whatever it does not know, such as an operation of your own, runs as the
readable path would run it.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
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

conv_backward = torch.ops.aten.convolution_backward.default
bn_backward = torch.ops.aten.native_batch_norm_backward.default
Moments = tuple[Tensor, Tensor]  # mean and variance of each channel
See = Callable[[Tensor], Moments]


# ---- Statistics and running averages


def _rows(x: Tensor) -> Tensor:
    """(B, C, H, W) in channels-last memory -> its (B H W, C) pixels, the same memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _tile(x: Tensor) -> int:
    """How many pixels of a map go side by side, for rows of 32 numbers or more: short rows are slow."""
    n, pixels = max(1, 32 // x.shape[1]), x.numel() // x.shape[1]
    return n if pixels % n == 0 else 1


def statistics(y: Tensor) -> Moments:
    """(B, C, H, W) -> mean and (biased) variance of each channel, (C,) each."""
    if y.device.type != "cpu":
        variance, mean = torch.var_mean(y, (0, 2, 3), correction=0)
        return mean, variance
    n = _tile(y)
    rows = _rows(y).view(-1, n * y.shape[1], 1, 1)
    means, variances = torch.batch_norm_update_stats(rows, None, None, 0.0)
    if n == 1:
        return means, variances
    means, variances = means.view(n, -1), variances.view(n, -1)
    mean = means.mean(dim=0)
    # The law of total variance: the mean of the variances and the variance of the means.
    return mean, variances.mean(dim=0) + (means - mean).square().mean(dim=0)


class Averages:
    """The batch norms that a forward pass has used, with what they saw; `update` moves their averages."""

    def __init__(self) -> None:
        self.norms: list[nn.BatchNorm2d] = []
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []
        self.unbiased: list[float] = []  # what makes such a variance an unbiased one

    def see(self, y: Tensor, norms: Sequence[nn.BatchNorm2d], shared: bool = False) -> Moments:
        """The statistics of `y`: of the maps of len(norms) edges side by side, or of one that they share."""
        mean, variance = statistics(y)
        n, pixels = len(norms), y.numel() // y.shape[1]
        self.norms += norms
        self.means += [mean] * n if shared else mean.chunk(n)
        self.variances += [variance] * n if shared else variance.chunk(n)
        self.unbiased += [pixels / max(pixels - 1, 1)] * n
        return mean, variance

    def by(self, norms: Sequence[nn.BatchNorm2d], shared: bool = False) -> See:
        """`see` of a map that is not yet there. The functions below ask it, in their forward pass."""
        return partial(self.see, norms=norms, shared=shared)

    @torch.no_grad()
    def update(self) -> None:
        """As `nn.BatchNorm2d` does in training, for all of them at once."""
        if not self.norms:
            return
        by_momentum: dict[float | None, list[Any]] = {}
        unbiased = torch._foreach_mul(self.variances, self.unbiased)
        for seen in zip(self.norms, self.means, unbiased, strict=True):
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
    plain: Callable, inputs: Sequence[Tensor | None], gradient: Tensor, needed: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of `plain(*inputs)`, themselves with a graph: for second derivatives (create_graph)."""
    with torch.enable_grad():
        # names of their own: an input may depend on another one
        own = [x if x is None else x.view_as(x) for x in inputs]
        wanted = [x for x, need in zip(own, needed, strict=True) if need and x is not None]
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


def _columns(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 2 C, H, W/2): even columns beside odd ones, in channels-last memory a view."""
    b, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(b, h, w // 2, 2 * c).permute(0, 3, 1, 2)


def _unfolded(gx: Tensor, n: int) -> Tensor:
    """(B, n x C, H, W) -> (B, C, H, W), the sum over n: the way back from n copies side by side."""
    if n == 1:
        return gx
    b, k, h, w = gx.shape
    c = k // n
    if c < 32:  # short rows: as a product with n unit matrices
        rows = _rows(gx) @ torch.eye(c, dtype=gx.dtype, device=gx.device).repeat(n, 1)
    else:
        rows = _rows(gx).view(-1, n, c).sum(dim=1)
    return rows.view(b, h, w, c).permute(0, 3, 1, 2)


def _depthwise_backward(
    g: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, need_x: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `_depthwise` in x and in the weight, as compositions that are fast on a CPU."""
    k = weight.shape[-1]

    def gradient(mask: Sequence[bool]) -> tuple:
        sizes = [stride, stride], [dilation * (k // 2)] * 2, [dilation, dilation]
        return conv_backward(g, x, weight, None, *sizes, False, [0, 0], x.shape[1], [*mask, False])[:2]

    if x.device.type != "cpu":
        return gradient((need_x, need_weight))
    gx = gw = None
    if need_x and stride > 1:
        gx = gradient((True, False))[0]
    elif need_x:  # the same convolution with the kernel turned round: a forward pass is faster
        gx = _depthwise(g, weight.flip(2, 3), 1, dilation)
    if need_weight and stride == 1 and dilation == 2 and x.shape[2] % 2 == x.shape[3] % 2 == 0:
        gw = _weight_gradient(_grids(g), _grids(x), k, 1).view(4, -1, 1, k, k).sum(dim=0)
    elif need_weight:
        gw = _weight_gradient(g, x, k, dilation, stride)
    return gx, gw


def _weight_gradient(g: Tensor, x: Tensor, k: int, dilation: int, stride: int = 1) -> Tensor:
    """Of a depthwise convolution on a CPU: (C, 1, k, k)."""

    def gradient(g: Tensor, x: Tensor, columns: int, step: int = stride) -> Tensor:
        weight = x.new_empty(x.shape[1], 1, k, columns)
        padding, steps = [dilation * (k // 2), dilation * (columns // 2)], [dilation] * 2
        rest = [stride, step], padding, steps, False, [0, 0], x.shape[1], [False, True, False]
        return conv_backward(g, x, weight, None, *rest)[1]

    # The outermost taps never meet a map this small.
    if k > 3 and max(x.shape[2:]) <= dilation * (k // 2):
        return F.pad(_weight_gradient(g, x, k - 2, dilation, stride), (1, 1, 1, 1))
    in_parts = k == 5 and dilation == 1 and stride <= 2
    # oneDNN is up to ten times slower for maps that are lower than the kernel.
    rows, columns = max(k - x.shape[2], 0), x.shape[3] % 2 if in_parts else 0
    if rows or columns:
        x = F.pad(x, (0, columns, 0, rows))
        g = F.pad(g, (0, -(-x.shape[3] // stride) - g.shape[3], 0, -(-x.shape[2] // stride) - g.shape[2]))
    if not in_parts:
        return gradient(g, x, k)
    # It is fast for kernels of three columns, and many times slower beyond. Columns 0, 2, 4 of five are two
    # apart, which is one apart among the even columns of the map, and among the odd ones.
    if stride == 2:  # columns 0, 2, 4 meet the even columns of the map, columns 1 and 3 the odd ones
        even, odd = gradient(torch.cat([g, g], dim=1), _columns(x), 3, 1).view(2, -1, 1, k, 3)
        return torch.stack([even[..., 0], odd[..., 0], even[..., 1], odd[..., 1], even[..., 2]], dim=-1)
    # Columns 1 and 3 are the outer ones of the three in the middle.
    middle = gradient(g, x, 3)
    apart = gradient(_columns(g), _columns(x), 3).view(2, -1, 1, k, 3).sum(dim=0)
    return torch.stack([apart[..., 0], middle[..., 0], apart[..., 1], middle[..., 2], apart[..., 2]], dim=-1)


class Depthwise(Function):
    """A convolution of each channel alone of `n` copies of x (B, C, H, W) side by side, n x C channels.

    `wide` are the copies, made before, for all operations that want them; weight (n x C, 1, k, k), stride,
    dilation. The way back adds up the gradients of the copies before anything else does: they are n maps.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, wide: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        """See `_depthwise`."""
        ctx.save_for_backward(x, wide, weight)
        ctx.sizes = stride, dilation
        return _depthwise(wide, weight, stride, dilation)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        """One gradient for each argument of `forward`, None where there is none."""
        x, wide, weight = ctx.saved_tensors
        need_x, _, need_weight, *_ = ctx.needs_input_grad
        n, (stride, dilation) = wide.shape[1] // x.shape[1], ctx.sizes
        if torch.is_grad_enabled():

            def plain(x: Tensor, weight: Tensor) -> Tensor:
                return _depthwise(torch.cat([x] * n, dim=1), weight, stride, dilation)

            gx, gw = _differentiably(plain, (x, weight), g, (need_x, need_weight))
            return gx, None, gw, None, None
        g = g.contiguous(memory_format=LAST)
        gx, gw = _depthwise_backward(g, wide, weight, stride, dilation, need_x, need_weight)
        return None if gx is None else _unfolded(gx, n), None, gw, None, None


class Grid(Function):
    """Every second row and column of x (B, C, H, W), from the first (start 0) or the second (1) on.

    A slice, but its gradient comes in channels-last memory, too: all that is added to it stays fast.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: int) -> Tensor:
        """A copy of these pixels."""
        ctx.shape, ctx.start = x.shape, start
        return x[:, :, start::2, start::2].contiguous(memory_format=LAST)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        """Zero where no pixel was taken."""
        b, c, h, w = ctx.shape
        gx = g.new_zeros(b, h, w, c).permute(0, 3, 1, 2)
        gx[:, :, ctx.start :: 2, ctx.start :: 2] = g
        return gx, None


def _normalised(y: Tensor, eps: float) -> Tensor:
    return F.batch_norm(y, None, None, training=True, eps=eps)


class NormReluDepthwise(Function):
    """1x1 convolution, batch norm, ReLU, depthwise convolution: the middle of a separable convolution.

    u (B, K, H, W) of E edges, mix (K, C, 1, 1), weight (K, 1, k, k); `see` is asked for the moments of the
    map that comes into the batch norm. It keeps u and the normalised map, which lies where that map lay, and
    makes max(., 0) of it again on the way back.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, mix: Tensor, weight: Tensor, see: See, eps: float) -> Tensor:
        """The map after the depthwise convolution."""
        y = _pointwise(u, mix)
        mean, variance = see(y)
        inverse = (variance + eps).rsqrt()
        column = (1, -1, 1, 1)
        z = torch.addcmul((-mean * inverse).view(column), y, inverse.view(column), out=y)  # in place of y
        ctx.save_for_backward(u, mix, weight, z, inverse)
        ctx.eps = eps
        return _depthwise(z.relu(), weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        """One gradient for each argument of `forward`, None where there is none."""
        u, mix, weight, z, inverse = ctx.saved_tensors
        need_u, need_mix, need_weight = needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():

            def plain(u: Tensor, mix: Tensor, weight: Tensor) -> Tensor:
                y = F.conv2d(u, mix, groups=len(mix) // mix.shape[1])
                return _depthwise(F.relu(_normalised(y, ctx.eps)), weight)

            return *_differentiably(plain, (u, mix, weight), g, needed), None, None
        middle = z.relu() if need_weight else z  # else only its sign counts
        g, need_z = g.contiguous(memory_format=LAST), need_u or need_mix
        gz, gw = _depthwise_backward(g, middle, weight, 1, 1, need_z, need_weight)
        if gz is None:
            return None, None, gw, None, None
        gz = torch.ops.aten.threshold_backward(gz, middle, 0)
        mean, one = torch.zeros_like(inverse), torch.ones_like(inverse)  # of z
        gy = bn_backward(gz, z, inverse, None, None, mean, one, True, ctx.eps, [True, False, False])[0]
        return *_pointwise_backward(gy, u, mix, need_u, need_mix), gw, None, None


def scale_and_shift(weights: Tensor, means: Tensor, inverses: Tensor) -> tuple[Tensor, Tensor]:
    """s_i (n, K) and t (K,) of sum_i w_i (y_i - mean_i) / sigma_i = sum_i s_i y_i + t; weights (E, n)."""
    scales = weights.t().repeat_interleave(means.shape[1] // len(weights), dim=1) * inverses
    return scales, -(scales * means).sum(dim=0)


def _kind(u: Tensor, n: int) -> str:
    """How the 1x1 convolutions of n edges are computed: what is fastest on a CPU.

    "one product" with zeros between the edges as long as these are few, "a product each" for many channels of
    few pixels, else a convolution.
    """
    c, pixels = u.shape[1] // n, u.numel() // u.shape[1]
    if u.device.type != "cpu":
        return "convolution"
    if (n - 1) * c <= 24:
        return "one product"
    return "a product each" if c >= 32 and pixels <= 4096 else "convolution"


def _per_edge(rows: Tensor, n: int) -> Tensor:
    """(pixels, E x C) -> (E, pixels, C), the same memory."""
    return rows.view(len(rows), n, -1).transpose(0, 1)


def _pointwise(u: Tensor, weight: Tensor) -> Tensor:
    """The 1x1 convolution of each edge on its own channels: u (B, E x C, H, W), weight (E x C, C, 1, 1)."""
    n = u.shape[1] // weight.shape[1]
    kind = _kind(u, n)
    if kind == "convolution":
        return F.conv2d(u, weight, groups=n)
    return _product(u, weight.view(n, -1, weight.shape[1]).transpose(1, 2), kind)


def _product(u: Tensor, blocks: Tensor, kind: str) -> Tensor:
    """The rows of each edge times its block; u (B, E x C, H, W), blocks (E, C, D) -> (B, E x D, H, W)."""
    (b, _, h, w), (n, _, d) = u.shape, blocks.shape
    if kind == "one product":
        rows = _rows(u) @ (torch.block_diag(*blocks) if n > 1 else blocks[0])
    else:
        rows = u.new_empty(b * h * w, n * d)
        torch.bmm(_per_edge(_rows(u), n), blocks, out=_per_edge(rows, n))
    return rows.view(b, h, w, -1).permute(0, 3, 1, 2)


def _pointwise_backward(
    g: Tensor, u: Tensor, weight: Tensor, need_u: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `_pointwise` in u and in the weight."""
    k, c = u.shape[1], weight.shape[1]
    n = k // c
    kind = _kind(u, n)
    if kind == "convolution":
        rest = [1, 1], [0, 0], [1, 1], False, [0, 0], n, [need_u, need_weight, False]
        return conv_backward(g, u, weight, None, *rest)[:2]
    gu = _product(g, weight.view(n, -1, c), kind) if need_u else None
    gw = None
    if need_weight and kind == "one product":  # of its blocks those on the diagonal
        all_blocks = (_rows(g).t() @ _rows(u)).view(n, -1, n, c)
        gw = all_blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1).reshape(weight.shape)
    elif need_weight:
        gw = torch.bmm(_per_edge(_rows(g), n).transpose(1, 2), _per_edge(_rows(u), n)).view(weight.shape)
    return gu, gw


class WeightedSum(Function):
    """sum_i w_i (y_i - mean_i) / sigma_i: batch norm, weight and sum of n maps, each of E edges side by side.

    weights (E, n); each of `sees` is asked for the moments of its map. A map y (B, E x C, H, W) is given as
    what it is made of, `parts`: u and the weight of a 1x1 convolution, of which it is made again on the way
    back, or itself and None. One after the other: u_1, weight_1, u_2, weight_2, ...
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, eps: float, sees: Sequence[See], *parts: Any) -> Tensor:
        """The sum, one map after the other."""
        ys = [_made(u, weight) for u, weight in zip(parts[::2], parts[1::2], strict=True)]
        seen = zip(*(see(y) for see, y in zip(sees, ys, strict=True)), strict=True)
        means, variances = (torch.stack(of) for of in seen)  # (n, K) each
        inverses = (variances + eps).rsqrt()
        scales, shift = scale_and_shift(weights, means, inverses)
        ctx.save_for_backward(weights, means, inverses, *parts)
        (b, k, h, w), tile, ctx.eps = ys[0].shape, _tile(ys[0]), eps
        if tile > 1:
            shift, scales = shift.repeat(tile), scales.repeat(1, tile)
        total = torch.addcmul(shift, _rows(ys[0]).view(-1, tile * k), scales[0])
        for y, scale in zip(ys[1:], scales[1:], strict=True):
            total.addcmul_(_rows(y).view(-1, tile * k), scale)
        return total.view(b, h, w, k).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        """One gradient for each argument of `forward`, None where there is none."""
        weights, means, inverses, *parts = ctx.saved_tensors
        need_weights, needed, k = ctx.needs_input_grad[0], ctx.needs_input_grad[3:], g.shape[1]
        if torch.is_grad_enabled():

            def plain(weights: Tensor, *parts: Any) -> Tensor:
                columns = weights.t().repeat_interleave(k // len(weights), dim=1)[:, :, None, None]
                ys = map(_made, parts[::2], parts[1::2])
                return sum(c * _normalised(y, ctx.eps) for c, y in zip(columns, ys, strict=True))

            of_weights, *rest = _differentiably(plain, (weights, *parts), g, (need_weights, *needed))
            return of_weights, None, None, *rest
        g, columns = g.contiguous(memory_format=LAST), weights.t().repeat_interleave(k // len(weights), dim=1)
        found: list[Tensor | None] = []  # of u_1, weight_1, ...
        gz_sums: list[Tensor] = []  # of the gradient times the normalised map
        for i, (mean, inverse, column) in enumerate(zip(means, inverses, columns, strict=True)):
            (u, weight), (need_u, need_weight) = parts[2 * i : 2 * i + 2], needed[2 * i : 2 * i + 2]
            need_y = need_u or need_weight
            given = column, None, None, mean, inverse, True, ctx.eps, [need_y, need_weights, False]
            gy, gz_sum, _ = bn_backward(g, _made(u, weight), *given)
            gz_sums.append(gz_sum)
            if weight is None or not need_y:
                found += [gy if need_y else None, None]
            else:
                found += _pointwise_backward(gy, u, weight, need_u, need_weight)
        if not need_weights:
            return None, None, None, *found
        of_weights = torch.stack(gz_sums).view(len(means), len(weights), -1).sum(dim=2).t()
        return of_weights, None, None, *found


def _made(u: Tensor, weight: Tensor | None) -> Tensor:
    """The map that has the parts u and weight."""
    return u if weight is None else _pointwise(u, weight)


# ---- The operations of all edges that leave a state


class _Side:
    """A state x (B, C, H, W) on its way into `n` edges of one stride, side by side."""

    def __init__(self, x: Tensor, n: int, stride: int, averages: Averages):
        self.n, self.stride, self.averages = n, stride, averages
        self.relu = once(x, "relu", F.relu)

    @cached_property
    def whole(self) -> tuple[Tensor, Tensor]:
        """max(x, 0), and the same for each edge: (B, n x C, H, W)."""
        return self.relu, self._repeated(self.relu)

    @cached_property
    def even(self) -> tuple[Tensor, Tensor]:
        """The same for the grid of even rows and columns, which is all that dilation and stride 2 want."""
        grid = Grid.apply(self.relu, 0)
        return grid, self._repeated(grid)

    def _repeated(self, x: Tensor) -> Tensor:
        return torch.cat([x.detach()] * self.n, dim=1) if self.n > 1 else x.detach()


def _weights(convolutions: Sequence[nn.Conv2d]) -> Tensor:
    return torch.cat([convolution.weight for convolution in convolutions])


# Each takes the state and, for each layer of the operation, those of all edges. The answer is their maps side
# by side as they come into the last batch norm, as `WeightedSum` wants them: the maps before the last 1x1
# convolution and its weight, or the maps themselves and None. And these batch norms.
Maps = tuple[Tensor, Tensor | None, Sequence[nn.BatchNorm2d]]


def _sep_conv(side: _Side, layers: Sequence[Sequence]) -> Maps:
    _, first, mix_first, norms, _, second, mix_second, last = layers
    u = Depthwise.apply(*side.whole, _weights(first), side.stride, 1)
    see = side.averages.by(norms)
    u = NormReluDepthwise.apply(u, _weights(mix_first), _weights(second), see, norms[0].eps)
    return u, _weights(mix_second), last


def _dil_conv(side: _Side, layers: Sequence[Sequence]) -> Maps:
    _, depthwise, mix, norms = layers
    if side.stride == 2 and side.relu.shape[2] % 2 == side.relu.shape[3] % 2 == 0:
        u = Depthwise.apply(*side.even, _weights(depthwise), 1, 1)
    else:
        u = Depthwise.apply(*side.whole, _weights(depthwise), side.stride, 2)
    return u, _weights(mix), norms


def _conv(side: _Side, layers: Sequence[Sequence]) -> Maps:
    _, convolutions, norms = layers
    x, weight, stride = side.relu, _weights(convolutions), side.stride
    if weight.shape[-1] == 1:  # see `fast_ops.Pointwise`
        x, stride = side.even[0] if stride == 2 else x, 1
    return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2), None, norms


def _reduce(side: _Side, layers: Sequence[Sequence]) -> Maps:
    pixels = torch.cat([side.even[0], Grid.apply(side.relu, 1)], dim=1)
    blocks = [torch.block_diag(r.conv_1.weight.flatten(1), r.conv_2.weight.flatten(1)) for r in layers[0]]
    return F.conv2d(pixels, torch.cat(blocks)[:, :, None, None]), None, [r.bn for r in layers[0]]


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
    return tuple(operation._modules.values()) if type(operation) is nn.Sequential else (operation,)


def _types(operation: nn.Module) -> tuple[type, ...]:
    return tuple(map(type, _layers(operation)))


def _normalised_once(y: Tensor, norms: Sequence[nn.BatchNorm2d], averages: Averages) -> Tensor:
    """Batch norm without affine, of one map that all `norms` see."""
    return WeightedSum.apply(y.new_ones(1, 1), norms[0].eps, [averages.by(norms, shared=True)], y, None)


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
    side, sees = _Side(x, len(edges), stride, averages), []
    parts: list[Tensor | None] = []
    for name in edges[0].run:
        layers = list(zip(*(_layers(edge.choice.layers[name]) for edge in edges), strict=True))
        u, weight, norms = CONVOLUTIONS[_types(edges[0].choice.layers[name])](side, layers)
        parts += u, weight
        sees.append(averages.by(norms))
    total = WeightedSum.apply(weights(edges, x), norms[0].eps, sees, *parts)
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
    # Of their own lists: `children()` asks each time whether a module comes twice, and there are hundreds.
    parts = [*cell.preprocess._modules.values(), *cell.edges._modules.values()]
    operations = [operation for choice in choices for operation in choice.layers._modules.values()]
    some = [one for one in parts + operations if one is not None]
    modules = [module for one in some for module in (one, *one._modules.values()) if module is not None]
    return all(
        not (module._forward_hooks or module._forward_pre_hooks)
        and (not isinstance(module, nn.BatchNorm2d) or (module.training and not module.affine))
        for module in modules
    )


def _preprocessed(layer: nn.Module, s: Tensor, averages: Averages) -> Tensor:
    """The same as `layer(s)`, a `FactorizedReduce` or `relu_conv_bn`."""
    side, layers = _Side(s.contiguous(memory_format=LAST), 1, 1, averages), [(one,) for one in _layers(layer)]
    y, _, norms = (_reduce if len(layers) == 1 else _conv)(side, layers)
    return _normalised_once(y, norms, averages)


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
