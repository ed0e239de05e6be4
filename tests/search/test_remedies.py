"""The remedies for DARTS's failures, as arguments of DartsTrainer: each against something exact."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from killing import assert_same, stopped_and_resumed
from torch import nn
from torch.func import functional_call, hessian

from nasedu import CNN, DartsTrainer, Genotype, LayerChoice, accuracy, discretise, get_dataset
from nasedu.data import seeded
from nasedu.search import (
    EDGES,
    EarlyStop,
    EdgeShares,
    Eigenvalues,
    Gumbel,
    edge_shares,
    gumbel,
    gumbel_one_hot,
)
from nasedu.search.checkpoint import CheckpointError
from nasedu.space.cells import PartialEdge
from nasedu.space.choice import Sampled, points
from nasedu.space.derive import describe
from nasedu.space.ops import Zero
from nasedu.space.small import SmallCNN

NODES = {"cell": [1, 2, 2]}


def small() -> SmallCNN:
    return SmallCNN(4)


def cells() -> CNN:
    return CNN(8, 3, 2, 10, 3, n_nodes=2)


def search(checkpoint: Path | None = None, make=small, **options) -> DartsTrainer:
    """A search on 64 images of 8x8 pixels: two halves of 4 batches of 8, 3 epochs."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=3e-4)
    data, _ = get_dataset("shapes10", subset=(64, 10), input_size=8)
    options = {"num_epochs": 3, "arc_learning_rate": 0.05, "progress": False, **options}
    return DartsTrainer(
        model=model,
        loss=nn.CrossEntropyLoss(),
        metrics=accuracy,
        optimizer=optimizer,
        dataset=data,
        batch_size=8,
        device="cpu",
        checkpoint=checkpoint,
        **options,
    )


def state(trainer: DartsTrainer) -> dict:
    """All that a search leaves behind, the weights in their order: a wrapped edge has other names."""
    return {
        "epochs": trainer.history.epochs,
        "extra": trainer.extra_state(),
        "weights": [weight.detach() for weight in trainer.model.parameters()],
        "buffers": list(trainer.model.buffers()),
        "optimizer": trainer.optimizer.state_dict(),
    }


# Partial channels


def wrapped(make):
    """The model of `make` with each edge in a PartialEdge of k=1, which a model itself leaves out."""
    model = make()
    for cell in model.cells:
        for i, edge in enumerate(cell.edges):
            stride = next(op.stride for op in edge.layers.values() if isinstance(op, Zero))
            cell.edges[i] = PartialEdge(edge, 1, stride)
    return model


@pytest.mark.parametrize("make", [small, cells])
def test_partial_channels_of_all_channels_are_plain_darts_bit_for_bit(make):
    plain, partly = search(make=make, num_epochs=2), search(make=partial(wrapped, make), num_epochs=2)
    assert sum(isinstance(m, PartialEdge) for m in partly.model.modules()) >= 9
    plain.fit(), partly.fit()
    assert_same(state(plain), state(partly))
    assert any(torch.tensor(plain.history.epochs[-1]["arch"][k]).std() > 0.01 for k in plain.alpha)


def test_partial_1_is_the_plain_model():
    assert_same(SmallCNN(4, partial=1).state_dict().keys(), small().state_dict().keys())
    assert not any(isinstance(m, PartialEdge) for m in cells().modules())


def test_partial_channels_and_edge_normalisation_search_together():
    trainer = search(make=partial(SmallCNN, 4, partial=4), relaxation=EdgeShares(NODES))
    trainer.fit()
    assert len(trainer.export()["cell"]) == 3


# Edge normalisation


@pytest.mark.parametrize(("make", "asked"), [(cells, None), (small, NODES)], ids=["CNN", "SmallCNN"])
def test_rows_are_softmaxes_times_shares_and_both_logits_learn(make, asked):
    trainer = search(make=make, relaxation=EdgeShares(asked), num_epochs=1)
    before = {label: logits.detach().clone() for label, logits in trainer.alpha.items()}
    labels = set(trainer.relaxation.shapes)
    assert set(before) == labels | {label + EDGES for label in labels}
    trainer.alpha_step(trainer.train_batch(0, 0), trainer.valid_batch(0, 0))
    assert all(logits.grad.ne(0).any() for logits in trainer.alpha.values())
    trainer.fit()
    alpha = {label: logits.detach() for label, logits in trainer.alpha.items()}
    nodes = {"normal": [2, 2, 3, 3, 3], "reduce": [2, 2, 3, 3, 3], **NODES}
    for label, matrix in trainer.arch().items():
        for i, node in enumerate(nodes[label]):
            mine = [e for e, n in enumerate(nodes[label]) if n == node]
            edges = alpha[label + EDGES]
            share = edges[i].exp() / edges[mine].exp().sum()
            torch.testing.assert_close(matrix[i], alpha[label][i].softmax(0) * share)
        assert matrix.sum().item() == pytest.approx(len(set(nodes[label])))  # 1 for each node
        assert trainer.history.epochs[-1]["arch"][label] == matrix.tolist()


