"""Decision points: the weighted sum, what is not run, gradients, labels, random architectures, errors."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import grad, jvp, vmap

from nasedu import CNN, ArchError, InputChoice, LayerChoice, check_arch, choices, points, random_arch
from nasedu.space.genotype import edges
from nasedu.space.ops import Zero


class Scale(nn.Module):
    """x -> factor x, and a count of the calls."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor, self.calls = factor, 0

    def forward(self, x):
        self.calls += 1
        return self.factor * x


def three() -> LayerChoice:
    return LayerChoice({"one": Scale(1.0), "ten": Scale(10.0), "hundred": Scale(100.0)}, "c")


def calls(choice: LayerChoice) -> list[int]:
    return [layer.calls for layer in choice.layers.values()]


def tied(*args, **options) -> nn.Module:
    """A model of the given points, which needs no forward."""
    return nn.ModuleList(args)


# LayerChoice


def test_a_layer_choice_adds_its_candidates_times_their_weights():
    x = torch.randn(2, 3)
    arch = {"c": torch.tensor([[0.5, 0.25, 2.0]])}
    torch.testing.assert_close(three()(x, arch), 0.5 * x + 0.25 * 10 * x + 2.0 * 100 * x)


def test_a_point_reads_its_own_row_of_its_own_label():
    layers = [Scale(1.0), Scale(10.0)]
    arch = {"a": torch.eye(2), "b": torch.tensor([[0.0, 2.0]])}
    x = torch.ones(1)
    assert LayerChoice(layers, "a", row=0)(x, arch) == 1
    assert LayerChoice(layers, "a", row=1)(x, arch) == 10
    assert LayerChoice(layers, "b")(x, arch) == 20


def test_candidates_in_a_list_are_named_by_number():
    assert LayerChoice([Scale(1.0), Scale(2.0)], "c").names == ("0", "1")
    assert three().names == ("one", "ten", "hundred")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_a_zero_weight_is_not_run(dtype):
    choice = three()
    y = choice(torch.ones(2), {"c": torch.tensor([[0, 1, 0]], dtype=dtype)})
    assert y.tolist() == [10.0, 10.0]
    assert calls(choice) == [0, 1, 0]


def test_a_zero_weight_is_run_where_the_row_wants_a_gradient_and_not_under_no_grad():
    arch = {"c": torch.tensor([[0.0, 1.0, 0.0]], requires_grad=True)}
    choice, x = three(), torch.tensor([3.0])
    choice(x, arch).sum().backward()
    assert calls(choice) == [1, 1, 1]
    assert arch["c"].grad.tolist() == [[3.0, 30.0, 300.0]]  # also of the weights that are zero
    with torch.no_grad():
        choice(x, arch)
    assert calls(choice) == [1, 2, 1]


def test_the_weight_of_none_has_the_gradient_zero_and_none_is_not_run():
    zero, arch = Zero(1), {"c": torch.tensor([[0.3, 0.7]], requires_grad=True)}
    zero.register_forward_hook(lambda *_: pytest.fail("none was run"))
    choice = LayerChoice({"none": zero, "two": Scale(2.0)}, "c")
    choice(torch.ones(1), arch).sum().backward()
    assert arch["c"].grad.tolist() == [[0.0, 2.0]]


def test_a_row_of_zeros_gives_zeros_if_none_is_a_candidate_and_else_an_error():
    x, arch = torch.randn(2, 3, 4, 4), {"c": torch.zeros(1, 2)}
    assert torch.equal(
        LayerChoice({"none": Zero(2), "id": nn.Identity()}, "c")(x, arch), torch.zeros(2, 3, 2, 2)
    )
    arch_none = {"c": torch.tensor([[1.0, 0.0]])}
    assert torch.equal(
        LayerChoice({"none": Zero(1), "id": nn.Identity()}, "c")(x, arch_none), torch.zeros_like(x)
    )
    with pytest.raises(ArchError, match="row 0 of 'c' is all zeros.*'a', 'b'"):
        LayerChoice({"a": nn.Identity(), "b": nn.Identity()}, "c")(x, arch)


# Derivatives other than backward(): the architecture may be tracked without `requires_grad`.


def value(choice: LayerChoice, matrix: torch.Tensor) -> torch.Tensor:
    return choice(torch.tensor([3.0]), {"c": matrix}).sum() ** 2


