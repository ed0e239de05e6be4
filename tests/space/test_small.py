"""The small space: all of it, its matrices, its weights counted, its network against the formula by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nasedu import (
    DartsTrainer,
    EnasTrainer,
    RandomSearch,
    accuracy,
    choices,
    get_dataset,
    read,
    reward_accuracy,
)
from nasedu.space.choice import ArchError
from nasedu.space.small import EDGES, OPS, SmallCNN, architectures, matrix, names_of, parameters_of


def test_there_are_125_architectures_and_no_two_are_the_same():
    names = architectures()
    assert len(names) == len(set(names)) == 125
    assert names[0] == ("none", "none", "none") and names[-1] == ("avg_pool_3x3",) * 3
    assert names[1] == ("none", "none", "skip_connect"), "the last edge turns fastest"
    assert set(OPS) == {"none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3"}
    assert EDGES == ((0, 1), (0, 2), (1, 2))


def test_a_matrix_and_its_names_say_the_same():
    for names in architectures():
        arch = matrix(names)
        assert arch["cell"].shape == (3, 5) and arch["cell"].sum(dim=1).tolist() == [1, 1, 1]
        assert names_of(arch) == names
    assert matrix(("none", "conv_3x3", "avg_pool_3x3"))["cell"].nonzero().tolist() == [[0, 0], [1, 3], [2, 4]]
    assert names_of({"cell": torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.1]] * 3)}) == ("conv_1x1",) * 3


@pytest.mark.parametrize("names", [(), ("none", "none"), ("none",) * 4, ("none", "none", "conv_5x5"), "abc"])
def test_what_is_no_architecture_is_told(names):
    with pytest.raises(ArchError, match="wanted 3 of the operations none, skip_connect, .*got"):
        matrix(names)


@pytest.mark.parametrize(
    "arch, message",
    [
        ({"cell": torch.zeros(5, 3)}, r"\(3, 5\), got \(5, 3\)"),
        ({"normal": torch.zeros(3, 5)}, "labels"),
        ({"cell": [[0.0] * 5] * 3}, "got list"),
    ],
)
def test_a_matrix_that_does_not_fit_is_told(arch, message):
    with pytest.raises(ArchError, match=message):
        names_of(arch)
    with pytest.raises(ArchError, match=message):
        SmallCNN(2)(torch.zeros(1, 3, 8, 8), arch)


# ---- weights


def test_the_weights_of_three_3x3_convolutions_in_closed_form():
    # stem, then cells of 16, 32, 64 channels, reductions between them, last batch norm, classifier
    stem = 3 * 16 * 9 + 2 * 16
    cells = sum(3 * (9 * c * c + 2 * c) for c in (16, 32, 64))
    reductions = sum(9 * c * 2 * c + 2 * 2 * c for c in (16, 32))
    assert parameters_of(("conv_3x3",) * 3) == stem + cells + reductions + 2 * 64 + 64 * 10 + 10
    assert parameters_of(("none",) * 3) == stem + reductions + 2 * 64 + 64 * 10 + 10


def weights(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters())


def test_the_weights_counted_are_those_that_training_moves():
    torch.manual_seed(0)
    model = SmallCNN(2, 4, search=False)
    x = torch.randn(3, 3, 8, 8)
    for names in architectures():
        model.zero_grad()
        model(x, matrix(names)).sum().backward()
        moved = sum(p.numel() for p in model.parameters() if p.grad is not None)
        first, direct, second = names
        expected = parameters_of(names, 2, 4)
        if second == "none":  # node 1 leads nowhere; its edge is counted, but no gradient comes to it
            expected -= sum(weights(cell.edges[0].layers[first]) for cell in model.cells)
        if direct == "none" and "none" in (first, second):  # nothing gets through a cell: the last one moves
            expected = sum(
                map(weights, (model.cells[2].edges[2].layers[second], model.last, model.classifier))
            )
        assert moved == expected, names


# ---- the network


def by_hand(model: SmallCNN, names: tuple[str, ...], x: torch.Tensor) -> torch.Tensor:
    """The logits in training mode, written out: node 2 = edge(0->2)(x) + edge(1->2)(edge(0->1)(x))."""

    def norm(x, bn):
        return F.batch_norm(x, None, None, bn.weight, bn.bias, training=True)

    def edge(cell, row, x):
        name, layers = names[row], cell.edges[row].layers
        if name == "none":
            return 0 * x
        if name == "skip_connect":
            return x
        if name == "avg_pool_3x3":
            return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        conv, bn = layers[name][1:]
        return norm(F.conv2d(x.clamp(min=0), conv.weight, padding=int(name[-1]) // 2), bn)

    x = norm(F.conv2d(x, model.stem[0].weight, padding=1), model.stem[1])
    for i, cell in enumerate(model.cells):
        if i:
            _, conv, bn = model.reductions[i - 1]
            x = norm(F.conv2d(x.clamp(min=0), conv.weight, stride=2, padding=1), bn)
        x = edge(cell, 1, x) + edge(cell, 2, edge(cell, 0, x))
    x = norm(x, model.last[0]).clamp(min=0).mean(dim=(2, 3))
    return x @ model.classifier.weight.T + model.classifier.bias


def test_one_architecture_computes_exactly_the_formula():
    torch.manual_seed(1)
    model = SmallCNN(3, 4, in_channels=2, search=False).double()
    for weight in model.parameters():
        nn.init.normal_(weight)  # batch norms too: with scale 1 and shift 0 they could hide
    x = torch.randn(4, 2, 8, 8, dtype=torch.float64)
    for names in architectures():
        torch.testing.assert_close(model(x, matrix(names)), by_hand(model, names, x), rtol=1e-9, atol=1e-9)


def test_a_mixture_weighs_the_operations_of_each_edge():
    torch.manual_seed(2)
    model = SmallCNN(2).double()
    cell, weights = model.cells[0], torch.rand(3, 5, dtype=torch.float64)
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)

    def edge(row, x):
        layers = cell.edges[row].layers
        return sum(weights[row, i] * layers[name](x) for i, name in enumerate(OPS))

    torch.testing.assert_close(cell(x, {"cell": weights}), edge(1, x) + edge(2, edge(0, x)))


def test_the_supernet_has_the_search_form_and_an_architecture_alone_the_other():
    for search in (True, False):
        model = SmallCNN(4, search=search)
        for edge in (edge for cell in model.cells for edge in cell.edges):
            norms = {
                name: [m for m in op.modules() if isinstance(m, nn.BatchNorm2d)]
                for name, op in edge.layers.items()
            }
            counts = {name: len(found) for name, found in norms.items()}
            pool = 1 if search else 0
            assert counts == {
                "none": 0, "skip_connect": 0, "conv_1x1": 1, "conv_3x3": 1, "avg_pool_3x3": pool,
            }  # fmt: skip
            assert all(bn.affine is not search for found in norms.values() for bn in found)
    assert model.choices() == choices(model) == {"cell": (3, 5)}


@pytest.mark.parametrize("trainer", [DartsTrainer, EnasTrainer, RandomSearch])
def test_every_search_takes_the_supernet_and_exports_an_architecture(trainer):
    torch.set_num_threads(1)
    torch.manual_seed(3)
    model = SmallCNN(2)
    data, _ = get_dataset("shapes10", subset=(32, 10), input_size=8)
    options = {
        DartsTrainer: {},
        EnasTrainer: {"reward_function": reward_accuracy, "ctrl_steps": 2, "ctrl_steps_aggregate": 2},
        RandomSearch: {"n_candidates": 3},
    }[trainer]
    search = trainer(
        model=model, loss=nn.CrossEntropyLoss(), metrics=accuracy, num_epochs=1, dataset=data, batch_size=8,
        optimizer=torch.optim.SGD(model.parameters(), 0.01), device="cpu", progress=False, **options,
    )  # fmt: skip
    search.fit()
    exported = search.export()
    assert set(exported) == {"cell"} and tuple(exported["cell"]) in architectures()
    assert names_of(read(model, exported)) == tuple(exported["cell"])
