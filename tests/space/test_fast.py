"""The fast path of a cell against the readable one: the same numbers, wherever it applies; mutants fail."""

import copy
import os
import statistics
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from fake_gpu import fake_cuda
from torch import Tensor, nn
from torch.func import functional_call

from nasedu import CNN
from nasedu.search import hypergrad
from nasedu.search.evaluation import batch_statistics, reestimated
from nasedu.space import PRIMITIVES, Sampled, fast, random_arch, uniform_arch
from nasedu.space.ops import _REGISTRY, register
from nasedu.study.timing import saved_bytes

OTHERS = ("none", "skip_connect", "conv_1x1", "conv_3x3", "conv_5x5", "sep_conv_7x7", "max_pool_3x3")
CASES = {
    "primitives": {},
    "other operations": {"ops": OTHERS},
    "two edges wide": {"channels": 16},
    "many channels": {"channels": 32, "input_size": 8},
    "one channel": {"channels": 2, "stem_multiplier": 1},
    "partial": {"channels": 16, "partial": 4},
    "odd maps": {"input_size": 12, "n_nodes": 2},
    "only pools": {"ops": ("none", "max_pool_3x3", "avg_pool_3x3")},
    "only convolutions": {"ops": ("dil_conv_5x5", "sep_conv_5x5")},
}


def pair(dtype: torch.dtype = torch.float64, **options) -> tuple[CNN, CNN]:
    """A small supernet, the readable way, and the same one the fast way."""
    sizes = {"input_size": 16, "in_channels": 3, "channels": 4, "n_classes": 5, "n_layers": 3, "n_nodes": 3}
    torch.manual_seed(0)
    readable = CNN(**{**sizes, **options}, fast=False).to(dtype).to(memory_format=torch.channels_last)
    quick = copy.deepcopy(readable)
    for cell in quick.cells:
        cell.fast = True
    return readable, quick


def soft(model: CNN, seed: int = 1) -> dict[str, Tensor]:
    """Random rows of a softmax, to be differentiated."""
    generator, dtype = torch.Generator().manual_seed(seed), next(model.parameters()).dtype
    shapes = model.choices().items()
    return {
        label: torch.randn(shape, generator=generator).softmax(-1).to(dtype).requires_grad_()
        for label, shape in shapes
    }


def batch(model: CNN, n: int = 4) -> tuple[Tensor, Tensor]:
    generator, size = torch.Generator().manual_seed(2), model.input_size
    x = torch.randn(n, 3, size, size, generator=generator).to(next(model.parameters()).dtype)
    return x, torch.arange(n) % 5


def all_numbers(model: CNN, arch: dict[str, Tensor]) -> dict[str, Tensor | None]:
    """Logits, the gradients of a loss in weights and arch, and the buffers after it."""
    x, y = batch(model)
    arch = type(arch)(
        {label: matrix.detach().requires_grad_(matrix.requires_grad) for label, matrix in arch.items()}
    )
    logits = model(x, arch)
    nn.functional.cross_entropy(logits, y).backward()
    found = {"logits": logits.detach(), **{f"arch.{label}": matrix.grad for label, matrix in arch.items()}}
    found |= {f"gradient of {name}": weight.grad for name, weight in model.named_parameters()}
    return found | dict(model.named_buffers())


def distances(readable: CNN, quick: CNN, arch: dict[str, Tensor]) -> dict[str, float]:
    """How far all numbers of one kind are from the readable ones, as a part of their norm."""
    wanted, got = all_numbers(readable, arch), all_numbers(quick, arch)
    assert [name for name in wanted if wanted[name] is None] == [name for name in got if got[name] is None]
    far = {}
    for kind in ("logits", "arch.", "gradient", "running_mean", "running_var", "num_batches_tracked"):
        names = [name for name in wanted if kind in name and wanted[name] is not None]
        if names:
            a, b = (torch.cat([of[name].double().flatten() for name in names]) for of in (got, wanted))
            far[kind] = ((a - b).norm() / b.norm()).item()
    return far


