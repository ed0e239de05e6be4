"""Genotypes and architectures, spoiled: told, or taken as an independent reading takes them."""

import functools
import json
import random
from types import MappingProxyType

import numpy as np
import pytest
import torch
from odd import spoiled, text, value
from rule import attack, judge
from torch import nn

from nasedu import (
    CNN,
    PRIMITIVES,
    PUBLISHED,
    Genotype,
    InputChoice,
    LayerChoice,
    Network,
    check_arch,
    choices,
    discretise,
    random_arch,
)  # fmt: skip
from nasedu.space import Sampled, SmallCNN

# ---- genotypes


def cells_of(tree):
    return tree["cells"] if "cells" in tree else {label: tree[label] for label in ("normal", "reduce")}


def sound(genotype, content):
    """What was read is what is there, it can be written and read again, and has a matrix."""
    tree = json.loads(content)
    for label, cell in cells_of(tree).items():
        assert [sorted(map(tuple, node)) for node in cell] == [sorted(node) for node in genotype.cells[label]]
    assert Genotype.from_json(genotype.to_json()) == genotype
    names = sorted({op for cell in genotype.cells.values() for node in cell for op, _ in node})
    arch = genotype.arch(names)
    for label, cell in genotype.cells.items():
        assert arch[label].sum() == 2 * len(cell)
    assert Genotype.from_arch(arch, names) == genotype
    if set(genotype.cells) == {"normal", "reduce"} and set(names) <= set(PRIMITIVES) and genotype.n_nodes < 5:
        with torch.device("meta"):
            Network(genotype, 2, 3, 3)


def test_genotypes(tmp_path):
    bases = [genotype.to_dict() for genotype in PUBLISHED.values()]
    bases += [Genotype.of({"a": cell, "b": cell[:2]}).to_dict() for cell in (PUBLISHED["DARTS_V1"].normal,)]
    bases += [Genotype(*(cell[:1] for cell in (g.normal, g.reduce))).to_dict() for g in PUBLISHED.values()]

    def one(seed):
        dice = random.Random(seed)
        content = text(spoiled(dice.choice(bases), dice, 2), dice)
        path = tmp_path / "g.json"
        path.write_bytes(content)
        judge("genotype", lambda: Genotype.load(path), lambda g: sound(g, content.decode()), content[:400])

    attack("genotype", one, 0.7)


def slowly_derived(matrix, ops):
    """The DARTS rule, spelled out."""
    cell, row, node = [], 0, 2
    while row < len(matrix):
        edges = []
        for source in range(node):
            weights = {i: float(w) for i, w in enumerate(matrix[row + source]) if ops[i] != "none"}
            best = max(weights, key=lambda i: (weights[i], -i))
            edges.append((-weights[best], source, ops[best]))
        cell.append(tuple(sorted(((op, source) for _, source, op in sorted(edges, key=lambda e: e[:2])[:2]),
                                 key=lambda pair: (pair[1], pair[0]))))  # fmt: skip
        row, node = row + node, node + 1
    return tuple(cell)


def test_genotypes_derived():
    def one(seed):
        dice = random.Random(seed)
        torch.manual_seed(seed)
        rows = dice.choice([2, 5, 9, 14, 3, 0, 1])
        ops = dice.choice(
            [PRIMITIVES, PRIMITIVES[:3], ("a", "b"), ("none", "a"), ("none",), ("a", "a"), (), "ab"]
        )
        arch = {label: torch.rand(rows, len(ops)).softmax(-1) for label in ("normal", "reduce")}
        if dice.random() < 0.5:
            arch = spoil(arch, dice)
        elif dice.random() < 0.3:
            ops = value(dice)
        judge(
            "genotype",
            lambda: Genotype.derive(arch, ops),
            lambda g: all(
                slowly_derived(arch[label].tolist(), ops) == cell for label, cell in g.cells.items()
            ),
            (arch, type(ops)),
        )

    attack("genotype", one, 0.3)


# ---- architectures


def readable(model, x, arch):
    """CNN, as a plain sum over all operations."""
    s0 = s1 = model.stem(x)
    for cell in model.cells:
        matrix, row = arch[cell.label], 0
        states = [cell.preprocess[0](s0), cell.preprocess[1](s1)]
        for _ in range(cell.n_nodes):
            total = 0.0
            for state in states:
                layers = cell.edges[row].layers.values()
                total = total + sum(
                    float(w) * layer(state) for w, layer in zip(matrix[row], layers, strict=True)
                )
                row += 1
            states.append(total)
        s0, s1 = s1, torch.cat(states[2:], 1)
    return model.classifier(s1.mean((2, 3)))


