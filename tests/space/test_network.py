"""Cells and networks: sizes, the supernet against a plain double loop and derived networks, gradients."""

import random

import pytest
import torch
from fake_gpu import fake_cuda
from models import derived_with_the_weights_of, supernet
from torch import nn
from torch.func import functional_call, grad

from nasedu import CNN, ArchError, Genotype, Network, n_parameters, random_arch, uniform_arch
from nasedu.space.cells import Cell
from nasedu.space.fast_ops import FactorizedReduce
from nasedu.space.genotype import PUBLISHED, edges
from nasedu.space.network import AuxiliaryHead, DerivedCell, drop
from nasedu.space.ops import PRIMITIVES, Zero

SMALL = Genotype(
    [[("sep_conv_3x3", 0), ("skip_connect", 1)], [("max_pool_3x3", 0), ("dil_conv_3x3", 2)]],
    [[("skip_connect", 0), ("avg_pool_3x3", 1)], [("sep_conv_5x5", 1), ("skip_connect", 2)]],
)


def softmaxed(model: CNN, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random logits, softmaxed: every weight is above zero."""
    generator = torch.Generator().manual_seed(seed)
    shapes = model.choices().items()
    return {k: torch.randn(s, generator=generator, dtype=torch.float64).softmax(-1) for k, s in shapes}


def images(n=4, size=8) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# Sizes


def test_the_search_network_of_darts_has_1930618_weights():
    assert n_parameters(CNN(32, 3, 16, 10, 8)) == 1_930_618


def test_the_evaluation_network_of_darts_has_3349342_weights_and_3825768_with_the_auxiliary_head():
    assert n_parameters(Network(PUBLISHED["DARTS_V2"], 36, 10, 20)) == 3_349_342
    assert n_parameters(Network(PUBLISHED["DARTS_V2"], 36, 10, 20, auxiliary=True)) == 3_825_768
    # The papers give 3.3 M for the DARTS cells and 3.6 M for PC-DARTS.
    assert round(n_parameters(Network(PUBLISHED["PC_DARTS"], 36, 10, 20)) / 1e6, 1) == 3.6


def test_choices_are_the_matrices_of_two_cell_types():
    assert CNN(32, 3, 4, 10, 5).choices() == {"normal": (14, 8), "reduce": (14, 8)}
    assert supernet(n_nodes=2, ops=("none", "skip_connect")).choices() == {"normal": (5, 2), "reduce": (5, 2)}
    assert uniform_arch(supernet(n_nodes=1))["reduce"].tolist() == [[1 / 8] * 8] * 2


@pytest.mark.parametrize(("n_layers", "reductions"), [(3, [1, 2]), (5, [1, 3]), (8, [2, 5]), (20, [6, 13])])
def test_reductions_stand_at_one_and_two_thirds_and_double_the_channels(n_layers, reductions):
    ops = ("skip_connect", "none")
    model = CNN(16, 3, 2, 10, n_layers, ops=ops)
    assert [i for i, cell in enumerate(model.cells) if cell.label == "reduce"] == reductions
    shapes = []
    for cell in model.cells:
        cell.register_forward_hook(lambda module, x, y: shapes.append(tuple(y.shape)))
    model(torch.randn(2, 3, 16, 16), uniform_arch(model))
    halved = [sum(i >= r for r in reductions) for i in range(n_layers)]
    assert shapes == [(2, 4 * 2 * 2**h, 16 // 2**h, 16 // 2**h) for h in halved]
    assert model.stem[0].weight.shape == (6, 3, 3, 3)
    assert model.classifier.in_features == 4 * 2 * 4


def test_a_cells_inputs_are_brought_to_its_size_and_batch_norms_have_no_scale_in_it():
    model = supernet(n_layers=5)
    for i, cell in enumerate(model.cells):
        after_reduction = i > 0 and model.cells[i - 1].label == "reduce"
        assert isinstance(cell.preprocess[0], FactorizedReduce) == after_reduction
        assert not any(m.affine for m in cell.modules() if isinstance(m, nn.BatchNorm2d))
    assert model.stem[1].affine
    derived = Network(SMALL, 4, 10, 5)
    assert all(m.affine for m in derived.modules() if isinstance(m, nn.BatchNorm2d))


def test_every_edge_has_layers_of_its_own():
    # functional_call swaps buffers by name: a layer with two names would be swapped twice.
    model = supernet()
    named = [name for name, _ in model.named_modules(remove_duplicate=False)]
    assert len(named) == len({id(module) for module in model.modules()})


# The supernet is the sum that it says it is.


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("reduction_prev", [False, True])
def test_a_cell_is_the_plain_double_sum(reduction, reduction_prev):
    torch.manual_seed(1)
    cell = Cell(6, 8, 4, reduction, reduction_prev, n_nodes=3).double()
    s0 = torch.randn(2, 6, 16 if reduction_prev else 8, 16 if reduction_prev else 8, dtype=torch.float64)
    s1 = torch.randn(2, 8, 8, 8, dtype=torch.float64)
    weights = torch.randn(9, 8, dtype=torch.float64)
    states, row = [cell.preprocess[0](s0), cell.preprocess[1](s1)], 0
    for _ in range(3):
        total = 0
        for state in states:
            for weight, op in zip(weights[row], cell.edges[row].layers.values(), strict=True):
                total = total + weight * op(state)
            row += 1
        states.append(total)
    got = cell(s0, s1, {"reduce" if reduction else "normal": weights})
    assert got.shape == (2, 12, 4 if reduction else 8, 4 if reduction else 8)
    close(got, torch.cat(states[2:], dim=1))


def test_the_strides_of_a_reduction_are_on_the_edges_from_the_inputs():
    cell = Cell(4, 4, 4, True, False, n_nodes=3)
    strides = [edge.layers["max_pool_3x3"][0].stride for edge in cell.edges]
    assert strides == [2 if source < 2 else 1 for source, _ in edges(3)]


def test_a_node_without_edges_is_zeros():
    model = supernet(n_nodes=2)
    arch = {label: torch.zeros(5, 8) for label in ("normal", "reduce")}
    outputs = []
    for cell in model.cells:
        cell.register_forward_hook(lambda module, x, y: outputs.append(y))
    logits = model(images(), arch)
    assert [y.shape[2] for y in outputs] == [8, 4, 2] and not any(y.any() for y in outputs)
    assert torch.equal(logits, model.classifier.bias.expand(4, 10))


def random_genotypes(n: int) -> list[Genotype]:
    """Random cells; of every second one a node may take both its inputs from one edge, as ENAS allows."""
    rng, real, found = random.Random(3), PRIMITIVES[1:], []
    for i in range(n):
        cells = []
        for _ in range(2):
            cell = []
            for node in range(2, 6):
                sources = [rng.randrange(node) for _ in range(2)] if i % 2 else rng.sample(range(node), 2)
                cell.append([(rng.choice(real), source) for source in sources])
            cells.append(cell)
        found.append(Genotype(*cells))
    return found


def test_a_discrete_architecture_in_the_supernet_is_the_derived_network():
    n_layers, x, ones, double = 3, images(), 0, 0
    model = supernet(n_layers)
    for genotype in random_genotypes(20):
        network, arch = derived_with_the_weights_of(model, genotype, n_layers), genotype.arch()
        double += int((arch["normal"].sum(dim=1) == 2).sum() > 0)
        for training in (True, False):
            model.train(training)
            network.train(training)
            with torch.no_grad():
                close(model(x, arch), network(x))
            differentiated = {label: matrix.clone().requires_grad_() for label, matrix in arch.items()}
            close(model(x, differentiated), network(x))  # every layer is run, and zeros change nothing
            ones += 1
    assert ones == 40 and double > 5


def test_a_derived_networks_own_layers_are_those_of_its_genotype():
    network = Network(SMALL, 4, 10, 5)
    for cell, label in zip(network.cells, ("normal", "reduce", "normal", "reduce", "normal"), strict=True):
        assert cell.nodes == getattr(SMALL, label)
        kinds = [type(op).__name__ for op in cell.ops]
        if label == "normal":
            assert kinds == ["Sequential", "Identity", "MaxPool", "Sequential"]
        else:
            assert kinds == ["FactorizedReduce", "AvgPool", "Sequential", "Identity"]
    x = torch.randn(2, 3, 16, 16)
    assert network(x).shape == (2, 10)
    cell = network.cells[1]
    first, second = torch.randn(2, 8, 8, 8), torch.randn(2, 8, 8, 8)
    s0, s1, ops = cell.preprocess[0](first.repeat(1, 2, 1, 1)[:, :12]), cell.preprocess[1](second), cell.ops
    node_2 = ops[0](s0) + ops[1](s1)
    node_3 = ops[2](s1) + ops[3](node_2)
    torch.testing.assert_close(
        cell(first.repeat(1, 2, 1, 1)[:, :12], second), torch.cat([node_2, node_3], dim=1)
    )


def test_what_has_weight_zero_is_not_run_in_the_supernet():
    model = supernet()
    run = []
    for i, cell in enumerate(model.cells):
        for row, edge in enumerate(cell.edges):
            for name, op in edge.layers.items():
                op.register_forward_hook(lambda *_, key=(i, row, name): run.append(key))
    arch = random_arch(model, torch.Generator().manual_seed(0))
    model(images(), arch)
    expected = [
        (i, row, PRIMITIVES[column])
        for i, cell in enumerate(model.cells)
        for row, column in arch[cell.label].nonzero().tolist()
    ]
    assert run == expected and len(run) == 3 * 8


# Gradients through the architecture


def loss_of(model: CNN, x: torch.Tensor):
    """A function of the weights and the logits of the architecture; buffers are copied, not written to."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    y = torch.arange(len(x)) % 10

    def loss(w, alpha):
        copies = {name: buffer.clone() for name, buffer in buffers.items()}
        arch = {label: logits.softmax(dim=-1) for label, logits in alpha.items()}
        return nn.functional.cross_entropy(functional_call(model, {**w, **copies}, (x, arch)), y)

    return loss


@pytest.fixture(scope="module")
def small():
    """A supernet of all operations but few weights, its weights, and logits."""
    model = supernet(channels=2, n_nodes=2)
    w = {name: weight.detach() for name, weight in model.named_parameters()}
    generator = torch.Generator().manual_seed(5)
    alpha = {k: torch.randn(s, generator=generator, dtype=torch.float64) for k, s in model.choices().items()}
    return model, w, alpha


def test_torch_func_and_backward_and_differences_give_one_gradient(small):
    model, w, alpha = small
    loss = loss_of(model, images())
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    by_func = grad(loss, argnums=1)(w, alpha)
    leaves = {label: logits.clone().requires_grad_() for label, logits in alpha.items()}
    loss(w, leaves).backward()
    for label in alpha:
        close(by_func[label], leaves[label].grad)
        for row, column in ((0, 0), (1, 4), (4, 7)):
            nudged = []
            for step in (1e-5, -1e-5):
                moved = {k: v.clone() for k, v in alpha.items()}
                moved[label][row, column] += step
                nudged.append(loss(w, moved).item())
            difference = (nudged[0] - nudged[1]) / 2e-5
            assert difference == pytest.approx(by_func[label][row, column].item(), rel=1e-4, abs=1e-8)
    after = dict(model.named_buffers())
    assert all(torch.equal(before[name], after[name]) for name in before), "a buffer was written to"


def test_the_mixed_second_derivative_is_the_same_by_torch_func_and_by_autograd(small):
    model, w, alpha = small
    loss = loss_of(model, images())
    one = {name: torch.randn_like(weight) for name, weight in w.items()}

    def slope(alpha):
        inner = grad(loss)(w, alpha)
        return sum((inner[name] * one[name]).sum() for name in w)

    by_func = grad(slope)(alpha)
    leaves = {label: logits.clone().requires_grad_() for label, logits in alpha.items()}
    moving = {name: weight.clone().requires_grad_() for name, weight in w.items()}
    inner = torch.autograd.grad(loss(moving, leaves), list(moving.values()), create_graph=True)
    outer = sum((g * one[name]).sum() for g, name in zip(inner, moving, strict=True))
    by_autograd = torch.autograd.grad(outer, list(leaves.values()))
    for label, expected in zip(alpha, by_autograd, strict=True):
        assert expected.abs().max() > 1e-3
        close(by_func[label], expected)


def test_channels_last_and_single_precision_change_rounding_only():
    model, x = supernet(), images()
    arch = softmaxed(model)
    logits = model(x, arch)
    single = model.float().to(memory_format=torch.channels_last)
    again = single(
        x.float().contiguous(memory_format=torch.channels_last), {k: v.float() for k, v in arch.items()}
    )
    torch.testing.assert_close(again.double(), logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_made_on_another_device(training):
    with fake_cuda():
        with torch.device("cuda"):
            model = CNN(8, 3, 4, 10, 3, n_nodes=2).train(training)
            network = Network(SMALL, 4, 10, 3, auxiliary=True).train(training)
            x, large = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 32, 32)
            arch = {label: torch.rand(shape, requires_grad=True) for label, shape in model.choices().items()}
        assert model(x, arch).device.type == "cuda"
        network.drop_path = 0.5
        out = network(large)
        assert all(t.device.type == "cuda" for t in (out if training else [out]))


# Drop path


def test_drop_path_zeroes_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.rand(20_000, 2, 3, 3) + 1
    y = drop(x, 0.3)
    dropped = (y == 0).flatten(1)
    assert torch.equal(dropped.any(dim=1), dropped.all(dim=1)), "a part of an image was dropped"
    share = dropped.all(dim=1).double().mean().item()
    assert share == pytest.approx(0.3, abs=0.013)  # four standard deviations
    kept = ~dropped.all(dim=1)
    torch.testing.assert_close(y[kept], x[kept] / 0.7)
    assert y.mean().item() == pytest.approx(x.mean().item(), rel=0.02)
    assert torch.equal(drop(x, 0.0), x)


@pytest.mark.parametrize("probability", [1.0, -0.1, 1.5, float("nan")])
def test_drop_path_wants_a_probability_below_one(probability):
    with pytest.raises(ValueError, match="drop path wants a probability"):
        drop(torch.ones(1, 1, 1, 1), probability)


def test_drop_path_spares_identities_and_evaluation():
    cell = DerivedCell(SMALL, 4, 4, 4, False, False)
    s0, s1 = torch.randn(64, 4, 8, 8), torch.randn(64, 4, 8, 8)
    torch.manual_seed(0)
    out = cell(s0, s1, 0.999)
    # Node 2 is sep_conv(0) + identity(1); nearly every image has lost the convolution, none the identity.
    identity = cell.preprocess[1](s1)
    lost = torch.isclose(out[:, :4], identity).flatten(1).all(dim=1)
    assert lost.sum() >= 62
    assert (
        not out[:, 4:][lost].any() or (out[:, 4:] == 0).flatten(1).all(dim=1).sum() >= 60
    )  # node 3: no identity
    cell.eval()
    assert torch.equal(cell(s0, s1, 0.999), cell(s0, s1, 0.0))


def test_the_network_passes_its_drop_path_on():
    network = Network(SMALL, 4, 10, 3)
    x = torch.randn(8, 3, 16, 16)
    torch.manual_seed(0)
    assert torch.equal(network(x), network(x)), "drop path is off at first"
    network.drop_path = 0.5
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


# The auxiliary head


def test_the_auxiliary_head_speaks_in_training_only():
    network = Network(SMALL, 4, 10, 6, auxiliary=True)
    x = torch.randn(4, 3, 32, 32)
    logits, auxiliary = network(x)
    assert logits.shape == auxiliary.shape == (4, 10)
    assert network.auxiliary_at == 4
    auxiliary.sum().backward()
    reached = [any(p.grad is not None for p in cell.parameters()) for cell in network.cells]
    assert reached == [True, True, True, True, True, False]
    network.eval()
    assert network(x).shape == (4, 10)
    assert Network(SMALL, 4, 10, 6)(x).shape == (4, 10)


def test_the_auxiliary_head_does_not_change_the_logits():
    torch.manual_seed(0)
    network = Network(SMALL, 4, 10, 3, auxiliary=True)
    x = torch.randn(4, 3, 32, 32)
    logits, _ = network(x)
    network.auxiliary = None
    assert torch.equal(network(x), logits)


def test_the_auxiliary_head_wants_32_pixels():
    network = Network(SMALL, 4, 10, 3, auxiliary=True)
    with pytest.raises(ValueError, match="wants 8x8 feature maps .* got 4x4; use auxiliary=False"):
        network(torch.randn(4, 3, 16, 16))
    assert network.eval()(torch.randn(4, 3, 16, 16)).shape == (4, 10)
    assert AuxiliaryHead(5, 7)(torch.randn(2, 5, 8, 8)).shape == (2, 7)


# Errors


@pytest.mark.parametrize("size", [0, 4, 10, 30])
def test_an_input_size_that_cannot_be_halved_twice_is_told(size):
    with pytest.raises(ValueError, match=f"multiple of 4 from 8 up.*got {size}"):
        CNN(size, 3, 4, 10, 3)


def test_fewer_than_three_cells_are_told():
    for build in (lambda: CNN(8, 3, 4, 10, 2), lambda: Network(SMALL, 4, 10, 2)):
        with pytest.raises(ValueError, match="3 cells or more.*n_layers=2"):
            build()


@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (4, 3, 8, 16), (4, 3, 32, 32), (3, 8, 8)])
def test_images_of_another_shape_are_told(shape):
    model = CNN(8, 3, 4, 10, 3, n_nodes=1)
    with pytest.raises(ValueError, match=r"wanted images of shape \(B, 3, (8, 8|H, W)\), got"):
        model(torch.randn(shape), uniform_arch(model))


