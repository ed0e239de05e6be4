"""The protocols of the studies, run in a size of seconds; and the files that came of them."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from nasedu.search.base import gap_callback
from nasedu.search.evaluation import evaluate
from nasedu.space import small
from nasedu.space.genotype import PUBLISHED, Genotype
from nasedu.space.network import Network, n_parameters
from nasedu.study import protocols, record, truth
from nasedu.study.protocols import CELL_SEARCH, EQUAL_COST, SMALL_SPACE, STUDIES, cells_of, retrain
from nasedu.study.recipe import Recipe
from nasedu.study.record import Record, RecordError

METHODS = tuple(SMALL_SPACE.methods)
LESS = {
    "DARTS 1st": {"hessian_images": 16, "epochs": 2},
    "DARTS 2nd": {"epochs": 1},
    "PC-DARTS": {"epochs": 2},
    "random": {"n_candidates": 3, "epochs": 2},
}


def tiny(recipe, **changed):
    """The same methods, in a size of seconds."""
    methods = {name: {**own, "epochs": 1, **LESS.get(name, {})} for name, own in recipe.methods.items()}
    if recipe.layers:
        methods["DARTS 1st"].pop("hessian_images", None)
    methods["ENAS"].pop("child_epochs", None)
    methods["ENAS"].pop("reward_images", None)
    sizes = {"pixels": 8, "images": 64, "pool": 0, "channels": 4, "batch_size": 16, "crop_padding": 1}
    return dataclasses.replace(recipe, **{**sizes, "methods": methods, **changed})


TINY = tiny(SMALL_SPACE)


@pytest.fixture(scope="module")
def datasets():
    return truth.SMALL.datasets("shapes10")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_searches_the_small_space(method, datasets):
    run = protocols.small_space(TINY, datasets)({"method": method, "seed": 1})
    assert run["names"] in small.architectures()
    assert len(run["history"]) == TINY.epochs_of(method)
    assert ("eigenvalue" in run["history"][0]) == (method == "DARTS 1st")
    assert ("scores" in run) == (method in ("DARTS 1st", "random"))
    if method not in ("ENAS", "random"):
        last = run["history"][-1]
        assert run["names"] == small.names_of({"cell": torch.tensor(last["arch"]["cell"])})
        assert ({"supernet_acc1", "derived_acc1"} <= set(last)) == (method == "DARTS 1st")


def test_the_same_key_gives_the_same_run(datasets):
    runs = [protocols.small_space(TINY, datasets)({"method": "GDAS", "seed": seed}) for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]


def test_pc_darts_has_partial_edges_and_shares_of_its_nodes(datasets):
    run = protocols.small_space(TINY, datasets)({"method": "PC-DARTS", "seed": 0})
    rows = torch.tensor(run["history"][-1]["arch"]["cell"]).sum(dim=1)
    # node 1 has one edge, node 2 has two, which share
    torch.testing.assert_close(rows[0], torch.tensor(1.0))
    torch.testing.assert_close(rows[1] + rows[2], torch.tensor(1.0))
    whole = protocols.small_space(dataclasses.replace(TINY, model={"partial": 1}), datasets)
    assert run != whole({"method": "PC-DARTS", "seed": 0})


@pytest.mark.parametrize(
    "kind, recipe", [("small_space", TINY), ("many_seeds", TINY), ("cell_search", tiny(CELL_SEARCH))]
)
def test_the_seed_of_the_key_is_the_seed_of_the_search(datasets, monkeypatch, kind, recipe):
    asked = []
    real = Recipe.search

    def search(self, method, train, seed, **options):
        asked.append((method, seed))
        return real(self, method, train, seed, **options)

    monkeypatch.setattr(Recipe, "search", search)
    getattr(protocols, kind)(recipe, datasets)({"method": "random", "seed": 7})
    assert asked == [("random", 7)]


def test_many_seeds_find_what_the_small_space_study_finds(datasets):
    for method in ("GDAS", "ENAS"):
        key = {"method": method, "seed": 2}
        one, other = (f(TINY, datasets)(key) for f in (protocols.small_space, protocols.many_seeds))
        assert one["names"] == other["names"] and "history" not in other


def test_the_gap_is_of_the_epochs_matrix_and_of_what_is_cut_out_of_it():
    given = []
    matrix = {"cell": [[0.1, 0.5, 0.2, 0.1, 0.1], [0.6, 0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 0.6]]}
    trainer = SimpleNamespace(
        model=small.SmallCNN(4),
        history=SimpleNamespace(epochs=[{"arch": {}}, {"arch": matrix}]),
        score=lambda arch, valid: given.append((arch["cell"], valid)) or {"acc1": len(given) / 10},
    )
    gap_callback("images")(trainer)
    assert [valid for _, valid in given] == ["images", "images"]
    torch.testing.assert_close(given[0][0], torch.tensor(matrix["cell"]))
    torch.testing.assert_close(
        given[1][0], small.matrix(("skip_connect", "none", "avg_pool_3x3"))["cell"], check_dtype=False
    )
    assert trainer.history.epochs[-1] == {"arch": matrix, "supernet_acc1": 0.1, "derived_acc1": 0.2}


def trained(datasets):
    trainer = TINY.search("random", datasets[0].take(range(64)), 0)
    trainer.fit()
    return trainer


def test_shared_scores_are_those_of_each_child_by_hand(datasets):
    trainer, valid = trained(datasets), datasets[1]
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    modes = [module.training for module in trainer.model.modules()]
    norms = [m for m in trainer.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    scores = protocols.shared_scores(trainer, valid, batches=2)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert [module.training for module in trainer.model.modules()] == modes
    assert {norm.momentum for norm in norms} == {0.1}
    assert {mode: len(values) for mode, values in scores.items()} == dict.fromkeys(scores, 125)
    names = ("conv_3x3", "skip_connect", "conv_1x1")
    at, arch = small.architectures().index(names), small.matrix(names)
    trainer.model.eval()
    running = evaluate(lambda x: trainer.model(x, arch), valid)["acc1"]
    assert scores["running"][at] == pytest.approx(running, abs=1e-5)
    # The averages made anew: a momentum of 1/k at pass k gives the plain mean.
    for norm in (m for m in trainer.model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.reset_running_stats()
    trainer.model.train()
    for k, number in enumerate(range(2), start=1):
        for norm in (m for m in trainer.model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.momentum = 1 / k
        with torch.no_grad():
            trainer.model(trainer.train_batch(0, number)[0], arch)
    trainer.model.eval()
    anew = evaluate(lambda x: trainer.model(x, arch), valid)["acc1"]
    assert scores["reestimated"][at] == pytest.approx(anew, abs=1e-5)
    assert scores["batch"][at] == pytest.approx(trainer.score(arch, valid)["acc1"], abs=0.05)


def test_at_equal_cost_every_cell_is_trained_and_blind_ones_too(datasets):
    recipe = tiny(EQUAL_COST, images=48)
    judge = Recipe(pixels=8, images=64, channels=4, layers=3, epochs=2, batch_size=16, crop_padding=1)
    run = protocols.equal_cost(recipe, datasets, judge)
    for method in ("DARTS 1st", "blind"):
        row = run({"method": method, "seed": 3})
        assert len(row["curve"]) == 2 and 0 <= row["test_accuracy"] <= 1
        assert (row["search_seconds"] > 0.1) == (method != "blind")
    cell = protocols.blind(3)
    assert Genotype(**record.plain(row["genotype"])) == cell != protocols.blind(4)
    assert row["parameters"] == n_parameters(Network(cell, 4, 10, 3))


def test_the_runs_of_one_seed_come_before_those_of_the_next():
    keys = protocols.keys(EQUAL_COST, 2, "blind")
    assert [key["seed"] for key in keys] == [0] * 5 + [1] * 5
    assert {key["method"] for key in keys[:5]} == {*EQUAL_COST.methods, "blind"}


def test_cells_are_searched_and_retrained(datasets):
    run = protocols.cell_search(tiny(CELL_SEARCH), datasets)
    key = {"method": "ENAS", "seed": 0}
    found = Record("cell_search", CELL_SEARCH, "", "", rows=({"key": key, **run(key)},))
    cells = cells_of(found, 2)
    assert list(cells) == ["ENAS 0", "blind 0", "blind 1", "DARTS_V2"]
    assert cells["blind 0"] != cells["blind 1"] and cells["DARTS_V2"] == PUBLISHED["DARTS_V2"]
    assert all(isinstance(cell, Genotype) for cell in cells.values())
    recipe = Recipe(pixels=8, images=64, channels=4, layers=4, epochs=2, batch_size=16, crop_padding=1)
    one = retrain(recipe, datasets, cells)({"cell": "ENAS 0", "seed": 5})
    assert one["parameters"] == n_parameters(Network(cells["ENAS 0"], 4, 10, 4))
    assert one == retrain(recipe, datasets, cells)({"cell": "ENAS 0", "seed": 5})
    assert 0 <= one["test_accuracy"] <= 1 and len(one["history"]) == 2


def test_make_refuses_an_unknown_study(tmp_path):
    with pytest.raises(RecordError, match="no study 'magic'; there are small_space"):
        protocols.make("magic", "shapes10", tmp_path / "x.json")


# ---- the files that came with the package


def shipped(name):
    return record.load(name)


def test_the_shipped_small_space_is_whole_and_of_the_protocol():
    runs = shipped("small_space")
    assert runs.recipe == SMALL_SPACE
    keys = [(run["key"]["method"], run["key"]["seed"]) for run in runs]
    assert sorted(keys) == sorted((method, seed) for method in METHODS for seed in range(5))
    for run in runs:
        assert tuple(run["names"]) in small.architectures()
        assert len(run["history"]) == SMALL_SPACE.epochs_of(run["key"]["method"])


def test_the_shipped_cells_are_cells_and_were_retrained():
    found, judged = shipped("cell_search"), shipped("retrain")
    assert found.recipe == CELL_SEARCH
    assert judged.recipe == protocols.RETRAIN
    cells = cells_of(found)
    assert len(cells) == 4 * 2 + 3 + 1
    there = {(run["key"]["cell"], run["key"]["seed"]) for run in judged}
    assert there >= {(cell, seed) for cell in cells for seed in range(2)}
    for run in judged:
        network = Network(cells[run["key"]["cell"]], protocols.RETRAIN.channels, 10, protocols.RETRAIN.layers)
        assert run["parameters"] == n_parameters(network)


def test_both_were_made_on_the_images_of_the_truth_table():
    table = truth.load()
    assert {shipped(name).data for name in ("small_space", "cell_search", "retrain")} == {
        table.provenance["data"]
    }


def test_the_many_seeds_cost_the_same_for_every_method():
    found = shipped("many_seeds")
    assert found.recipe == STUDIES["many_seeds"].recipe
    images = {shipped(name).data.split(", ", 1)[1] for name in ("many_seeds", "small_space")}
    assert len(images) == 1, "the same images by their checksum, whatever their folder is called"
    whole = min(len(found.select(method=method)) for method in found.recipe.methods)
    assert whole >= 21, "what notebook 11's power calculation asks for first-order DARTS against random"
    costs = [
        sum(row["seconds"] for row in found.select(method=method)[:whole]) / whole
        for method in found.recipe.methods
    ]
    middle = sum(costs) / len(costs)
    assert all(abs(cost / middle - 1) < 0.1 for cost in costs), costs
    assert all(tuple(row["names"]) in small.architectures() for row in found)


def test_a_study_may_run_some_of_its_methods_only(datasets, monkeypatch, tmp_path):
    monkeypatch.setitem(STUDIES, "many_seeds", STUDIES["many_seeds"]._replace(recipe=TINY))
    monkeypatch.setattr(Recipe, "datasets", lambda recipe, name: datasets)
    made = protocols.make(
        "many_seeds", "any", tmp_path / "m.json", 2, progress=False, methods=["GDAS", "random"]
    )
    assert [row["key"]["method"] for row in made] == ["GDAS", "random"] * 2
    with pytest.raises(RecordError, match="no method 'SNAS'; wanted DARTS 1st"):
        protocols.make("many_seeds", "any", tmp_path / "m.json", 2, progress=False, methods=["SNAS"])


def test_the_long_search_keeps_alpha_and_the_gap_of_each_epoch(datasets, monkeypatch):
    monkeypatch.setattr(protocols, "RETRAIN", dataclasses.replace(protocols.RETRAIN, images=64, epochs=1))
    recipe = tiny(protocols.EQUAL_COST, methods={"DARTS 1st": {"epochs": 2}})
    run = protocols.long_search(recipe, datasets)({"method": "DARTS 1st", "seed": 0})
    assert [line["epoch"] for line in run["history"]] == [1, 2]
    assert all({"arch", "supernet_acc1", "derived_acc1"} <= set(line) for line in run["history"])
    assert Genotype(**run["genotype"]) == Genotype.derive(
        {label: torch.tensor(matrix) for label, matrix in run["history"][-1]["arch"].items()}
    )
    assert 0 <= run["test_accuracy"] <= 1


def test_longer_searches_differ_from_equal_cost_in_their_length_alone():
    assert dataclasses.replace(protocols.LENGTHS, methods=EQUAL_COST.methods) == EQUAL_COST
    once = EQUAL_COST.methods["DARTS 1st"]
    for times in (4, 16):
        longer = protocols.LENGTHS.methods[f"DARTS 1st {times}x"]
        assert longer == {**once, "method": "DARTS 1st", "epochs": times * EQUAL_COST.epochs_of("DARTS 1st")}
