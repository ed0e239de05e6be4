"""Plots: each says in words what it shows; words and artists agree with the data; its bytes never change."""

import base64
import io
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from nasedu import show
from nasedu.show import pictures
from nasedu.show.cells import op_color
from nasedu.space.ops import PRIMITIVES, make_op


def arch(n_rows: int = 14, n_ops: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        k: torch.softmax(torch.randn(n_rows, n_ops, generator=generator), 1) for k in ("normal", "reduce")
    }


def history(n_epochs: int = 4) -> list[dict]:
    logits = {label: matrix.log() for label, matrix in arch().items()}
    return [
        {
            "epoch": epoch,
            "train_loss": 2.0 / epoch,
            "valid_loss": 2.5 / epoch,
            "train_acc1": 0.1 * epoch,
            "valid_acc1": 0.08 * epoch,
            "arch": {k: torch.softmax(v * (epoch - 1), 1).tolist() for k, v in logits.items()},
        }
        for epoch in range(1, n_epochs + 1)
    ]


def words_of(artist_texts) -> list[str]:
    return [text.get_text() for text in artist_texts]


ALL = {
    "alpha_heatmap": lambda: show.alpha_heatmap(arch()),
    "alpha_over_time": lambda: show.alpha_over_time(history()),
    "alpha_over_time, one edge": lambda: show.alpha_over_time(history(), "reduce", edge=(1, 3)),
    "entropy_over_time": lambda: show.entropy_over_time(history()),
    "learning_curves": lambda: show.learning_curves({"DARTS": history(), "random": history(3)}),
    "discretisation_gap": lambda: show.discretisation_gap([1, 2], [0.3, 0.5], [0.2, 0.35]),
    "operation_pictures": lambda: show.operation_pictures(
        torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    ),
    "softmax_bars": lambda: show.softmax_bars(range(8)),
    "bilevel_paths": lambda: show.bilevel_paths({"xi = 0": show.toy_path(0.0)}),
    "lines": lambda: show.lines({"a": [1, 2], "b": [2, 1]}, title="T", xlabel="x", ylabel="y"),
    "compare": lambda: show.compare({"DARTS": [0.9, 0.92], "ENAS": [0.91]}, title="T", label="accuracy"),
    "images": lambda: show.images(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), ["cat", "dog", "car"]),
}


@pytest.mark.parametrize("name", ALL)
def test_every_plot_is_a_png_with_words_and_without_pyplot(name):
    picture = ALL[name]()
    data, metadata = picture._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert len(picture.words.split()) >= 4
    assert data["text/plain"] == metadata["image/png"]["alt"] == picture.words == repr(picture)
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as image:
        assert not image.info.get("Software")
        width, height = metadata["image/png"]["width"], metadata["image/png"]["height"]
        assert image.width == pytest.approx(pictures.SHARP * width, abs=2)
        assert image.height == pytest.approx(pictures.SHARP * height, abs=2)
    for axes in picture.figure.axes:
        # Smaller letters can't be read from the back of a hall.
        sizes = [
            text.get_fontsize() for text in axes.texts + [axes.title, axes.xaxis.label] if text.get_text()
        ]
        assert all(size >= 11 for size in sizes)


@pytest.mark.parametrize("name", ["lines", "images", "bilevel_paths"])
def test_the_same_data_give_the_same_bytes(name):
    assert ALL[name]()._repr_mimebundle_() == ALL[name]()._repr_mimebundle_()


@pytest.mark.parametrize("name", sorted(set(ALL) - {"operation_pictures", "images"}))
def test_plots_have_titles_and_named_axes(name):
    figure = ALL[name]().figure
    panels = [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]
    assert figure.get_suptitle() or all(axes.get_title() for axes in panels)
    for axes in panels:
        assert axes.get_xlabel() or figure.get_supxlabel() or axes.images
        assert axes.get_ylabel() or figure.get_supylabel() or axes.get_yticklabels()