def test_the_operations_start_from_the_same_logits_with_edge_logits_beside_them():
    plain, normalised = search(), search(relaxation=EdgeShares(NODES))
    assert torch.equal(plain.alpha["cell"], normalised.alpha["cell"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: search(relaxation=EdgeShares()), r"node of each row of 'cell', got \[None, None, None\]"),
        (lambda: Gumbel(10.0, 0.0), r"temperatures above 0, got 10\.0 and 0\.0"),
        (lambda: Eigenvalues(0), "images and ev_freq count from 1 up, got 0 and 1"),
        (lambda: EarlyStop(ev_freq=0), "from 1 up, got 128 and 0"),
        (lambda: search(make=lambda: nn.Linear(2, 2)), "nothing to search"),
    ],
)
def test_arguments_that_make_no_sense_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# GDAS


def count_operations(trainer: DartsTrainer) -> list[Counter]:
    """A counter for each forward pass: (edge, operation) -> how often it was run, "none" by its weight."""
    passes: list[Counter] = []
    trainer.model.register_forward_pre_hook(lambda *_: passes.append(Counter()))
    for name, point in trainer.model.named_modules():
        if isinstance(point, LayerChoice):
            for op, layer in point.layers.items():
                key = (name, op)
                layer.register_forward_hook(lambda *_, key=key: passes[-1].update([key]))
    return passes


@pytest.mark.parametrize("make", [small, cells])
def test_a_forward_pass_runs_one_operation_on_each_edge(make):
    trainer = search(make=make, relaxation=Gumbel(10.0, 0.1))
    passes = count_operations(trainer)
    given: list[dict] = []
    trainer.model.register_forward_pre_hook(lambda _, args: given.append(args[1]))
    edges = {n: p for n, p in trainer.model.named_modules() if isinstance(p, LayerChoice)}
    for step in range(4):
        trainer.train_step(1, step)
    assert len(passes) == 8  # alpha's and w's, in turn
    drawn = set()
    for number, (ran, arch) in enumerate(zip(passes, given, strict=True)):
        assert isinstance(arch, Sampled) and arch["cell" if make is small else "normal"].requires_grad == (
            number % 2 == 0
        )
        for name, point in edges.items():
            weights = arch[point.label][point.row]
            chosen = point.names[int(weights.argmax())]
            assert sorted(weights.tolist()) == [0.0] * (len(weights) - 1) + [1.0]
            of_edge = {op: n for (edge, op), n in ran.items() if edge == name and op != "none"}
            assert of_edge == ({} if chosen == "none" else {chosen: 1}), (number, name)
            drawn.add(chosen)
    assert "none" in drawn and len(drawn) >= 4
    assert any(not torch.equal(a[k], b[k]) for a, b in zip(given[::2], given[1::2], strict=True) for k in a)


def test_the_gradient_reaches_all_logits_of_a_row_whose_operation_ran():
    trainer = search(relaxation=Gumbel(1.0, 1.0))
    given = []
    trainer.model.register_forward_pre_hook(lambda _, args: given.append(args[1]))
    noise = {s: gumbel((3, 5), seeded(0, 0, s, 4)) for s in range(50)}
    step = next(s for s in noise if (noise[s].argmax(1) > 0).all())  # a real operation on each edge
    trainer.alpha_step(trainer.train_batch(0, 0), trainer.valid_batch(0, 0), trainer.drawing(0, step, 4))
    real = given[0]["cell"].argmax(1) != 0
    gradient = trainer.alpha["cell"].grad
    assert real.all() and gradient.ne(0).all()
    # Logits that all rise together change nothing.
    torch.testing.assert_close(gradient.sum(1), torch.zeros(3), atol=1e-5, rtol=0)


