"""Architectures, models and images that nothing can be done with are told by name, not deep in torch."""

import pytest
import torch
from fake_gpu import fake_cuda
from torch import nn

from nasedu import (
    CNN,
    PUBLISHED,
    ArchError,
    Cell,
    DerivedCell,
    Genotype,
    GenotypeError,
    InputChoice,
    LayerChoice,
    MacroCNN,
    NaseduError,
    Network,
    check_arch,
    choices,
    make_op,
    random_arch,
    read,
    register,
    uniform_arch,
)  # fmt: skip
from nasedu.space import SmallCNN, mixed_edge
from nasedu.space.cells import PartialEdge

NAN = float("nan")
CELL = PUBLISHED["DARTS_V2"]


def supernet(**options):
    torch.manual_seed(0)
    return CNN(8, 3, 2, 4, 3, n_nodes=1, **options)


MODELS = {
    "readable": lambda: supernet(fast=False),
    "fast": supernet,
    "small": lambda: SmallCNN(2, 4),
    "macro": lambda: MacroCNN(8, 3, 2, 4, 3),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def images(n=2):
    return torch.rand(n, 3, 8, 8)


# ---- architectures


def one_nan(matrix):
    matrix = matrix.clone()
    matrix[0, 0] = NAN
    return matrix


ODD = {
    "complex": (lambda m: m.cfloat(), "complex64"),
    "sparse": (lambda m: m.to_sparse(), "sparse"),
    "meta": (lambda m: m.to("meta"), "meta"),
    "None": (lambda m: None, "NoneType"),
    "numpy": (lambda m: m.numpy(), "ndarray"),
    "list": (lambda m: m.tolist(), "list"),
    "wrong shape": (lambda m: m[:, :-1], "shape"),
    "flat": (lambda m: m.flatten(), "shape"),
    "nan": (lambda m: m * NAN, "not finite"),
    "inf": (lambda m: m / 0, "not finite"),
    "nan with a gradient": (lambda m: (m * NAN).requires_grad_(), "not finite"),
    "one nan of many": (one_nan, "not finite"),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_matrix_that_weighs_nothing_is_told(model, kind):
    spoil, message = ODD[kind]
    arch = uniform_arch(model)
    label = sorted(arch)[0]
    with pytest.raises(ArchError, match=f"{label}.*{message}"):
        model(images(), {**arch, label: spoil(arch[label])})
    with pytest.raises(ArchError, match=f"{label}.*{message}"):
        check_arch(choices(model), {**arch, label: spoil(arch[label])})


@pytest.mark.parametrize(
    "arch", [None, [], "normal", 5, {}, {1: torch.ones(1), "normal": torch.ones(1), None: 3}]
)
def test_what_is_no_architecture_at_all_is_told(model, arch):
    for call in (lambda: model(images(), arch), lambda: check_arch(choices(model), arch)):
        with pytest.raises(ArchError, match="the architecture has the labels .*, the model wants"):
            call()
    with pytest.raises(ArchError, match="lacks the label 'c'"):
        LayerChoice([nn.Identity()], "c")(images(), arch)
    with pytest.raises(ArchError, match="dict, label -> matrix|wants the matrices|has shape"):
        Genotype.derive(arch)


def test_whole_numbers_weigh_as_they_say_and_large_ones_are_finite(model):
    arch = random_arch(model, torch.Generator().manual_seed(0))
    wanted = model.eval()(images := torch.rand(2, 3, 8, 8), arch)
    for kind in (torch.int64, torch.bool, torch.float64, torch.bfloat16):
        torch.testing.assert_close(model(images, {k: v.to(kind) for k, v in arch.items()}), wanted)
    large = {label: torch.full(shape, 3e38) for label, shape in choices(model).items()}
    check_arch(choices(model), large)
    model(images, large)  # their sum is infinite, they are not


def test_a_nan_in_a_points_own_row_is_told_and_in_another_is_not_its_business():
    point = LayerChoice([nn.Identity(), nn.Identity()], "c", row=1)
    for wanted in (False, True):
        arch = torch.tensor([[NAN, 1.0], [0.5, 0.5]], requires_grad=wanted)
        assert torch.equal(point(torch.ones(1), {"c": arch}), torch.ones(1))
        with pytest.raises(ArchError, match="'c' holds numbers that are not finite"):
            point(torch.ones(1), {"c": arch.flip(0).detach().requires_grad_(wanted)})


def test_an_accelerators_numbers_are_not_read():
    with fake_cuda(), torch.device("cuda"):  # a read of a tensor without content raises
        for model in (supernet(fast=False), SmallCNN(2, 4), MacroCNN(8, 3, 2, 4, 3)):
            arch = {k: torch.rand(shape, requires_grad=True) for k, shape in choices(model).items()}
            assert model(images(), arch).device.type == "cuda"
            with pytest.raises(NaseduError, match="images are on cpu, the model on cuda"):
                model(torch.rand(2, 3, 8, 8, device="cpu"), arch)
        with torch.device("cpu"):
            here = supernet(fast=False)
            with pytest.raises(ArchError, match="'normal'\\] is on cuda.*, x on cpu; bring it"):
                here(images(), {k: torch.rand(s, device="cuda") for k, s in choices(here).items()})


# ---- images


@pytest.mark.parametrize("name", [*MODELS, "network"])
def test_images_that_do_not_fit_are_told(name):
    if name == "network":
        model = Network(CELL, 2, 4, 3)
        call = model
    else:
        model = MODELS[name]()
        arch = uniform_arch(model)
        call = lambda x: model(x, arch)  # noqa: E731
    for x in (images()[0], images()[:, :1], images()[:0], None, images().numpy(), "x"):
        with pytest.raises(NaseduError, match=r"wanted images of shape \(B, 3, .*, got"):
            call(x)
    if name in ("small", "network"):  # these take any size
        assert len(call(torch.rand(2, 3, 16, 16))) == 2
    else:
        with pytest.raises(NaseduError, match=r"wanted images of shape \(B, 3, 8, 8\), got .*16, 16"):
            call(torch.rand(2, 3, 16, 16))
    for x in (images().double(), (images() * 255).byte(), images().half()):
        with pytest.raises(
            NaseduError, match=rf"images are of {x.dtype}, the model of torch.float32; use x.to"
        ):
            call(x)
    model.double()
    with pytest.raises(NaseduError, match="images are of torch.float32, the model of torch.float64"):
        call(images())
    assert call(images().double()).dtype == torch.float64
    model.float()
    with torch.autocast("cpu", torch.bfloat16):
        call(images().bfloat16())


# ---- models


SIZES = [0, -1, 1.5, "3", None, True, 10**9]


@pytest.mark.parametrize(
    "name", ["n_classes", "n_nodes", "stem_multiplier", "n_layers", "in_channels", "channels"]
)
@pytest.mark.parametrize("size", SIZES)
def test_a_model_of_no_size_is_told(name, size):
    """The issue's: CNN(n_classes=0 | n_nodes=0 | stem_multiplier=0 | layers=0 | in_channels=0)."""
    good = {"channels": 2, "n_classes": 4, "n_layers": 3}
    builders = {
        "CNN": (CNN, {"input_size": 8, "in_channels": 3, **good}, ()),
        "Network": (lambda **o: Network(CELL, **o), good, ("n_nodes",)),
        "MacroCNN": (MacroCNN, {"input_size": 8, **good}, ("n_nodes", "stem_multiplier")),
        "SmallCNN": (SmallCNN, {}, ("n_nodes", "stem_multiplier", "n_layers")),
    }
    for build, options, without in builders.values():
        if name not in without:
            with pytest.raises(NaseduError, match=f"{name}( is |=)"):
                build(**{**options, name: size})


@pytest.mark.parametrize(
    "ops", [[], ["none"], "skip_connect", None, 5, [3], ["skip_connect"] * 2, ["conv_9x9"]]
)
def test_operations_that_are_none_are_told(ops):
    for build in (lambda: supernet(ops=ops), lambda: MacroCNN(ops=ops), lambda: mixed_edge(ops, 4, "a", 0)):
        with pytest.raises(NaseduError, match="ops is|unknown operation"):
            build()
    with pytest.raises(ArchError, match="the operations of 'normal' are .*; wanted a list|columns"):
        Genotype.derive(uniform_arch(supernet()), ops)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: CNN("8", 3, 2, 4, 3), "input_size is '8'"),
        (lambda: supernet(partial="2"), "partial is '2'"),
        (lambda: Cell(0, 4, 4, False, False), "c_prev_prev is 0"),
        (lambda: DerivedCell(None, 4, 4, 4, False, False), "built of a Genotype, got None"),
        (lambda: Network({}, 4, 10, 3), "built of a Genotype, got {}"),
        (lambda: PartialEdge(nn.Identity(), 2), "choice is Identity"),
        (lambda: LayerChoice(3, "a"), "candidates of 'a' are 3; wanted a list or a dict"),
        (lambda: LayerChoice({"a.b": nn.Identity()}, "a"), "name a module"),
        (lambda: LayerChoice({"keys": nn.Identity()}, "a"), "name a module"),
        (lambda: LayerChoice(["conv_3x3"], "a"), "wanted layers"),
        (lambda: LayerChoice([nn.Identity()], "a", row="0"), "row is '0'"),
        (lambda: LayerChoice([nn.Identity()], "a", node=-1), "node is -1"),
        (lambda: InputChoice(2.0, label="a"), "n_candidates of 'a' is 2.0"),
        (lambda: InputChoice(2, "1", "a"), "n_chosen of 'a' is '1'"),
        (lambda: InputChoice(2, 1, "a")(None, {}), "wants 2 inputs, got None"),
        (lambda: make_op("skip_connect", 0), "channels is 0"),
        (lambda: make_op("skip_connect", 4, 3), "stride is 3"),
        (lambda: make_op(["skip"], 4), "unknown operation"),
        (lambda: register("a.b"), "without a dot"),
        (lambda: choices("model"), "wanted an nn.Module"),
        (lambda: Genotype(others=[1]), "others are cells by label"),
        (lambda: Genotype(CELL.normal, CELL.reduce, 5), "source is a text"),
    ],
)
def test_what_cannot_be_built_is_told(build, message):
    with pytest.raises(NaseduError, match=message):
        build()


def test_an_unknown_operation_is_still_a_key_error_and_said_without_quotes():
    with pytest.raises(KeyError) as caught:
        make_op("x", 4)
    assert str(caught.value).startswith("unknown operation 'x'; known are")
    assert issubclass(GenotypeError, NaseduError)


@pytest.mark.parametrize("decision", [[0, 0], [True], [1.0], [3], "0", [[0]], []])
def test_a_decision_that_is_none_is_told_when_it_is_read(decision):
    model = nn.ModuleList([InputChoice(3, 1, "skip"), LayerChoice([nn.Identity()], "op")])
    assert read(model, {"skip": [[1]], "op": ["0"]})["skip"].tolist() == [[0, 1, 0]]
    with pytest.raises(ArchError, match="row 0 of 'skip' can choose from"):
        read(model, {"skip": [decision], "op": ["0"]})
