"""Regret curves and the scatter of ranks: words and artists agree with the data."""

import numpy as np
import pytest
import torch

from nasedu.show import pictures
from nasedu.show.regret_and_rank import rank_scatter, regret_curves
from nasedu.study.statistics import mean_interval, tau_interval


def curves() -> dict[str, torch.Tensor]:
    """Three methods, 50 seeds, 120 evaluations; regret as a share, falling, at last 0 for most."""
    steps = torch.rand(3, 50, 120, generator=torch.Generator().manual_seed(0)).double()
    falling = (0.3 * steps).cummin(dim=2).values - 0.002
    return dict(zip(("random", "evolution", "REINFORCE"), falling.clamp(min=0), strict=True))


def scores() -> tuple[torch.Tensor, torch.Tensor]:
    true = torch.rand(40, generator=torch.Generator().manual_seed(0)).double()
    return 0.2 + 0.5 * true + 0.1 * torch.rand(40, generator=torch.Generator().manual_seed(1)), true


ALL = {"regret_curves": lambda: regret_curves(curves()), "rank_scatter": lambda: rank_scatter(*scores())}


@pytest.mark.parametrize("name", ALL)
def test_each_has_words_title_named_axes_and_letters_that_can_be_read(name):
    picture = ALL[name]()
    assert picture.png == ALL[name]().png, "the same data give the same bytes"
    assert picture.figure.get_suptitle() or picture.figure.axes[0].get_title()
    for axes in picture.figure.axes:
        assert axes.get_xlabel() and (axes.get_ylabel() or axes is not picture.figure.axes[0])
        labels = [*axes.texts, axes.title, axes.xaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
        assert all(text.get_fontsize() >= 13 for text in labels if text.get_text())
        for line in axes.lines[1:]:
            assert (line.get_color(), line.get_linestyle(), line.get_marker()) != (
                axes.lines[0].get_color(),
                axes.lines[0].get_linestyle(),
                axes.lines[0].get_marker(),
            )


def test_a_panel_shows_the_median_and_the_middle_half_and_nineteen_twentieths_of_the_seeds():
    data = curves()
    panels = regret_curves(data).figure.axes
    assert [axes.get_title() for axes in panels] == list(data)
    for axes, values, color in zip(panels, data.values(), pictures.OKABE_ITO, strict=False):
        points = 100 * values.numpy()
        assert np.allclose(axes.lines[0].get_ydata(), np.median(points, axis=0))
        assert axes.lines[0].get_xdata().tolist() == list(range(1, 121))
        assert axes.lines[0].get_color() == color
        for area, share in zip(axes.collections, (0.95, 0.5), strict=True):
            corners = area.get_paths()[0].vertices
            for evaluation in (1, 60, 120):
                heights = corners[corners[:, 0] == evaluation, 1]
                ends = np.quantile(points[:, evaluation - 1], [(1 - share) / 2, (1 + share) / 2])
                assert np.allclose([heights.min(), heights.max()], ends)
    assert [len(axes.lines) for axes in panels] == [1, 2, 2]
    for axes in panels[1:]:
        assert np.allclose(axes.lines[1].get_ydata(), panels[0].lines[0].get_ydata())
        assert axes.lines[1].get_label() == "median of random"
    low, high = panels[0].get_ylim()
    assert low == 0 and high >= max(100 * values.max().item() for values in data.values()) * 0.9


def test_the_words_say_the_mean_with_its_interval():
    data = curves()
    words = regret_curves(data, "Who is first?").words
    assert words.startswith("Who is first? Regret in percentage points against evaluations. random: after 1 ")
    for values in data.values():
        for count in (1, 10, 100, 120):
            points = 100 * values[:, count - 1]
            mean, low, high = mean_interval(points)
            median = np.median(points)
            assert f"after {count} median {median:.2f}, mean {mean:.2f} ({low:.2f} to {high:.2f})" in words
    assert "after 10 median" in regret_curves({"one": np.zeros((3, 10))}).words


def test_methods_may_have_different_budgets_and_a_wrong_shape_is_told():
    panels = regret_curves({"short": np.full((3, 20), 0.1), "long": np.full((3, 60), 0.1)}).figure.axes
    assert [axes.get_xlim()[1] for axes in panels] == [20, 60]
    with pytest.raises(ValueError, match=r"flat: wanted an array \(seeds, evaluations\), got shape \(5,\)"):
        regret_curves({"flat": np.zeros(5)})


def test_the_scatter_shows_every_architecture_and_says_tau():
    x, y = scores()
    x[3], y[8] = 0.99, 0.995  # the favourite and the best
    picture = rank_scatter(x, y)
    axes = picture.figure.axes[0]
    dots, best, favourite = axes.lines
    assert np.allclose(dots.get_xdata(), 100 * x) and np.allclose(dots.get_ydata(), 100 * y)
    assert (favourite.get_xdata()[0], favourite.get_ydata()[0]) == pytest.approx((99, 100 * y[3].item()))
    assert (best.get_xdata()[0], best.get_ydata()[0]) == pytest.approx((100 * x[8].item(), 99.5))
    tau, low, high = tau_interval(x, y)
    said = f"tau {tau:.2f} (95 %: {low:.2f} to {high:.2f})"
    assert said in axes.get_title() and said in picture.words
    assert f"score has {100 * y[3]:.1f} % alone, the truly best 99.5 %" in picture.words
    with pytest.raises(ValueError, match="no order to compare"):
        rank_scatter(torch.full((5,), 0.1), torch.rand(5))