def test_a_search_that_draws_nothing_but_none_goes_on():
    trainer = search(relaxation=Gumbel(1.0, 1.0))
    noise = torch.tensor([[50.0, 0, 0, 0, 0]] * 3)
    trainer.alpha_step(
        trainer.train_batch(0, 0),
        trainer.valid_batch(0, 0),
        lambda alpha: Sampled(cell=gumbel_one_hot(alpha["cell"], noise, 1.0)),
    )
    assert trainer.alpha["cell"].grad.eq(0).all()


def test_the_temperature_is_a_line_from_the_first_epoch_to_the_last(monkeypatch):
    seen = []
    trainer = search(relaxation=Gumbel(10.0, 0.1), num_epochs=4)
    draw = trainer.relaxation.draw
    monkeypatch.setattr(
        trainer.relaxation,
        "draw",
        lambda a, progress, g: (seen.append(trainer.relaxation.temperature(progress)), draw(a, progress, g))[
            1
        ],
    )
    trainer.fit()
    del seen[0]  # of the trial before the first step
    assert seen[::8] == pytest.approx([10.0, 6.7, 3.4, 0.1]) and seen[::8] == seen[7::8]  # 2 draws x 4 steps
    once = search(relaxation=Gumbel(5.0, 1.0), num_epochs=1)
    assert once.relaxation.temperature(0.0) == 5.0
    assert torch.isfinite(once.drawing(0, 0, 4)(once.alpha)["cell"]).all()


def test_a_seed_draws_the_same_again_and_another_seed_others():
    one, two, other = (search(relaxation=Gumbel(10.0, 0.1), seed=seed, num_epochs=1) for seed in (1, 1, 2))
    for trainer in (one, two, other):
        trainer.fit()
    assert_same(state(one), state(two))
    assert not torch.equal(one.alpha["cell"], other.alpha["cell"])
    # The matrices of the history are the softmaxes, not a draw.
    torch.testing.assert_close(one.arch()["cell"], one.alpha["cell"].detach().softmax(1))


def test_a_sampled_arch_that_is_not_differentiated_is_an_arch_like_others():
    model, x = small(), torch.randn(2, 3, 8, 8)
    arch = {"cell": torch.eye(5)[[3, 0, 2]]}
    assert torch.equal(model(x, Sampled(arch)), model(x, arch))
    with torch.no_grad():
        wanted = {"cell": arch["cell"].clone().requires_grad_()}
        assert torch.equal(model(x, Sampled(wanted)), model(x, arch))
    point = points(model)["cell"][0]
    assert point.weights(Sampled(arch)) == [0.0, 0.0, 0.0, 1.0, 0.0]


# Eigenvalues


def test_the_eigenvalue_of_the_history_is_the_dense_hessians():
    trainer = search(callbacks=[Eigenvalues(20)], relaxation=EdgeShares(NODES), num_epochs=1)
    trainer.fit()
    images = trainer.valid_half
    x = images.normalise(images.images[:20].float() / 255).double()
    y = images.labels[:20]
    model = small().double()
    model.load_state_dict(trainer.model.state_dict())
    for module in model.modules():  # statistics of the batch, and no averages, which torch.func can't write
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
    weights = dict(model.named_parameters())

    def loss(v):
        shares = edge_shares(v[15:], NODES["cell"])
        arch = {"cell": v[:15].reshape(3, 5).softmax(1) * shares[:, None]}
        return nn.functional.cross_entropy(functional_call(model, weights, (x, arch)), y)

    v = torch.cat([trainer.alpha[k].detach().flatten() for k in ("cell", "cell" + EDGES)]).double()
    wanted = torch.linalg.eigvalsh(hessian(loss)(v))[-1].item()
    assert wanted > 1e-4
    assert trainer.history.epochs[-1]["eigenvalue"] == pytest.approx(wanted, rel=1e-3)  # float32


def test_measuring_changes_nothing():
    plain, measured = search(), search(callbacks=[Eigenvalues(16)])
    plain.fit(), measured.fit()
    for line in measured.history.epochs:
        assert isinstance(line.pop("eigenvalue"), float)
    assert_same(state(plain), state(measured))
    assert plain.model.training == measured.model.training
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in measured.model.parameters())


# Early stopping: eigenvalues 1 up to epoch 15, then 9. Epoch 17 stops, and goes back to epoch 11.


class Forced(EarlyStop):
    """It measures what the test says."""

    def measure(self, trainer) -> float:
        return 1.0 if trainer.epoch <= 15 else 9.0