def small(model, x, arch):
    """SmallCNN, as a plain sum."""

    def edge(e, x):
        layers = e.layers.values()
        return sum(float(w) * layer(x) for w, layer in zip(arch["cell"][e.row], layers, strict=True))

    x = model.stem(x)
    for i, cell in enumerate(model.cells):
        if i:
            x = model.reductions[i - 1](x)
        a, b, c = cell.edges
        x = edge(b, x) + edge(c, edge(a, x))
    return model.classifier(model.last(x).mean((2, 3)))


class Own(nn.Module):
    """Layers and inputs to choose."""

    def __init__(self):
        super().__init__()
        self.layer = LayerChoice([nn.Linear(3, 3), nn.Identity(), nn.ReLU()], "layer")
        self.inputs = InputChoice(2, None, "inputs")

    def forward(self, x, arch):
        x = x.flatten(1)[:, :3]
        return self.inputs([x, self.layer(x, arch)], arch)


def own(model, x, arch):
    x = x.flatten(1)[:, :3]
    layers = model.layer.layers.values()
    y = sum(float(w) * layer(x) for w, layer in zip(arch["layer"][0], layers, strict=True))
    return float(arch["inputs"][0, 0]) * x + float(arch["inputs"][0, 1]) * y


def spoil(arch, dice):
    """An architecture with one or two things changed."""
    arch = dict(arch)
    nan, inf = float("nan"), float("inf")
    changes = [
        lambda m: m.T, lambda m: m[:-1], lambda m: m[:, 1:], lambda m: m.flatten(), lambda m: m[None],
        lambda m: m.double(), lambda m: m.half(), lambda m: m.long(), lambda m: m.bool(),
        lambda m: m.cfloat(), lambda m: m.to_sparse(), lambda m: m.to("meta"), lambda m: m.numpy(),
        lambda m: m.tolist(), lambda m: m * nan, lambda m: m * inf, lambda m: m.clone().index_fill(0,
        torch.tensor([0]), nan),
        lambda m: m * -3, lambda m: m * 1e3, lambda m: m * 0, lambda m: m.requires_grad_(),
        lambda m: m.T.clone().T, lambda m: m[:1].expand_as(m), lambda m: nn.Parameter(m),
        lambda m: m.to(torch.bfloat16), lambda m: m.to_mkldnn(),
        lambda m: torch.quantize_per_tensor(m, 0.1, 0, torch.quint8),
        lambda m: np.matrix(m.numpy()), lambda m: m.to(torch.float8_e4m3fn), lambda m: value(dice),
    ]  # fmt: skip
    for _ in range(dice.randint(1, 2)):
        what, labels = dice.random(), list(arch)
        try:
            if what < 0.75:
                label = dice.choice(labels)
                arch[label] = dice.choice(changes)(arch[label])
            elif what < 0.82:
                del arch[dice.choice(labels)]
            elif what < 0.9:
                arch[dice.choice([1, None, "x", ("a",), 0.5, True])] = torch.ones(1, 2)
            elif what < 0.95:
                return dice.choice([Sampled, MappingProxyType, dict])(arch)
            else:
                return dice.choice([list(arch), None, "normal", 5, list(arch.items()), torch.ones(2, 2)])
        except (RuntimeError, AttributeError, TypeError, IndexError, NotImplementedError):
            pass  # the change itself cannot be made
    return arch


@functools.cache
def models():
    torch.manual_seed(0)
    cnn = functools.partial(CNN, 8, 3, 2, 4, 3, n_nodes=1, ops=PRIMITIVES[:5])
    made = [(cnn(fast=False), readable), (cnn(), readable), (SmallCNN(2, 4), small), (Own(), own)]
    return [(model.eval(), plainly) for model, plainly in made]


@pytest.mark.filterwarnings("ignore")
def test_architectures():
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def one(seed):
        dice = random.Random(seed)
        torch.manual_seed(seed)
        model, plainly = dice.choice(models())
        if dice.random() < 0.4:
            arch = random_arch(model)
        else:
            arch = {label: torch.randn(shape).softmax(1) for label, shape in choices(model).items()}
        arch = spoil(arch, dice)

        def same(logits):
            wanted = plainly(model, x, {k: arch[k].detach().double() for k in choices(model)})
            scale = wanted.abs().max().item()
            if scale < 1e15:  # of numbers beyond all measure only the order counts, and that is rounding
                torch.testing.assert_close(logits.to(wanted.dtype), wanted, rtol=0.02, atol=1e-3 * scale)

        def both():
            kind = "checked" if dice.random() < 0.3 else "run"
            if kind == "run":
                return model(x, arch)
            check_arch(choices(model), arch)
            discretise(model, arch)
            return model(x, arch)

        judge("arch", both, same, arch)

    attack("arch", one)