def test_a_plot_leaves_matplotlibs_settings_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    ALL["lines"]()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_save(suffix, tmp_path):
    path = ALL["lines"]().save(tmp_path / f"plot.{suffix}")
    first = path.read_bytes()
    assert ALL["lines"]().save(path).read_bytes() == first
    assert [item.name for item in tmp_path.iterdir()] == [f"plot.{suffix}"]
    assert not re.search(rb"[Mm]atplotlib v|\bDate\b|CreationDate", first)


def test_save_under_an_unknown_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"'plot\.gif'; end the name in"):
        ALL["lines"]().save(tmp_path / "plot.gif")


def test_show_closes_a_pyplot_figure_and_wants_words_and_nothing_needs_ipywidgets():
    code = """
import sys
import matplotlib; matplotlib.use("agg")
import matplotlib.pyplot as plt
from nasedu import show
figure, axes = plt.subplots()
try:
    show.finish(figure, " ")
except ValueError as error:
    assert "words" in str(error) and plt.get_fignums() == [1]
picture = show.finish(figure, "An empty pair of axes.")
assert plt.get_fignums() == [] and picture.png.startswith(b"\\x89PNG")
assert "ipywidgets" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_heatmap_writes_every_weight_and_names_every_edge():
    matrices = arch()
    picture = show.alpha_heatmap(matrices)
    left, right = picture.figure.axes[:2]
    for axes, matrix in ((left, matrices["normal"]), (right, matrices["reduce"])):
        assert np.allclose(axes.images[0].get_array(), matrix)
        written = [float(text) for text in words_of(axes.texts)]
        assert np.allclose(written, matrix.flatten(), atol=0.00501)
        assert words_of(axes.get_xticklabels()) == list(PRIMITIVES)
        assert words_of(axes.get_yticklabels())[:5] == ["0→2", "1→2", "0→3", "1→3", "2→3"]
    best = PRIMITIVES[int(matrices["reduce"][13].argmax())]
    assert f"4→5: {best} {matrices['reduce'][13].max():.2f}" in picture.words


def test_the_heatmaps_letters_stand_out_from_their_ground():
    picture = show.alpha_heatmap(arch(), "normal")
    axes = picture.figure.axes[0]
    image = axes.images[0]
    ground = image.cmap(image.norm(image.get_array()))[..., :3].reshape(-1, 3)

    def luminance(rgb):
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for text, color in zip(axes.texts, ground, strict=True):
        letters = 0.0 if text.get_color() == "black" else 1.0
        high, low = sorted([luminance(color), letters], reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 3.0, text.get_text()  # WCAG's least for large letters


def test_the_heatmap_takes_any_matrix():
    picture = show.alpha_heatmap({"conv": torch.tensor([[1.0, 0.0], [0.25, 0.75]])}, ops=["a", "b"])
    assert words_of(picture.figure.axes[0].texts) == ["1", "0", ".25", ".75"]
    assert "conv, largest weight of each edge: 0: a 1.00, 1: b 0.75." in picture.words
    assert "0→2" in show.alpha_heatmap(torch.eye(2), ops=["a", "b"]).words
    with pytest.raises(ValueError, match=r"shape \(14, 8\).*a, b: name other operations"):
        show.alpha_heatmap(arch(), ops=["a", "b"])
    with pytest.raises(ValueError, match="no matrix 'output'"):
        show.alpha_heatmap(arch(), "output")


def test_alpha_over_time_draws_every_weight_of_every_edge():
    epochs = history()
    picture = show.alpha_over_time(epochs, "reduce")
    panels = [axes for axes in picture.figure.axes if axes.get_visible()]
    weights = np.array([epoch["arch"]["reduce"] for epoch in epochs])
    assert len(panels) == 14
    for row, axes in enumerate(panels):
        assert [line.get_label() for line in axes.lines] == list(PRIMITIVES)
        for column, line in enumerate(axes.lines):
            assert line.get_xdata().tolist() == [1, 2, 3, 4]
            assert np.allclose(line.get_ydata(), weights[:, row, column])
            assert line.get_color() == op_color(PRIMITIVES[column])
    looks = {(line.get_color(), line.get_linestyle()) for line in panels[0].lines}
    assert len(looks) == 8, "two operations can't be told apart"


def test_alpha_over_time_of_one_edge():
    epochs = history()
    for edge in ((1, 3), 3):
        axes = show.alpha_over_time(epochs, edge=edge).figure.axes[0]
        assert np.allclose(axes.lines[5].get_ydata(), [epoch["arch"]["normal"][3][5] for epoch in epochs])
    with pytest.raises(ValueError, match="no edge 3→2"):
        show.alpha_over_time(epochs, edge=(3, 2))
    with pytest.raises(ValueError, match="'output'.*was it a search"):
        show.alpha_over_time(epochs, "output")


def test_a_history_object_and_an_empty_one():
    class History:
        epochs = history()

    assert show.alpha_over_time(History()).words == show.alpha_over_time(history()).words
    with pytest.raises(ValueError, match="history is empty"):
        show.learning_curves([])


def test_entropy_of_a_uniform_row_is_3_bits_and_of_a_decided_one_0():
    uniform, decided = [[0.125] * 8] * 2, [[1.0] + [0.0] * 7] * 2
    epochs = [{"epoch": 1, "arch": {"normal": uniform}}, {"epoch": 2, "arch": {"normal": decided}}]
    axes = show.entropy_over_time(epochs).figure.axes[0]
    assert axes.lines[0].get_ydata().tolist() == [3.0, 0.0]
    with pytest.raises(ValueError, match="was it a search"):
        show.entropy_over_time([{"epoch": 1}])


def test_learning_curves_show_fractions_as_per_cent_and_leave_out_what_is_missing():
    left, right = show.learning_curves(history()).figure.axes
    assert np.allclose(left.lines[1].get_ydata(), [2.5, 1.25, 2.5 / 3, 0.625])
    assert np.allclose(right.lines[1].get_ydata(), [8, 16, 24, 32])
    only = [{"epoch": 1, "train_loss": 1.0}]
    left, right = show.learning_curves(only).figure.axes
    assert (len(left.lines), len(right.lines)) == (1, 0)
    with pytest.raises(ValueError, match="train_loss"):
        show.learning_curves([{"epoch": 1}])


def test_the_gap_is_said():
    assert show.discretisation_gap([1, 2], [0.3, 0.5], [0.2, 0.35]).words.endswith(
        "The gap ends at 15 points."
    )


def test_operation_pictures_show_the_mean_over_channels_and_leave_the_random_state_alone():
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(123)
    state = torch.get_rng_state()
    picture = show.operation_pictures(image)
    assert torch.equal(torch.get_rng_state(), state)
    by_name = {axes.get_title(): axes.images[0].get_array() for axes in picture.figure.axes if axes.images}
    assert list(by_name) == ["the image", *PRIMITIVES]
    assert np.allclose(by_name["skip_connect"], image.mean(0))
    assert np.allclose(by_name["none"], 0.0)
    own = show.operation_pictures(image, {"pool": make_op("avg_pool_3x3", 3, search=False)})
    assert np.allclose(
        own.figure.axes[1].images[0].get_array(), make_op("avg_pool_3x3", 3, search=False)(image).mean(0)
    )
    with pytest.raises(ValueError, match=r"one image .* got \(1, 3, 8, 8\)"):
        show.operation_pictures(image[None])


def test_softmax_bars():
    logits = [0.0, math.log(3.0)]
    picture = show.softmax_bars(logits, 1.0, ["a", "b"])
    assert [bar.get_width() for bar in picture.figure.axes[0].patches] == pytest.approx([0.25, 0.75])
    cold = show.softmax_bars(logits, 0.5, ["a", "b"])
    assert [bar.get_width() for bar in cold.figure.axes[0].patches] == pytest.approx([0.1, 0.9])
    assert show.softmax_bars([1e4, 0.0], 0.1, ["a", "b"]).words.count("1.00") == 1
    with pytest.raises(ValueError, match="larger than 0, got 0"):
        show.softmax_bars(logits, 0, ["a", "b"])
    with pytest.raises(ValueError, match="wanted 8 logits"):
        show.softmax_bars(logits)


@pytest.mark.parametrize("xi", [0.0, 0.1, 0.5, 1.0])
def test_the_toy_path_ends_at_the_fixed_point_of_its_xi(xi):
    a, w = show.toy_path(xi, steps=2000)[-1]
    assert (a, w) == pytest.approx((2 / (1 + 2 * xi),) * 2, abs=1e-9)


def test_the_toy_path_takes_the_unrolled_gradient():
    w, a = torch.tensor(-2.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    ahead = w - 0.3 * 2 * (w - a)
    (gradient,) = torch.autograd.grad(a * ahead - 2 * a + 1, a)
    assert show.toy_path(0.3, steps=1)[1][0] == pytest.approx(float(a.detach() - 0.2 * gradient), abs=1e-12)


def test_lines_take_tensors_bands_marks_and_levels():
    picture = show.lines(
        {"a": torch.tensor([1.0, 3.0]), "b": [2.0, 2.0, 5.0]},
        {"a": [0, 10], "b": [0, 5, 10]},
        title="Does it fit?",
        xlabel="step",
        ylabel="loss",
        bands={"a": ([0, 2], [2, 4])},
        marks={"stop": 5},
        levels={"chance": 2.3},
        words="Two curves.",
        logy=True,
    )
    axes = picture.figure.axes[0]
    assert axes.lines[0].get_xdata().tolist() == [0, 10] and axes.lines[1].get_ydata().tolist() == [2, 2, 5]
    assert axes.get_yscale() == "log" and len(axes.collections) == 1
    assert picture.words == (
        "Does it fit? loss against step. Two curves. a: from 1 to 3, lowest 1 at 0, highest 3 at 10. "
        "b: from 2 to 5, lowest 2 at 0, highest 5 at 10. stop: at step 5. chance: at loss 2.3."
    )


def test_compare_says_mean_and_spread():
    picture = show.compare({"A": [1.0, 3.0], "B": 2.0}, {"B": 0.5}, title="T", label="minutes")
    assert picture.words == (
        "T. minutes. A: mean 2, standard deviation 1.4, 2 runs. B: mean 2, standard deviation 0.5."
    )
    bar = picture.figure.axes[0].patches[0]
    assert (bar.get_x(), bar.get_width()) == pytest.approx((2 - math.sqrt(2), 2 * math.sqrt(2)))
    low, high = picture.figure.axes[0].get_xlim()
    assert low < bar.get_x() and bar.get_x() + bar.get_width() < high, "a bar is cut off"


def test_images_of_a_dataset_and_of_a_tensor():
    class Dataset:
        images = torch.arange(5 * 3 * 4 * 4, dtype=torch.uint8).reshape(5, 3, 4, 4)
        labels = torch.tensor([1, 0, 1, 1, 0])
        classes = ("cat", "dog")
        name = "pets"

    picture = show.images(Dataset(), n=3)
    assert picture.words.startswith(
        "pets: the first 3 images. 3 images of 4x4 pixels. They are: dog, cat, dog."
    )
    shown = picture.figure.axes[1].images[0].get_array()
    assert np.array_equal(shown, Dataset.images[1].permute(1, 2, 0))
    with pytest.raises(ValueError, match=r"got \(3, 4, 4\)"):
        show.images(torch.zeros(3, 4, 4))
