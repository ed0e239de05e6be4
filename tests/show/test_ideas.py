"""The pictures of ideas say and show what the data are, at every stop of their sliders."""

import re

import numpy as np
import pytest
import torch
from matplotlib.patches import FancyArrowPatch

from nasedu import Controller, Genotype, LayerChoice
from nasedu.show import ideas
from nasedu.space import PartialEdge
from nasedu.space.genotype import edges

OPS = ("sep_conv_3x3", "max_pool_3x3", "skip_connect")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample():
    return Controller(2, OPS, ("normal",), init_range=1.0, start_bias=0.5, generator=rng()).sample(1, rng(3))


NAMES = ["none", "skip", "1x1", "3x3", "pool"]
ALL = {
    "alternating_steps": lambda: ideas.alternating_steps(2),
    "discretisation_cut": lambda: ideas.discretisation_cut(torch.randn(4, 8, generator=rng()).softmax(1)),
    "controller_unrolled": lambda: ideas.controller_unrolled(sample(), 3),
    "partial_channels": ideas.partial_channels,
    "gumbel_rows": lambda: ideas.gumbel_rows(torch.zeros(5), torch.randn(6, 5, generator=rng()), 0.5, NAMES),
}


@pytest.mark.parametrize("name", ALL)
def test_the_same_state_gives_the_same_bytes_with_words_and_readable_letters(name):
    picture = ALL[name]()
    assert picture.png == ALL[name]().png
    assert len(picture.words.split()) > 15 and picture.figure.axes[0].get_title()
    for axes in picture.figure.axes:
        assert all(text.get_fontsize() >= 13 for text in [*axes.texts, axes.title] if text.get_text())


def test_the_steps_alternate_and_each_has_its_own_half_of_the_images():
    texts = [text.get_text() for text in ideas.alternating_steps(3).figure.axes[0].texts]
    assert texts.count("validation batch") == texts.count("training batch") == 3
    assert [f"{name} step {i}" in texts for name in "αw" for i in (1, 2, 3)] == [True] * 6
    with pytest.raises(ValueError, match="one round or more"):
        ideas.alternating_steps(0)


def test_the_last_stage_of_the_cut_is_what_the_genotype_says():
    for seed in range(20):
        matrix = torch.randn(14, 8, generator=rng(seed)).softmax(dim=1)
        kept = Genotype.derive({"normal": matrix, "reduce": matrix}).normal[2]  # node 4
        rows = matrix[[i for i, (_, node) in enumerate(edges(4)) if node == 4]]
        words = ideas.discretisation_cut(rows, "weight one").words
        assert re.findall(r"edge (\d): (\w+) 1.00", words) == [(str(i), op) for op, i in kept]


def test_each_stage_of_the_cut_keeps_what_it_says():
    rows = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.0, 0.6, 0.4]])
    ops = ("none", "max_pool_3x3", "skip_connect")
    said = {stage: ideas.discretisation_cut(rows, stage, ops).words for stage in ideas.STAGES}
    assert all(f"edge {i}" in said["all weights"] for i in range(3))
    assert "edge 0" not in said["two edges"] and "max_pool_3x3 0.60, skip_connect 0.40" in said["two edges"]
    assert said["one operation each"].endswith("edge 1: skip_connect 0.70; edge 2: max_pool_3x3 0.60.")
    with pytest.raises(ValueError, match="one of the stages"):
        ideas.discretisation_cut(rows, "soft", ops)


def test_the_unrolled_controller_shows_what_was_drawn_and_attends_with_its_probabilities():
    drawn = sample()
    for decision in range(9):
        picture = ideas.controller_unrolled(drawn, decision)
        texts = [text.get_text() for text in picture.figure.axes[0].texts]
        assert texts.count("LSTM") == 2 + decision + decision // 4  # two inputs, decisions, finished nodes
        for number, step in enumerate(drawn.steps):
            what = f"{step.options[step.choice[0]]} ({step.probabilities[0][step.choice[0]]:.2f})"
            assert number >= decision or what in picture.words
    arcs = [p for p in picture.figure.axes[0].patches if isinstance(p, FancyArrowPatch)]
    wide = [arc.get_linewidth() for arc in arcs if arc.get_connectionstyle().rad]
    odds = [p for step in drawn.steps if "input" in step.name for p in step.probabilities[0].tolist()]
    np.testing.assert_allclose(wide, [0.6 + 5 * p for p in odds])
    with pytest.raises(ValueError, match="from 0 to 8"):
        ideas.controller_unrolled(drawn, 9)


def test_the_shuffle_drawn_is_that_of_the_partial_edge():
    edge = PartialEdge(LayerChoice({"same": torch.nn.Identity()}, "cell"), k=4)
    x = torch.arange(8.0).reshape(1, 8, 1, 1)
    order = edge(x, {"cell": torch.ones(1, 1)}).flatten().int().tolist()
    texts = [text.get_text() for text in ideas.partial_channels(8, 4).figure.axes[0].texts]
    after = [int(text.split()[1]) for text in texts if text.startswith("channel")][1::2]
    assert after == order
    with pytest.raises(ValueError, match="must divide"):
        ideas.partial_channels(8, 3)


def test_a_low_temperature_makes_a_draw_of_every_row_and_its_star_stays():
    logits, noise = torch.zeros(5), torch.randn(6, 5, generator=rng())
    hot, cold = (ideas.gumbel_rows(logits, noise, tau, NAMES) for tau in (5.0, 0.01))
    stars = [
        [
            (round(t.get_position()[1]), round(t.get_position()[0]))
            for t in p.figure.axes[0].texts
            if "★" in t.get_text()
        ]
        for p in (hot, cold)
    ]
    assert stars[0] == stars[1] == list(enumerate(noise.argmax(dim=1).tolist()))
    assert "1.00 on average" in cold.words and "1.00 on average" not in hot.words
    with pytest.raises(ValueError, match="larger than 0"):
        ideas.gumbel_rows(logits, noise, 0.0, NAMES)