DISCRETE = torch.tensor([[0.0, 1.0, 0.0]])
GRADIENT = [[2 * 30 * 3.0, 2 * 30 * 30.0, 2 * 30 * 300.0]]


def test_torch_func_grad_gives_the_gradient_of_zero_weights_too():
    assert grad(lambda a: value(three(), a))(DISCRETE).tolist() == GRADIENT


def test_forward_mode_gives_the_derivative_of_zero_weights_too():
    tangent = torch.tensor([[1.0, 0.0, -1.0]])
    expected = GRADIENT[0][0] - GRADIENT[0][2]
    assert jvp(lambda a: value(three(), a), (DISCRETE,), (tangent,))[1] == expected
    with forward_ad.dual_level():
        dual = value(three(), forward_ad.make_dual(DISCRETE, tangent))
        assert forward_ad.unpack_dual(dual).tangent == expected


def test_an_outer_grad_sees_the_architecture_through_an_inner_grad_over_the_weights():
    choice = three()

    def inner(w, a):
        return (w * choice(torch.tensor([3.0]), {"c": a}).sum()) ** 2

    # d/da d/dw (w s(a))^2 = 4 w s(a) ds/da, with s = 30 at the discrete architecture.
    mixed = grad(lambda a: grad(inner)(torch.tensor(0.5), a))(DISCRETE)
    assert mixed.tolist() == [[4 * 0.5 * 30 * 3.0, 4 * 0.5 * 30 * 30.0, 4 * 0.5 * 30 * 300.0]]


def test_vmap_evaluates_several_architectures_at_once():
    several = torch.eye(3)[:, None, :]
    assert vmap(lambda a: value(three(), a))(several).tolist() == [9.0, 900.0, 90000.0]


# InputChoice


def test_an_input_choice_adds_its_inputs_times_their_weights():
    xs = [torch.randn(2, 3) for _ in range(3)]
    choice = InputChoice(3, label="skip")
    torch.testing.assert_close(choice(xs, {"skip": torch.tensor([[0.5, 0.0, -1.0]])}), 0.5 * xs[0] - xs[2])
    assert torch.equal(choice(xs, {"skip": torch.tensor([[0.0, 1.0, 0.0]])}), xs[1])


def test_no_input_chosen_gives_zeros():
    xs = [torch.full((2, 3), float("inf")) for _ in range(2)]
    choice = InputChoice(2, n_chosen=None, label="skip", row=1)
    assert torch.equal(choice(xs, {"skip": torch.zeros(2, 2)}), torch.zeros(2, 3))


def test_the_gradient_of_an_input_choice_is_the_inputs():
    xs, arch = [torch.tensor([1.0]), torch.tensor([5.0])], {"s": torch.zeros(1, 2, requires_grad=True)}
    InputChoice(2, None, "s")(xs, arch).sum().backward()
    assert arch["s"].grad.tolist() == [[1.0, 5.0]]


def test_the_wrong_number_of_inputs_is_told():
    with pytest.raises(ArchError, match="'skip' wants 3 inputs, got 2"):
        InputChoice(3, label="skip")([torch.ones(1)] * 2, {"skip": torch.ones(1, 3)})


# What an architecture must be


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ({"d": torch.ones(1, 3)}, r"lacks the label 'c'; it has \['d'\]"),
        ({}, "lacks the label 'c'"),
        ({"c": torch.ones(3)}, r"row 0 of a matrix with 3 columns \(one, ten, hundred\).*got \(3,\)"),
        ({"c": torch.ones(1, 2)}, r"got \(1, 2\)"),
        ({"c": torch.ones(0, 3)}, r"got \(0, 3\)"),
        ({"c": [[1.0, 0.0, 0.0]]}, "got list"),
        ({"c": None}, "got NoneType"),
    ],
)
def test_an_architecture_that_does_not_fit_a_point_is_told(arch, message):
    with pytest.raises(ArchError, match=message):
        three()(torch.ones(1), arch)
    assert issubclass(ArchError, ValueError)


SHAPES = {"a": (2, 3), "b": (1, 4)}


