"""Genotypes: the DARTS rule against a slow version of it, matrices and back, JSON that is never trusted."""

import json
import os
import random

import pytest
import torch

from nasedu import ArchError, Genotype, GenotypeError, Network
from nasedu.space.genotype import PUBLISHED, edges
from nasedu.space.ops import PRIMITIVES

REAL = [name for name in PRIMITIVES if name != "none"]
CELL = ((("sep_conv_3x3", 0), ("skip_connect", 1)), (("max_pool_3x3", 0), ("dil_conv_5x5", 2)))
TWO_NODES = Genotype(CELL, CELL)


def random_cell(rng: random.Random, n_nodes: int, double: bool = False) -> list:
    """A cell with two random inputs a node, which may be one and the same."""
    cell = []
    for node in range(2, n_nodes + 2):
        inputs = [rng.randrange(node) for _ in range(2)] if double else rng.sample(range(node), 2)
        cell.append([(rng.choice(REAL), source) for source in inputs])
    return cell


def random_matrices(seed: int, n_nodes: int = 4, values: int | None = None) -> dict[str, torch.Tensor]:
    """Softmaxed noise; or weights from a few `values` only, so that ties are common."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(edges(n_nodes)), len(PRIMITIVES))
    if values is not None:
        draw = lambda: torch.randint(values, shape, generator=generator) / values  # noqa: E731
    else:
        draw = lambda: (2 * torch.randn(shape, generator=generator)).softmax(dim=-1)  # noqa: E731
    return {"normal": draw(), "reduce": draw()}


# The DARTS rule


def slowly_derived(matrix: torch.Tensor) -> list[set[tuple[str, int]]]:
    """The rule of section 2.4 in its own words, edge by edge: for each node its (operation, input) pairs."""
    cell, row, node = [], 0, 2
    while row < len(matrix):
        candidates = []
        for source in range(node):
            best_op, best_weight = "", -1.0
            for op, weight in zip(PRIMITIVES, matrix[row], strict=True):
                if op != "none" and weight > best_weight:
                    best_op, best_weight = op, float(weight)
            candidates.append((best_op, source, best_weight))
            row += 1
        kept = set()
        for _ in range(2):
            strongest = candidates[0]
            for candidate in candidates:
                if candidate[2] > strongest[2]:
                    strongest = candidate
            candidates.remove(strongest)
            kept.add(strongest[:2])
        cell.append(kept)
        node += 1
    return cell


def as_sets(cell) -> list[set]:
    return [set(node) for node in cell]


@pytest.mark.parametrize("values", [None, 6])
def test_derive_is_the_darts_rule(values):
    for seed in range(300):
        matrices = random_matrices(seed, n_nodes=1 + seed % 5, values=values)
        genotype = Genotype.derive(matrices)
        assert as_sets(genotype.normal) == slowly_derived(matrices["normal"])
        assert as_sets(genotype.reduce) == slowly_derived(matrices["reduce"])


def test_of_equals_the_first_wins():
    flat = {label: torch.full((14, 8), 1 / 8) for label in ("normal", "reduce")}
    first = tuple((("max_pool_3x3", 0), ("max_pool_3x3", 1)) for _ in range(4))
    assert Genotype.derive(flat) == Genotype(first, first)


def test_a_strong_none_does_not_count():
    matrix = torch.full((5, 8), 0.01)
    matrix[:, 0] = 0.93
    matrix[2, 0], matrix[2, 5] = 0.0, 0.02  # edge 0 -> 3, weak but for none
    matrix[4, 7] = 0.015
    genotype = Genotype.derive({"normal": matrix, "reduce": matrix})
    assert genotype.normal[1] == (("sep_conv_5x5", 0), ("dil_conv_5x5", 2))


def test_derive_depends_on_the_order_of_the_weights_only():
    for seed in range(20):
        matrices = random_matrices(seed)
        squared = {label: matrix**2 for label, matrix in matrices.items()}
        assert Genotype.derive(squared) == Genotype.derive(matrices)
        halved = {label: matrix / 2 for label, matrix in matrices.items()}
        assert Genotype.derive(halved) == Genotype.derive(matrices)
        shuffled = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
        ops = [PRIMITIVES[i] for i in shuffled]
        permuted = {label: matrix[:, shuffled] for label, matrix in matrices.items()}
        assert Genotype.derive(permuted, ops) == Genotype.derive(matrices)


def test_derive_reads_tensors_with_gradient_and_leaves_them_alone():
    matrices = {label: m.requires_grad_() for label, m in random_matrices(0).items()}
    before = {label: m.detach().clone() for label, m in matrices.items()}
    Genotype.derive(matrices)
    assert all(torch.equal(matrices[label], before[label]) for label in before)


# Matrices and back


@pytest.mark.parametrize("double", [False, True])
def test_from_arch_is_the_inverse_of_arch(double):
    rng, twos = random.Random(0), 0
    for trial in range(200):
        n_nodes = 1 + trial % 5
        genotype = Genotype(random_cell(rng, n_nodes, double), random_cell(rng, n_nodes, double))
        arch = genotype.arch()
        assert {label: tuple(matrix.shape) for label, matrix in arch.items()} == {
            "normal": (len(edges(n_nodes)), 8),
            "reduce": (len(edges(n_nodes)), 8),
        }
        for matrix in arch.values():
            assert matrix.sum() == 2 * n_nodes and set(matrix.unique().tolist()) <= {0.0, 1.0, 2.0}
            twos += int((matrix == 2).sum())
        assert Genotype.from_arch(arch) == genotype
        assert Genotype.from_arch({label: m.long() for label, m in arch.items()}) == genotype
        if not double:
            assert Genotype.derive(arch) == genotype
    assert (twos > 0) == double


def test_the_ones_stand_where_the_pairs_say():
    arch = TWO_NODES.arch()
    rows = [(edges(2)[row], PRIMITIVES[column]) for row, column in arch["normal"].nonzero().tolist()]
    assert rows == [
        ((0, 2), "sep_conv_3x3"),
        ((1, 2), "skip_connect"),
        ((0, 3), "max_pool_3x3"),
        ((2, 3), "dil_conv_5x5"),
    ]
    double = Genotype([[("max_pool_3x3", 1)] * 2], [[("max_pool_3x3", 1), ("sep_conv_3x3", 1)]]).arch()
    assert double["normal"][1, 1] == 2 and double["normal"].sum() == 2
    assert double["reduce"][1].tolist() == [0, 1, 0, 0, 1, 0, 0, 0]


def test_edges_come_node_by_node():
    assert edges(2) == [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    assert [len(edges(n)) for n in range(1, 6)] == [2, 5, 9, 14, 20]
    assert edges() == edges(4)


def matrices_with(value: float, row: int = 0, column: int = 4) -> dict[str, torch.Tensor]:
    arch = TWO_NODES.arch()
    arch["reduce"][row, column] = value
    return arch


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (matrices_with(0.5), r"'reduce' is not discrete: edge \(0, 2\) has 'sep_conv_3x3' 0.5 times"),
        (matrices_with(3.0), "3.0 times"),
        (matrices_with(-1.0), "-1.0 times"),
        (matrices_with(2.0), "node 2 of 'reduce' must have two .* got 3"),
        (matrices_with(0.0), "node 2 of 'reduce' must have two .* got 1"),
        (matrices_with(1.0, row=4, column=0), "node 3 of 'reduce' must have two .* got 3"),
        (matrices_with(float("nan")), "'reduce' holds numbers that are not finite"),
        ({"normal": torch.zeros(5, 8)}, r"'normal' and 'reduce', got \['normal'\]"),
        ({"normal": torch.zeros(5, 8), "reduce": [[0.0] * 8] * 5}, "'reduce' must be a tensor, got a list"),
        ({"normal": torch.zeros(6, 8)}, r"'normal' has shape \(6, 8\); wanted are 2, 5, 9, 14"),
        ({"normal": torch.zeros(0, 8)}, r"shape \(0, 8\)"),
        ({"normal": torch.zeros(5, 7)}, r"shape \(5, 7\).* 8 columns"),
        ({"normal": torch.zeros(())}, r"shape \(\)"),
        ({"normal": torch.zeros(2, 5, 8)}, r"shape \(2, 5, 8\)"),
    ],
)
def test_a_matrix_that_is_no_discrete_cell_is_told(arch, message):
    with pytest.raises(ArchError, match=message):
        Genotype.from_arch(arch)


def test_derive_checks_its_matrices_too():
    for bad in ({"normal": torch.zeros(6, 8)}, matrices_with(float("inf")), {}):
        with pytest.raises(ArchError):
            Genotype.derive(bad)
    with pytest.raises(GenotypeError, match="normal cell has 1 nodes and the reduction cell 2"):
        Genotype.derive({"normal": torch.rand(2, 8), "reduce": torch.rand(5, 8)})


def test_none_is_no_operation_of_a_genotype():
    arch = TWO_NODES.arch()
    arch["normal"][0, 4], arch["normal"][0, 0] = 0, 1
    with pytest.raises(GenotypeError, match="node 2 of the normal cell .*other than 'none', got 'none'"):
        Genotype.from_arch(arch)


def test_an_operation_that_nobody_has_is_told_where_it_matters():
    unknown = Genotype.from_json(TWO_NODES.to_json().replace("max_pool_3x3", "conv_9x9"))
    with pytest.raises(GenotypeError, match="normal cell has the operation 'conv_9x9', the matrix only"):
        unknown.arch()
    with pytest.raises(
        GenotypeError, match=r"unknown operations \['conv_9x9'\]; known are .*nasedu.register"
    ):
        Network(unknown, 4, 10, 3)


# The value itself


def test_the_order_of_a_nodes_pairs_means_nothing_and_the_source_is_not_compared():
    swapped = Genotype([list(reversed(node)) for node in CELL], CELL, source="elsewhere")
    assert swapped == TWO_NODES and hash(swapped) == hash(TWO_NODES)
    assert swapped.to_json() != TWO_NODES.to_json()
    assert Genotype.from_json(swapped.to_json()).source == "elsewhere"
    assert TWO_NODES.n_nodes == 2
    other = Genotype(CELL, (CELL[0], (("max_pool_3x3", 1), ("dil_conv_5x5", 2))))
    assert other != TWO_NODES
    with pytest.raises(AttributeError):
        TWO_NODES.normal = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ((), "the normal cell must be a list of nodes"),
        ("cell", "the normal cell must be a list of nodes, got 'cell'"),
        ([[("sep_conv_3x3", 0)]], r"node 2 of the normal cell must be two \(operation, input\) pairs"),
        ([[("sep_conv_3x3", 0)] * 3], "node 2 of the normal cell must be two"),
        ([["ab", "cd"]], "must be two .* got 'ab'"),
        ([[("sep_conv_3x3", 0, 1), ("sep_conv_3x3", 0)]], "must be two"),
        ([[("sep_conv_3x3", 2), ("sep_conv_3x3", 0)]], r"from a state 0 \.\.\. 1, got 2"),
        ([[("sep_conv_3x3", -1), ("sep_conv_3x3", 0)]], r"got -1"),
        ([[("sep_conv_3x3", True), ("sep_conv_3x3", 0)]], r"got True"),
        ([[("sep_conv_3x3", 1.0), ("sep_conv_3x3", 0)]], r"got 1.0"),
        ([[(0, "sep_conv_3x3"), ("sep_conv_3x3", 0)]], "name of an operation .* got 0"),
        ([[("", 1), ("sep_conv_3x3", 0)]], "name of an operation .* got ''"),
        (
            [CELL[0], [("sep_conv_3x3", 3), ("sep_conv_3x3", 0)]],
            r"node 3 of the normal cell .* 0 \.\.\. 2, got 3",
        ),
    ],
)
def test_a_cell_that_is_none_is_told_with_its_place(cell, message):
    with pytest.raises(GenotypeError, match=message):
        Genotype(cell, cell)
    assert issubclass(GenotypeError, ValueError)


# JSON


def test_json_and_back():
    rng = random.Random(1)
    for _ in range(50):
        genotype = Genotype(
            random_cell(rng, 4, True), random_cell(rng, 4, True), source='a "source", naïve\n'
        )
        text = genotype.to_json()
        again = Genotype.from_json(text)
        assert again == genotype and again.source == genotype.source and again.to_json() == text
        assert Genotype.from_json(json.dumps(json.loads(text), indent=2)) == genotype


class Anywhere:
    """Walks a JSON value and changes it at one random place."""

    def __init__(self, rng: random.Random):
        self.rng = rng

    def place(self, value: object) -> tuple[object, object] | None:
        """A random (container, key) somewhere in the value."""
        found = []
        pending = [value]
        while pending:
            here = pending.pop()
            keys = (
                list(here) if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else []
            )
            for key in keys:
                found.append((here, key))
                pending.append(here[key])
        return self.rng.choice(found) if found else None

    def garbage(self, depth: int = 0) -> object:
        """Any JSON value: numbers of every size, not-a-number, text that looks like code, nested things."""
        scalars = [
            None,
            True,
            False,
            0,
            1,
            -1,
            7,
            1.0,
            0.5,
            10**30,
            -(10**400),
            1e308,
            float("nan"),
            float("inf"),
        ]
        texts = ["", "none", "\0", "\ud800", "é" * 99, "__import__('os').system('touch /tmp/evaluated')", "1"]
        kind = self.rng.randrange(6 if depth < 4 else 2)
        if kind == 0:
            return self.rng.choice(scalars)
        if kind == 1:
            return self.rng.choice(texts)
        if kind < 4:
            return [self.garbage(depth + 1) for _ in range(self.rng.randrange(4))]
        return {str(self.garbage(9)): self.garbage(depth + 1) for _ in range(self.rng.randrange(3))}

    def changed(self, text: str) -> str:
        """The JSON text with one thing wrong in it."""
        data, rng = json.loads(text), self.rng
        kind = rng.choice(
            ["cut", "byte", "replace", "replace", "drop", "add", "swap", "nest", "top", "bool", "far"]
        )
        container, key = self.place(data)
        if kind == "cut":
            return text[: rng.randrange(len(text))]
        if kind == "byte":
            at = rng.randrange(len(text))
            return text[:at] + rng.choice('{}[],:"\\x00\x009') + text[at + 1 :]
        if kind == "nest":
            deep = rng.choice([5, 500, 100_000])
            return text.replace('"normal": [', '"normal": ' + "[" * deep + "]" * (deep - 1) + ", [", 1)
        if kind == "top":
            return json.dumps(self.garbage())
        if kind == "replace":
            container[key] = self.garbage()
        elif kind == "drop":
            del container[key]
        elif kind == "add" and isinstance(container, list):
            container.insert(key, self.garbage())
        elif kind == "add":
            container[str(self.garbage(9)) + "?"] = self.garbage()
        elif kind == "swap":  # an operation where its input should be, a cell where its format should be
            other, at = self.place(data)
            container[key], other[at] = other[at], container[key]
            try:
                return json.dumps(data)
            except ValueError:  # a list that holds itself now
                return json.dumps(self.garbage())
        else:
            cell = data[rng.choice(["normal", "reduce"])]
            node = rng.randrange(len(cell))
            pair = cell[node][rng.randrange(2)]
            pair[1] = bool(pair[1]) if kind == "bool" else node + 2 + rng.randrange(10 ** rng.randrange(12))
        return json.dumps(data)


def is_a_genotype(text: str) -> bool:
    """An independent judge: is the text a right genotype after all (a swap of two equal things, say)?"""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(data, dict) or not {"format", "version", "normal", "reduce"} <= set(data):
        return False
    if set(data) - {"format", "version", "normal", "reduce", "source"} or not isinstance(
        data.get("source", ""), str
    ):
        return False
    if data["format"] != "nasedu-genotype" or type(data["version"]) is not int or data["version"] != 1:
        return False
    for cell in (data["normal"], data["reduce"]):
        if not isinstance(cell, list) or not cell or len(cell) != len(data["normal"]):
            return False
        for node, pairs in enumerate(cell, start=2):
            if not isinstance(pairs, list) or [type(pair) for pair in pairs] != [list, list]:
                return False
            for pair in pairs:
                if [type(part) for part in pair] != [str, int] or pair[0] in ("", "none"):
                    return False
                if not 0 <= pair[1] < node:
                    return False
    return True


def test_a_thousand_malformed_texts_each_give_a_genotype_error(tmp_path):
    rng, wrong, right = random.Random(2), 0, 0
    while wrong < 1000:
        n_nodes = rng.choice([1, 2, 4])
        genotype = Genotype(random_cell(rng, n_nodes), random_cell(rng, n_nodes), rng.choice(["", "here"]))
        text = Anywhere(rng).changed(genotype.to_json())
        if is_a_genotype(text):
            right += 1
            Genotype.from_json(text)
            continue
        wrong += 1
        with pytest.raises(GenotypeError) as error:
            Genotype.from_json(text)
        assert len(str(error.value)) < 500, "an error must be short enough to read"
    assert right < 300, "the generator must mostly make malformed texts"
    assert not os.path.exists("/tmp/evaluated")


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"{", None, 3, ["normal"], "", "null", "NaN", "[]", "{}", "[" * 10**5]
)
def test_what_is_no_text_or_no_object_is_told(text):
    with pytest.raises(GenotypeError, match="a genotype"):
        Genotype.from_json(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, 'says "format": "nasedu-genotype", "version": 1; this says .other., 1'),
        ({"version": 2}, "this says 'nasedu-genotype', 2"),
        ({"version": True}, "'nasedu-genotype', True"),
        ({"version": "1"}, "'nasedu-genotype', '1'"),
        ({"version": 1.0}, "'nasedu-genotype', 1.0"),
        ({"concat": [2, 3]}, r"unknown keys \['concat'\]"),
        ({"source": 3}, "source is a text, got 3"),
    ],
)
def test_a_wrong_field_is_named(change, message):
    data = json.loads(TWO_NODES.to_json())
    with pytest.raises(GenotypeError, match=message):
        Genotype.from_dict(data | change)
    del data["reduce"]
    with pytest.raises(GenotypeError, match=r"lacks \['reduce'\]"):
        Genotype.from_dict(data)


# Files


def test_save_and_load(tmp_path):
    path = tmp_path / "cell.json"
    TWO_NODES.save(path)
    assert Genotype.load(path) == TWO_NODES
    assert Genotype.load(str(path)) == TWO_NODES
    assert os.listdir(tmp_path) == ["cell.json"], "nothing else is left behind"


def test_a_save_that_fails_leaves_the_old_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "cell.json"
    TWO_NODES.save(path)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    for place, name in (
        ("nasedu.space.genotype.Path", "write_text"),
        ("nasedu.space.genotype.os", "replace"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"{place}.{name}", full)
            with pytest.raises(OSError, match="no space left"):
                PUBLISHED["DARTS_V1"].save(path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["cell.json"]
    PUBLISHED["DARTS_V1"].save(path)
    assert Genotype.load(path) == PUBLISHED["DARTS_V1"]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b'{"format": "nasedu-genotype", "version": 1, "norm']
)
def test_a_broken_file_is_told_by_name(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(GenotypeError, match="broken.json"):
        Genotype.load(path)
    with pytest.raises(FileNotFoundError):
        Genotype.load(tmp_path / "missing.json")


# Published cells


def test_the_published_cells_say_whence_they_are():
    assert set(PUBLISHED) == {"DARTS_V1", "DARTS_V2", "PC_DARTS"}
    for genotype in PUBLISHED.values():
        assert genotype.n_nodes == 4 and Genotype.from_arch(genotype.arch()) == genotype
    assert "1806.09055" in PUBLISHED["DARTS_V1"].source and "first order" in PUBLISHED["DARTS_V1"].source
    assert "1806.09055" in PUBLISHED["DARTS_V2"].source and "second order" in PUBLISHED["DARTS_V2"].source
    assert "1907.05737" in PUBLISHED["PC_DARTS"].source


def test_the_published_cells_are_those_of_the_papers():
    # DARTS, figures 4 and 5 (second order); the first-order cell and PC-DARTS as released with their code.
    assert PUBLISHED["DARTS_V2"].normal == (
        (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
        (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
        (("skip_connect", 0), ("sep_conv_3x3", 1)),
        (("skip_connect", 0), ("dil_conv_3x3", 2)),
    )
    assert PUBLISHED["DARTS_V2"].reduce == (
        (("max_pool_3x3", 0), ("max_pool_3x3", 1)),
        (("max_pool_3x3", 1), ("skip_connect", 2)),
        (("max_pool_3x3", 0), ("skip_connect", 2)),
        (("max_pool_3x3", 1), ("skip_connect", 2)),
    )
    assert PUBLISHED["DARTS_V1"].normal[3] == (("sep_conv_3x3", 0), ("skip_connect", 2))
    assert PUBLISHED["DARTS_V1"].reduce[3] == (("avg_pool_3x3", 0), ("skip_connect", 2))
    assert PUBLISHED["PC_DARTS"].reduce[1] == (("sep_conv_5x5", 1), ("sep_conv_5x5", 2))
