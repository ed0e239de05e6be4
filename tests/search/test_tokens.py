"""Not images only: sequences of tokens, a model of its own with every kind of decision, by all methods."""

import json

import pytest
import torch
from killing import assert_same, stopped_and_resumed
from models import Own
from torch import nn
from torch.utils.data import Subset, TensorDataset

from nasedu import (
    ArchError,
    DartsTrainer,
    Genotype,
    GenotypeError,
    InputChoice,
    LayerChoice,
    StandaloneTrainer,
    accuracy,
    batches,
    describe,
    discretise,
    draw_cell,
    read,
)
from nasedu.data import DatasetError, InMemory, in_memory
from nasedu.search import METHODS, build
from nasedu.space import Zero, edges, random_arch

WORDS, LENGTH, CHANNELS = 6, 10, 8


def sentences(n: int, seed: int = 0) -> TensorDataset:
    """n sequences (LENGTH,) of tokens 0..WORDS-1, and whether a 0 is followed at once by a 1."""
    tokens = torch.randint(WORDS, (n, LENGTH), generator=torch.Generator().manual_seed(seed))
    return TensorDataset(tokens, ((tokens[:, :-1] == 0) & (tokens[:, 1:] == 1)).any(1).long())


class Neighbours(nn.Module):
    """A convolution along the sequence, (B, T, C) -> (B, T, C)."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv1d(CHANNELS, CHANNELS, width, padding=width // 2)

    def forward(self, x):
        return self.conv(x.transpose(1, 2)).transpose(1, 2).relu()


class Attention(nn.Module):
    """Every token looks at all others, (B, T, C) -> (B, T, C)."""

    def __init__(self):
        super().__init__()
        self.heads = nn.MultiheadAttention(CHANNELS, 2, batch_first=True)

    def forward(self, x):
        return self.heads(x, x, x, need_weights=False)[0]


def candidates() -> dict[str, nn.Module]:
    return {"none": Zero(), "skip": nn.Identity(), "conv": Neighbours(3), "attention": Attention()}


class Reader(nn.Module):
    """Tokens (B, T) -> logits (B, 2): two rows that stand alone, a cell "block" of two nodes, two inputs."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, CHANNELS)
        self.rows = nn.ModuleList(LayerChoice(candidates(), "layer", row) for row in range(2))
        self.block = nn.ModuleList(
            LayerChoice(candidates(), "block", row, node) for row, (_, node) in enumerate(edges(2))
        )
        self.one, self.any = InputChoice(3, 1, "one"), InputChoice(2, None, "any")
        self.head = nn.Sequential(nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, 2))

    def forward(self, x, arch):
        states = [self.embedding(x)]
        for row in self.rows:
            states.append(states[-1] + row(states[-1], arch))
        inside, rows = states[-2:], iter(self.block)
        for _ in range(2):
            inside.append(sum(next(rows)(state, arch) for state in inside))
        chosen = self.one(states, arch) + self.any(inside[2:], arch)
        return self.head((inside[-1] + chosen).amax(1))


SHAPES = {"layer": (2, 4), "block": (5, 4), "one": (1, 3), "any": (1, 2)}