def good():
    return {label: torch.ones(shape) for label, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c": torch.ones(1, 1)}, r"labels \['a', 'b', 'c'\], the model wants \['a', 'b'\]"),
        ({"a": torch.ones(3, 2)}, r"arch\['a'\] must be a tensor of shape \(2, 3\), got \(3, 2\)"),
        ({"b": torch.ones(4)}, r"arch\['b'\] .* got \(4,\)"),
        ({"b": [[1.0] * 4]}, r"arch\['b'\] .* got list"),
        ({"b": torch.tensor([[1, 2, 3, float("nan")]])}, "'b' holds numbers that are not finite"),
        ({"b": torch.tensor([[1, 2, 3, float("inf")]])}, "'b' holds numbers that are not finite"),
    ],
)
def test_check_arch_tells_what_is_wrong(change, message):
    check_arch(SHAPES, good())
    with pytest.raises(ArchError, match=message):
        check_arch(SHAPES, good() | change)
    with pytest.raises(ArchError, match="the model wants"):
        check_arch(SHAPES, {"a": torch.ones(2, 3)})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LayerChoice([Scale(1.0)], ""), "needs a label.*got ''"),
        (lambda: InputChoice(2), "needs a label"),
        (lambda: LayerChoice([Scale(1.0)], 3), "needs a label.*got 3"),
        (lambda: LayerChoice([], "c"), "'c' has no candidates"),
        (lambda: LayerChoice([Scale(1.0)], "c", row=-1), "row is -1; wanted a whole number from 0"),
        (lambda: InputChoice(0, label="s"), "n_candidates of 's' is 0; wanted"),
        (lambda: InputChoice(2, 3, "s"), "n_chosen of 's' is 3; wanted a whole number from 1 to 2"),
        (lambda: InputChoice(2, 0, "s"), "n_chosen of 's' is 0; wanted"),
    ],
)
def test_a_point_that_makes_no_sense_is_told(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# Labels


class Block(nn.Module):
    def __init__(self, label):
        super().__init__()
        self.layer = LayerChoice([Scale(1.0), Scale(10.0)], label)

    def forward(self, x, arch):
        return self.layer(x, arch)


class OwnModel(nn.Module):
    """A nested model of a user's own: two blocks share a decision, one has its own, inputs are chosen."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block("shared"), Block("shared"), Block("own")])
        self.inputs = nn.ModuleDict(
            {"late": InputChoice(3, None, "skip", 1), "early": InputChoice(3, 1, "skip", 0)}
        )

    def forward(self, x, arch):
        states = [x]
        for block in self.blocks:
            states.append(block(states[-1], arch))
        early = self.inputs["early"](states[:3], arch)
        return early + self.inputs["late"](states[1:], arch)


def test_points_that_share_a_label_share_their_weights():
    model, x = OwnModel(), torch.ones(1)
    assert choices(model) == {"shared": (1, 2), "own": (1, 2), "skip": (2, 3)}
    arch = {
        "shared": torch.tensor([[0.0, 1.0]]),
        "own": torch.tensor([[1.0, 0.0]]),
        "skip": torch.tensor([[1.0, 0, 0], [0, 0, 1]]),
    }
    assert model(x, arch) == 1 + 100  # the first state, and the last: 10 x 10 x 1
    assert model(x, arch | {"shared": torch.tensor([[0.5, 0.5]])}) == 1 + 5.5**2


def test_points_come_by_row_whatever_their_place_in_the_model():
    model = OwnModel()
    assert points(model)["skip"] == [model.inputs["early"], model.inputs["late"]]
    assert points(model)["shared"] == [model.blocks[0].layer]
    assert choices(nn.Linear(1, 1)) == {}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            tied(LayerChoice({"a": Scale(1.0)}, "c"), LayerChoice({"b": Scale(1.0)}, "c")),
            "'c' and row 0 must agree",
        ),
        (tied(LayerChoice([Scale(1.0)] * 2, "c"), InputChoice(2, None, "c")), "'c' and row 0 must agree"),
        (tied(InputChoice(3, 1, "s"), InputChoice(3, 2, "s")), "'s' and row 0 must agree"),
        (tied(LayerChoice([Scale(1.0)], "c", 0, 2), LayerChoice([Scale(1.0)], "c", 0, 3)), "must agree"),
        (
            tied(LayerChoice([Scale(1.0)] * 2, "c"), LayerChoice([Scale(1.0)] * 3, "c", 1)),
            "one number of candidates",
        ),
        (
            tied(LayerChoice([Scale(1.0)], "c"), LayerChoice([Scale(1.0)], "c", 2)),
            r"without a gap, got \[0, 2\]",
        ),
        (tied(LayerChoice([Scale(1.0)], "c", 1)), r"without a gap, got \[1\]"),
    ],
)
def test_points_that_do_not_agree_are_told(model, message):
    with pytest.raises(ArchError, match=message):
        choices(model)


# random_arch


def supernet(n_nodes=4, ops=("none", "skip_connect", "max_pool_3x3")):
    return CNN(8, 3, 2, 10, 3, n_nodes, ops)


def test_a_random_cell_has_two_different_inputs_a_node_each_with_one_real_operation():
    model, generator = supernet(), torch.Generator().manual_seed(0)
    for _ in range(100):
        arch = random_arch(model, generator)
        check_arch(choices(model), arch)
        for matrix in arch.values():
            assert set(matrix.unique().tolist()) == {0.0, 1.0}
            assert matrix[:, 0].sum() == 0, "none was drawn"
            assert matrix.sum(dim=1).max() == 1, "an edge has two operations"
            inputs = Counter(node for (_, node), row in zip(edges(4), matrix, strict=True) if row.any())
            assert inputs == {2: 2, 3: 2, 4: 2, 5: 2}


def chi_square(counts: Counter, n_outcomes: int, draws: int) -> float:
    expected = draws / n_outcomes
    return (
        sum((counts[outcome] - expected) ** 2 / expected for outcome in counts)
        + (n_outcomes - len(counts)) * expected
    )


def test_random_cells_are_uniform():
    # Two nodes, two real operations: node 2 has 2 x 2 outcomes, node 3 has 3 pairs of inputs x 2 x 2: 48.
    model, generator = supernet(n_nodes=2), torch.Generator().manual_seed(1)
    drawn = [random_arch(model, generator) for _ in range(2400)]
    for label in ("normal", "reduce"):
        counts = Counter(tuple(arch[label].flatten().tolist()) for arch in drawn)
        assert len(counts) == 48
        assert chi_square(counts, 48, 2400) < 84.0  # 47 degrees of freedom: exceeded once in 1,300 seeds
    # Independent of each other: node 2's four outcomes in the one cell against those in the other.
    node_2 = [[tuple(arch[label][:2].flatten().tolist()) for label in ("normal", "reduce")] for arch in drawn]
    pairs = Counter(map(tuple, node_2))
    assert chi_square(pairs, 16, 2400) < 37.7  # 15 degrees of freedom: once in 1,000 seeds


def test_random_decisions_of_ones_own_model_are_uniform():
    model, generator = OwnModel(), torch.Generator().manual_seed(2)
    drawn = [random_arch(model, generator) for _ in range(2400)]
    assert all(set(arch) == {"shared", "own", "skip"} for arch in drawn)
    layers = Counter(tuple(arch["own"][0].tolist()) for arch in drawn)
    assert set(layers) == {(1.0, 0.0), (0.0, 1.0)} and chi_square(layers, 2, 2400) < 10.8
    one = Counter(tuple(arch["skip"][0].tolist()) for arch in drawn)
    assert len(one) == 3 and chi_square(one, 3, 2400) < 13.8
    any_number = Counter(tuple(arch["skip"][1].tolist()) for arch in drawn)
    assert len(any_number) == 8 and chi_square(any_number, 8, 2400) < 24.3


def test_several_inputs_are_chosen_together():
    generator = torch.Generator().manual_seed(3)
    pairs = Counter()
    for _ in range(1200):
        matrix = random_arch(tied(InputChoice(4, 2, "s")), generator)["s"]
        assert matrix.sum() == 2
        pairs[tuple(matrix[0].tolist())] += 1
    assert len(pairs) == 6 and chi_square(pairs, 6, 1200) < 20.5


def test_the_generator_alone_decides():
    model = supernet()

    def draw(seed):
        return random_arch(model, torch.Generator().manual_seed(seed))

    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(draw(5).values(), draw(5).values(), strict=True))
    assert not torch.equal(draw(5)["normal"], draw(6)["normal"])
    assert torch.equal(before, torch.random.get_rng_state())