def forced(checkpoint: Path | None = None, make=small, **options) -> DartsTrainer:
    return search(checkpoint, make, callbacks=[Forced(8, 1)], num_epochs=20, **options)


def test_a_search_stops_and_goes_back():
    trainer = forced()
    assert trainer.stopped_at() is None
    trainer.fit()
    assert trainer.stopped_at() == 11 and trainer.epoch == len(trainer.history.epochs) == 17
    assert trainer.finished()
    line = trainer.history.epochs[10]
    assert line["epoch"] == 11
    assert {k: v.tolist() for k, v in trainer.arch().items()} == line["arch"]
    now = trainer.alpha["cell"].softmax(1).detach()
    assert not torch.equal(trainer.arch()["cell"], now)
    then = {k: torch.tensor(v) for k, v in line["arch"].items()}
    assert trainer.export() == describe(trainer.model, discretise(trainer.model, then))
    before = json.dumps(trainer.history.epochs)
    alpha = {k: v.detach().clone() for k, v in trainer.alpha.items()}
    trainer.fit()
    assert json.dumps(trainer.history.epochs) == before
    assert all(torch.equal(alpha[k], trainer.alpha[k]) for k in alpha)
    # An unstopped search has gone the same way as far.
    unstopped = search(num_epochs=20)
    unstopped.fit()
    assert unstopped.stopped_at() is None and len(unstopped.history.epochs) == 20
    assert_same(unstopped.history.epochs[10]["arch"], line["arch"])


def test_the_released_rule_measures_every_second_epoch():
    trainer = search(callbacks=[EarlyStop(8)], num_epochs=4)
    trainer.fit()
    assert ["eigenvalue" in line for line in trainer.history.epochs] == [True, False, True, False]


def test_the_genotype_of_a_stopped_search_is_that_of_the_epoch_gone_back_to():
    trainer = forced(make=cells)
    # The lines are written by hand, to have a cell at epoch 4 that differs from the others.
    for epoch in range(1, 11):
        hot = torch.full((5, 8), 0.1)
        hot[:, 4 if epoch == 4 else 3] = 0.3
        trainer.history.epochs.append(
            {"epoch": epoch, "arch": {k: hot.tolist() for k in ("normal", "reduce")}}
        )
    trainer.stop(4)
    genotype = trainer.genotype()
    assert {op for cell in (genotype.normal, genotype.reduce) for node in cell for op, _ in node} == {
        "sep_conv_3x3"
    }
    assert Genotype.from_dict(trainer.export()) == genotype


def test_a_stopped_search_that_was_resumed_is_the_same_and_stays_stopped(tmp_path):
    undisturbed, killed = stopped_and_resumed(forced, tmp_path, [1, 20])
    assert_same(undisturbed, killed)
    assert len(killed["epochs"]) == 17
    resumed = forced(tmp_path / "stopped.pt")
    resumed.fit()
    assert resumed.stopped_at() == 11 and len(resumed.history.epochs) == 17
    assert resumed.history.epochs == killed["epochs"]


# Resume


@pytest.mark.parametrize(
    "options",
    [
        {"relaxation": Gumbel(10.0, 0.1)},
        {"relaxation": EdgeShares(NODES)},
        {"relaxation": EdgeShares(NODES, Gumbel(2.0, 0.5))},
    ],
    ids=["gumbel", "edge shares", "both"],
)
def test_a_search_resumed_in_the_middle_of_an_epoch_is_bit_for_bit_the_same(tmp_path, options):
    assert_same(*stopped_and_resumed(partial(search, checkpoint_every=1, **options), tmp_path, [6]))


REMEDIES = [
    {"relaxation": Gumbel(10.0, 0.1)},
    {"relaxation": Gumbel(10.0, 1.0)},
    {"relaxation": EdgeShares(NODES)},
    {"callbacks": [Eigenvalues(8)]},
    {"callbacks": [EarlyStop(8)]},
    {"callbacks": [EarlyStop(8, factor=1.5)]},
]


def test_a_checkpoint_of_other_remedies_is_refused(tmp_path):
    path = tmp_path / "search.pt"
    for saved in ({}, *REMEDIES):
        search(**saved).save(path)
        for wanted in ({}, *REMEDIES):
            trainer = search(**wanted)
            if wanted == saved:
                trainer.load(path)
            else:
                with pytest.raises(CheckpointError, match="relaxation|callbacks"):
                    trainer.load(path)