def assert_same(readable: CNN, quick: CNN, arch: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    far = distances(readable, quick, arch)
    assert max(far.values()) <= tolerance, far


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list:
    """One entry for each cell that went the fast way."""
    seen, forward = [], fast.forward
    monkeypatch.setattr(fast, "forward", lambda *given: seen.append(given[0].label) or forward(*given))
    return seen


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_the_readable_path(name, calls):
    readable, quick = pair(**CASES[name])
    assert_same(readable, quick, soft(readable))
    assert calls == ["normal", "reduce", "reduce"]


@pytest.mark.parametrize("name", ["primitives", "other operations", "partial"])
def test_and_in_float32(name, calls):
    """Rounding may put a number on the other side of a ReLU's kink, so of gradients the median counts."""
    far = [
        distances(*pair(torch.float32, **CASES[name]), soft(pair(torch.float32, **CASES[name])[0], seed))
        for seed in range(5)
    ]
    for kind in far[0]:
        of_kind = [one[kind] for one in far]
        gradient = kind in ("arch.", "gradient")
        assert (statistics.median(of_kind) if gradient else max(of_kind)) <= 1e-5, (kind, of_kind)
    assert len(calls) == 15


@pytest.mark.parametrize(
    "kernel, dilation, stride", [(3, 1, 1), (5, 1, 1), (5, 2, 1), (3, 1, 2), (5, 1, 2), (5, 2, 2), (7, 1, 2)]
)
@pytest.mark.parametrize("height, width", [(7, 3), (7, 4), (8, 8), (7, 11), (2, 2), (4, 4), (3, 6), (1, 5)])
def test_the_weight_gradient_of_a_depthwise_convolution(kernel, dilation, stride, height, width):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
    weight = torch.zeros(3, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    padding = dilation * (kernel // 2)
    out = nn.functional.conv2d(x, weight, None, stride, padding, dilation, groups=3)
    g = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    (wanted,) = torch.autograd.grad(out, weight, g)
    x, g = (t.contiguous(memory_format=torch.channels_last) for t in (x, g))
    torch.testing.assert_close(fast._weight_gradient(g, x, kernel, dilation, stride), wanted)


@pytest.mark.parametrize(("edges", "channels"), [(1, 5), (3, 4), (5, 8), (2, 32)])
def test_the_pointwise_convolution_of_edges_and_its_gradients(edges, channels):
    """As one product, as a product of each edge, and as a convolution."""
    u, g = (torch.randn(2, edges * channels, 3, 4, dtype=torch.float64) for _ in range(2))
    u, g = (t.contiguous(memory_format=torch.channels_last) for t in (u, g))
    weight = torch.randn(edges * channels, channels, 1, 1, dtype=torch.float64).requires_grad_()
    out = nn.functional.conv2d(u.requires_grad_(), weight, groups=edges)
    wanted = torch.autograd.grad(out, (u, weight), g)
    with torch.no_grad():
        torch.testing.assert_close(fast._pointwise(u, weight), out)
        torch.testing.assert_close(fast._pointwise_backward(g, u, weight, True, True), wanted)
        assert fast._pointwise_backward(g, u, weight, False, True)[0] is None
        assert fast._pointwise_backward(g, u, weight, True, False)[1] is None


def test_it_keeps_three_fifths_of_what_the_readable_path_keeps():
    """0.59; 0.75 where the outputs of the last 1x1 convolutions are kept, too."""
    readable, quick = pair(torch.float32, channels=8)
    x, arch = torch.randn(4, 3, 16, 16), uniform_arch(readable)
    arch = {label: matrix.requires_grad_() for label, matrix in arch.items()}
    kept = {model: saved_bytes(lambda model=model: model(x, arch)) for model in (readable, quick)}
    assert kept[quick] < 0.65 * kept[readable]


def test_edges_in_several_parts(monkeypatch):
    monkeypatch.setattr(fast, "WIDE", 20_000)  # a state is 8 kB here, so 4 edges go as 2 and 2
    readable, quick = pair()
    assert_same(readable, quick, soft(readable))


@pytest.mark.parametrize("seed", range(3))
def test_of_zeros_and_ones_only_the_ones_are_run(seed, calls):
    readable, quick = pair()
    arch = random_arch(readable, torch.Generator().manual_seed(seed))
    assert_same(readable, quick, arch)  # the others' averages stay, and their gradients are None
    assert calls
    for matrix in arch.values():
        matrix[0:2] = 0.0  # the first node has no edge
        matrix[2:, 0] = 0.5  # and "none" counts for nothing
    assert_same(readable, quick, arch)
    row = torch.zeros(len(PRIMITIVES))
    row[0] = 1.0
    partial = pair(channels=16, partial=4)
    assert_same(
        *partial, {label: row.repeat(9, 1) for label in arch}, 1e-10
    )  # "none" everywhere, yet the rest passes


def test_a_sampled_row(calls):
    readable, quick = pair()
    arch = Sampled(soft(readable))
    for label, matrix in arch.items():
        hard = nn.functional.one_hot(matrix.argmax(1), matrix.shape[1]) * matrix.detach()
        hard[3] = matrix[3].detach() * (torch.arange(8) % 3 == 0)  # several of a row, and pools among them
        arch[label] = hard.requires_grad_()
    assert_same(readable, quick, arch)
    assert calls


def test_second_order_through_functional_call(calls):
    """`unrolled` and `exact` (which differentiates a gradient) of both paths, in float64."""
    readable, quick = pair(channels=2, n_nodes=2)
    x, y = batch(readable)
    found = []
    for model in (readable, quick):
        w = {name: weight.detach() for name, weight in model.named_parameters()}
        alpha = {label: matrix.detach().log() for label, matrix in soft(model).items()}

        def loss(w, alpha, x=x, y=y, model=model):
            arch = {label: logits.softmax(-1) for label, logits in alpha.items()}
            return nn.functional.cross_entropy(functional_call(model, w, (x, arch)), y)

        def val(w, alpha, loss=loss):
            return loss(w, alpha, x.flip(0), y)

        found.append(
            (hypergrad.unrolled(loss, val, w, alpha, lr=0.1), hypergrad.exact(loss, val, w, alpha, lr=0.1))
        )
    for wanted, got in zip(*found, strict=True):
        for label in wanted:
            torch.testing.assert_close(got[label], wanted[label], rtol=1e-7, atol=1e-10)
    assert calls


def test_batch_statistics_and_averages_made_anew(calls):
    readable, quick = pair()
    arch, (x, _) = uniform_arch(readable), batch(readable)
    logits = []
    for model in (readable, quick):
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        with torch.no_grad(), batch_statistics(model):
            logits.append(model(x, arch))
        assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    assert calls
    torch.testing.assert_close(*logits, rtol=1e-10, atol=1e-10)
    averages = []
    for model in (readable, quick):
        with reestimated(model, [lambda model=model, i=i: model(x.roll(i, 2), arch) for i in range(3)]):
            averages.append({name: buffer.clone() for name, buffer in model.named_buffers()})
            logits.append(model(x, arch))
    torch.testing.assert_close(*logits[2:], rtol=1e-10, atol=1e-10)
    for name in averages[0]:
        torch.testing.assert_close(averages[1][name], averages[0][name], rtol=1e-10, atol=1e-10)


# What it leaves to the readable path.


def test_an_operation_of_your_own_runs_as_it_is(calls):
    register("a_test")(lambda c, stride, affine: nn.Conv2d(c, c, 3, stride, 1))
    try:
        readable, quick = pair(ops=("none", "a_test", "skip_connect", "sep_conv_3x3"))
        assert_same(readable, quick, soft(readable))
        arch = random_arch(readable, torch.Generator().manual_seed(0))
        assert_same(readable, quick, arch)
        quick.cells[0].edges[0].layers["sep_conv_3x3"] = nn.Identity()  # one in another's place
        readable.cells[0].edges[0].layers["sep_conv_3x3"] = nn.Identity()
        quick.cells[0].edges[1].layers["skip_connect"] = nn.Tanh()
        readable.cells[0].edges[1].layers["skip_connect"] = nn.Tanh()
        assert_same(readable, quick, soft(readable))
    finally:
        del _REGISTRY["a_test"]
    assert len(calls) == 9


def test_the_readable_path_where_the_fast_one_does_not_apply(calls):
    readable, quick = pair()
    (x, _), arch = batch(readable), soft(readable)
    hook = quick.cells[0].edges[0].layers["sep_conv_3x3"][2].register_forward_hook(lambda *_: None)
    quick(x, arch)
    assert calls == ["reduce", "reduce"]  # in cell 0 someone wants to look into a layer
    hook.remove()
    calls.clear()
    quick.eval()
    quick(x, arch)
    quick.train()
    for norm in quick.modules():
        if isinstance(norm, nn.BatchNorm2d):  # with running averages torch.func refuses it altogether
            norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
            norm.num_batches_tracked = None
    torch.func.grad(lambda x: quick(x, arch).sum())(x)
    matrix = arch["normal"].detach()
    torch.func.jvp(lambda rows: quick(x, {"normal": rows, "reduce": rows}), (matrix,), (matrix,))
    with torch.autocast("cpu", torch.bfloat16):
        quick.float()(x.float(), arch)
    assert not calls


def test_it_is_the_default_on_a_cpu(calls):
    model = CNN(16, 3, 4, 5, 3)
    model(batch(model)[0], uniform_arch(model))
    assert calls == ["normal", "reduce", "reduce"]


@pytest.mark.parametrize("device", ["cuda", "meta"])
def test_it_never_waits_for_a_device(device):
    """On a fake cuda device or on meta every .item() and .tolist() raises; only meta has a backward pass."""
    with fake_cuda() if device == "cuda" else nullcontext(), torch.device(device):
        model = CNN(16, 3, 4, 5, 3, fast=True)
        for wanted in (True, False):
            arch = {label: torch.rand(shape) for label, shape in model.choices().items()}
            arch = {label: matrix.requires_grad_(wanted) for label, matrix in arch.items()}
            loss = nn.functional.cross_entropy(
                model(torch.randn(4, 3, 16, 16), arch), torch.zeros(4, dtype=torch.long)
            )
            if device == "meta":
                loss.backward()
                assert (arch["normal"].grad is not None) == wanted


def test_a_cpu_with_avx2_only():
    """Another process, without the instructions that older CPUs lack: a memory fault would end it."""
    code = (
        "import torch; from nasedu import CNN; from nasedu.space import uniform_arch\n"
        "for c in (2, 4, 8):\n"
        "    model = CNN(16, 3, c, 5, 3, n_nodes=2).to(memory_format=torch.channels_last)\n"
        "    model(torch.randn(8, 3, 16, 16), uniform_arch(model)).sum().backward()\n"
        "print('fine', torch.backends.cpu.get_cpu_capability())"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("fine")


# Mutants of the folding: each must be told apart.


def _no_mean_square(monkeypatch):
    statistics = fast.statistics

    def mutant(y):
        mean, variance = statistics(y)
        return mean, variance + mean.square()

    monkeypatch.setattr(fast, "statistics", mutant)


def _bias_without_weight(monkeypatch):
    right = fast.scale_and_shift
    monkeypatch.setattr(
        fast, "scale_and_shift", lambda w, m, i: (right(w, m, i)[0], right(torch.ones_like(w), m, i)[1])
    )


def _folded_averages(monkeypatch):
    see = fast.Averages.see

    def mutant(self, y, norms, shared=False):
        mean, variance = see(self, y, norms, shared)
        n = len(norms)
        self.means[-n:] = [
            m * (v + 1e-5).rsqrt() for m, v in zip(self.means[-n:], self.variances[-n:], strict=True)
        ]
        return mean, variance

    monkeypatch.setattr(fast.Averages, "see", mutant)


@pytest.mark.parametrize("mutant", [_no_mean_square, _bias_without_weight, _folded_averages])
def test_mutants_of_the_folding_fail(mutant, monkeypatch):
    readable, quick = pair()
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        assert_same(readable, quick, soft(readable), 1e-3)