@pytest.mark.parametrize(
    "change",
    [
        {"normal": torch.ones(2, 7)},
        {"reduce": torch.ones(5, 8)},
        {"reduce": torch.ones(8)},
        {"normal": [[1.0] * 8] * 2},
        {"normal": None},
        {"extra": torch.ones(2, 8)},
    ],
)
def test_an_architecture_of_another_shape_is_told(change):
    model = CNN(8, 3, 4, 10, 3, n_nodes=1)
    with pytest.raises(ArchError, match=next(iter(change))):
        model(torch.randn(4, 3, 8, 8), uniform_arch(model) | change)
    with pytest.raises(ArchError, match=r"has the labels \['normal'\], the model wants"):
        model(torch.randn(4, 3, 8, 8), {"normal": torch.ones(2, 8)})


def test_an_odd_map_in_a_derived_network_is_told():
    with pytest.raises(ValueError, match="halves the feature map, but this one is"):
        Network(SMALL, 4, 10, 3)(torch.randn(2, 3, 18, 18))


def test_a_search_space_of_ones_own_operations():
    model = supernet(n_nodes=2, ops=("skip_connect", "sep_conv_7x7"))
    assert not any(isinstance(m, Zero) for cell in model.cells for m in cell.edges.modules())
    arch = random_arch(model, torch.Generator().manual_seed(0))
    genotype = Genotype.from_arch(arch, model.ops)
    assert all(torch.equal(genotype.arch(model.ops)[label], arch[label]) for label in arch)
    assert torch.isfinite(model(images(), arch)).all()