def search(name: str = "DARTS 1st", checkpoint=None, data=None, **more):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Reader()
    return build(
        name,
        {"arc_learning_rate": 0.02, "ctrl_steps": 2, "ctrl_steps_aggregate": 3, "n_candidates": 3},
        model=model,
        loss=nn.CrossEntropyLoss(),
        metrics=accuracy,
        optimizer=torch.optim.SGD(model.parameters(), 0.1, momentum=0.9),
        **{"num_epochs": 2, **more},
        dataset=sentences(64) if data is None else data,
        batch_size=8,
        progress=False,
        checkpoint=checkpoint,
        device="cpu",
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_model_of_tokens_is_searched_by_every_method(name):
    trainer = search(name)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.fit()
    assert any(not torch.equal(v, before[k]) for k, v in trainer.model.state_dict().items())
    x, y = trainer.train_batch(0, 0)
    assert x.dtype == torch.int64 and x.shape == (8, LENGTH) and trainer.augment is None
    assert {k: tuple(v.shape) for k, v in trainer.arch().items()} == SHAPES
    best = trainer.best()
    assert all(set(m.flatten().tolist()) <= {0.0, 1.0, 2.0} for m in best.values())
    export = json.loads(json.dumps(trainer.export()))
    assert_same(read(trainer.model, export), best)
    assert isinstance(export["layer"][0], str) and len(export["block"]) == 2 and len(export["block"][1]) == 2
    genotype = trainer.genotype()
    assert list(genotype.cells) == ["block"] and Genotype.from_json(genotype.to_json()) == genotype
    ops = {"block": trainer.model.block[0].names}
    assert torch.equal(genotype.arch(ops)["block"], best["block"])
    assert 0 <= trainer.score(best)["acc1"] <= 1
    assert draw_cell(genotype, "block").words


def test_a_search_learns_to_read():
    trainer = search(data=sentences(256), num_epochs=8)
    trainer.fit()
    losses = trainer.history.column("train_loss")
    assert losses[-1] < 0.6 * losses[0]


def test_none_on_every_path_is_zeros_of_the_sequence():
    model, x = Reader(), torch.randint(WORDS, (2, LENGTH))
    arch = {label: torch.zeros(shape) for label, shape in SHAPES.items()}
    arch["layer"][:, 0] = arch["block"][:, 0] = 1.0
    arch["one"][0, 0] = 1.0
    expected = model.head((model.embedding(x)).amax(1))  # nothing but the embedding is left
    torch.testing.assert_close(model(x, arch), expected)
    assert Zero()(torch.randn(2, 3)).eq(0).all() and Zero()(torch.randn(2, 3)).shape == (2, 3)


def test_a_search_of_tokens_resumes(tmp_path):
    def make(checkpoint=None):
        return search(checkpoint=checkpoint, checkpoint_every=1)

    assert_same(*stopped_and_resumed(make, tmp_path, [3]))


def test_what_was_found_is_trained_alone():
    train, valid = in_memory(sentences(64)), in_memory(sentences(32, seed=1))
    model = Reader()
    trainer = StandaloneTrainer(
        model,
        torch.optim.SGD(model.parameters(), 0.1),
        1,
        train,
        valid,
        batch_size=8,
        arch=random_arch(model),
        progress=False,
    )
    assert "valid_acc1" in trainer.fit().epochs[0]


# Any tensors with labels are a dataset.


def test_a_dataset_of_tensors_is_read_as_it_is():
    data = in_memory(Subset(sentences(20), [3, 1, 4]))
    tokens, labels = sentences(20).tensors
    assert type(data) is InMemory and torch.equal(data.inputs, tokens[[3, 1, 4]]) and len(data) == 3
    assert torch.equal(data.labels, labels[[3, 1, 4]]) and data[1][0].tolist() == tokens[1].tolist()
    x, y = next(batches(data, 2))
    assert torch.equal(x, data.inputs[:2]) and torch.equal(y, data.labels[:2]) and x.dtype == torch.int64
    features = InMemory(torch.randn(6, 4, 5, 3), torch.randn(6, 2))  # four dimensions, and no image
    (x, y), first = next(batches(features, 6)), features.split(2)[0]
    assert torch.equal(x, features.inputs) and torch.equal(y, features.labels) and len(first) == 2
    assert in_memory(features) is features


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: InMemory(torch.zeros(3, 2), torch.zeros(2)),
            r"\(3, 2\) and labels \(2,\); wanted \(N, \.\.\.\)",
        ),
        (
            lambda: in_memory([(torch.zeros(2), 0), (torch.zeros(3), 1)]),
            r"of shape \(3,\), input 0 .*\(2,\); wanted",
        ),
        (lambda: in_memory([]), "wanted an ImageDataset"),
        (lambda: in_memory([("text", 0)]), "wanted a PIL image or a tensor"),
        (lambda: search(data=sentences(12)), "12 items give parts of 6 and 6"),
    ],
)
def test_what_is_no_dataset_is_told(make, message):
    with pytest.raises(DatasetError, match=message):
        make()


def test_augmentation_is_by_the_data_and_can_be_off_or_ones_own():
    def drop(x, generator):
        """Replace one token in ten by 0."""
        return torch.where(torch.rand(x.shape, generator=generator) < 0.1, 0, x)

    own = search(augment=drop)
    a, b = own.train_batch(0, 0)[0], own.train_batch(0, 0)[0]
    plain = search().train_batch(0, 0)[0]
    assert torch.equal(a, b) and not torch.equal(a, plain)
    assert torch.equal(search(augment=False).train_batch(0, 0)[0], plain)


# Cells of other labels


def cells_only() -> nn.Module:
    """Two cells, "encoder" of two nodes and "decoder" of one, with other operations."""

    class Cells(nn.Module):
        def __init__(self):
            super().__init__()
            few = {"none": Zero(), "skip": nn.Identity()}
            self.encoder = nn.ModuleList(
                LayerChoice(candidates(), "encoder", row, node) for row, (_, node) in enumerate(edges(2))
            )
            self.decoder = nn.ModuleList(
                LayerChoice(few, "decoder", row, node) for row, (_, node) in enumerate(edges(1))
            )

    return Cells()


def test_cells_of_any_label_are_derived_and_written_down(tmp_path):
    model = cells_only()
    weights = {"encoder": torch.rand(5, 4), "decoder": torch.tensor([[0.9, 0.1], [0.2, 0.3]])}
    weights["encoder"][2:, :] = torch.tensor(
        [[9.0, 0.1, 0.2, 0.3], [0.0, 0.9, 0.1, 0.0], [0.0, 0.1, 0.1, 0.5]]
    )
    decided = discretise(model, weights)
    written = describe(model, decided)
    assert written["format"] == "nasedu-genotype" and set(written["cells"]) == {"encoder", "decoder"}
    assert written["cells"]["encoder"][1] == [["skip", 1], ["attention", 2]]  # "none" does not count
    assert written["cells"]["decoder"] == [[["skip", 0], ["skip", 1]]]
    assert_same(read(model, json.loads(json.dumps(written))), decided)
    genotype = Genotype.from_dict(written)
    genotype.save(tmp_path / "cells.json")
    assert Genotype.load(tmp_path / "cells.json") == genotype and genotype.normal == ()
    ops = {"encoder": tuple(candidates()), "decoder": ("none", "skip")}
    assert Genotype.derive(weights, ops) == genotype == Genotype.from_arch(decided, ops)
    assert hash(genotype) == hash(Genotype.from_dict(written))
    assert genotype != Genotype(others={**genotype.others, "decoder": [[("skip", 1), ("skip", 1)]]})


def test_the_two_cells_of_darts_stay_as_they_were_and_may_have_company():
    cell = [[("a", 0), ("b", 1)]]
    both = Genotype(cell, cell)
    assert both.to_dict() == {"format": "nasedu-genotype", "version": 1} | dict.fromkeys(
        ("normal", "reduce"), [[["a", 0], ["b", 1]]]
    )
    three = Genotype.of({"normal": cell, "reduce": cell, "head": cell})
    assert list(three.cells) == ["normal", "reduce", "head"] and "cells" in three.to_dict()
    assert Genotype.from_json(three.to_json()) == three != both
    assert Genotype.of({"normal": cell}).cells == {"normal": three.normal}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Genotype(), GenotypeError, "normal cell must be a list of nodes"),
        (
            lambda: Genotype(others={"x": [[("a", 2), ("b", 0)]]}),
            GenotypeError,
            r"node 2 of the x cell.*0 \.\.\. 1",
        ),
        (
            lambda: Genotype.from_dict({"format": "nasedu-genotype", "version": 1, "cells": {}}),
            GenotypeError,
            "label -> cell, got {}",
        ),
        (
            lambda: Genotype.from_dict(
                {"format": "nasedu-genotype", "version": 1, "cells": {}, "normal": []}
            ),
            GenotypeError,
            r"unknown keys \['normal'\]",
        ),
        (lambda: read(cells_only(), {"encoder": []}), ArchError, "not an export of this model"),
        (
            lambda: read(cells_only(), Genotype(others={"z": [[("a", 0), ("a", 1)]]}).to_dict()),
            ArchError,
            "'z'",
        ),
        (
            lambda: read(Reader(), {"layer": ["skip"] * 2, "block": [], "one": [[0]], "any": [[]]}),
            ArchError,
            "not an export of this model: the block cell",
        ),
    ],
)
def test_what_is_no_genotype_of_a_model_is_told(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_cell_with_rows_of_its_own_order_is_told():
    broken = nn.ModuleList(LayerChoice([nn.Identity()], "c", row, node) for row, node in enumerate([2, 3, 2]))
    with pytest.raises(ArchError, match=r"'c' must have the rows of genotype.edges.*\[2, 3, 2\]"):
        discretise(broken, {"c": torch.ones(3, 1)})


def test_a_model_without_cells_has_no_genotype():
    trainer = search()
    trainer.model = Own()
    with pytest.raises(ArchError, match="has no cells, only .*see best"):
        DartsTrainer.genotype(trainer)
