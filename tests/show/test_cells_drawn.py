"""Drawings: they say what the matrix says, they are the same bytes each time, and they need no `dot`."""

import os
import re
import stat
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.textpath import TextPath

from nasedu.show import graphs
from nasedu.show.cells import draw_cell, draw_chain, draw_network, op_color
from nasedu.show.pictures import LEGIBLE, on_a_slide
from nasedu.space.choice import ArchError
from nasedu.space.genotype import PUBLISHED, Genotype, edges
from nasedu.space.ops import PRIMITIVES

SVG = "{http://www.w3.org/2000/svg}"
DARTS_V2 = PUBLISHED["DARTS_V2"]


@pytest.fixture(autouse=True)
def no_dot(monkeypatch, tmp_path):
    """Hide a `dot` that this machine may have: the path without it is the one that every student has."""
    empty = tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    return empty


def weights(n_nodes: int, n_ops: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(torch.randn(len(edges(n_nodes)), n_ops, generator=generator), dim=1)


def texts(svg: str) -> list[str]:
    return ["".join(item.itertext()) for item in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def by_tip(picture: graphs.CellDrawing) -> dict[str, graphs.Box]:
    return {box.tip: box for box in picture.boxes}


def test_the_words_say_the_cell():
    assert draw_cell(DARTS_V2).words == (
        "Normal cell. Node 2 = sep_conv_3x3(c_{k-2}) + sep_conv_3x3(c_{k-1}); "
        "Node 3 = sep_conv_3x3(c_{k-2}) + sep_conv_3x3(c_{k-1}); "
        "Node 4 = skip_connect(c_{k-2}) + sep_conv_3x3(c_{k-1}); "
        "Node 5 = skip_connect(c_{k-2}) + dil_conv_3x3(node 2). "
        "Output = concatenation of nodes 2, 3, 4, 5."
    )
    assert draw_cell(DARTS_V2, "reduce").words.startswith("Reduction cell. Node 2 = max_pool_3x3(c_{k-2})")


@pytest.mark.parametrize("which", ["normal", "reduce"])
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_discrete_matrix_looks_like_the_derived_cell(name, which):
    genotype = PUBLISHED[name]
    assert draw_cell(genotype.arch(), which).svg == draw_cell(genotype, which).svg
    assert draw_cell(genotype.arch()[which], which).words == draw_cell(genotype, which).words


def test_an_edge_drawn_twice_is_drawn_once_and_counted():
    node = (("sep_conv_3x3", 0), ("sep_conv_3x3", 0))
    mixed = (("skip_connect", 1), ("sep_conv_3x3", 1))
    genotype = Genotype((node, mixed), (node, mixed))
    picture = draw_cell(genotype)
    assert "Node 2 = 2 × sep_conv_3x3(c_{k-2});" in picture.words
    assert "Node 3 = sep_conv_3x3(c_{k-1}) + skip_connect(c_{k-1})." in picture.words
    assert texts(picture.svg).count("2 × sep_conv") == 1
    assert draw_cell(genotype.arch()).svg == picture.svg


def test_each_edge_shows_its_strongest_operation_other_than_none_as_wide_as_it_weighs():
    matrix = weights(4)
    matrix[:, 0] += 1.0  # "none" is the strongest everywhere, and must not be drawn
    picture = draw_cell(matrix)
    boxes = by_tip(picture)
    widths = {arrow.target: arrow.width for arrow in picture.arrows if not arrow.head}
    assert len(widths) == 14
    for row, (source, node) in enumerate(edges(4)):
        weight, column = matrix[row, 1:].max(dim=0)
        op = PRIMITIVES[int(column) + 1]
        box = boxes[f"{source} → {node}: {op} {weight:.2f}"]
        assert box.text.replace("\n", "_", 1) in (f"{op} {weight:.2f}", f"{op}_{weight:.2f}")
        assert box.line == op_color(op)
        assert widths[box.name] == pytest.approx(10 * float(weight))


def test_what_the_darts_rule_drops_is_faint():
    matrix = weights(4, seed=3)
    derived = Genotype.derive({"normal": matrix, "reduce": matrix})
    kept = {(source, node) for node, pairs in enumerate(derived.normal, start=2) for _, source in pairs}
    picture = draw_cell(matrix)
    for tip, box in by_tip(picture).items():
        if found := re.match(r"(\d) → (\d):", tip):
            assert box.faint == ((int(found[1]), int(found[2])) not in kept)
    assert picture.words.count("(faint)") == 14 - 8


def test_a_threshold_makes_what_is_below_it_faint():
    matrix = weights(4, seed=3)
    strongest = matrix[:, 1:].max(dim=1).values
    picture = draw_cell(matrix, threshold=0.3)
    assert picture.words.count("(faint)") == int((strongest < 0.3).sum()) > 0
    assert sum(box.faint for box in picture.boxes) == int((strongest < 0.3).sum())


@pytest.mark.parametrize("n_nodes", [1, 2, 3, 6])
def test_any_number_of_nodes(n_nodes):
    picture = draw_cell(weights(n_nodes), direction="TB")
    assert sum(bool(re.match(r"\d → \d", box.tip)) for box in picture.boxes) == len(edges(n_nodes))
    ElementTree.fromstring(picture.svg)


def test_other_operations():
    picture = draw_cell(weights(2, n_ops=3), ops=("none", "conv_1x1", "skip_connect"))
    assert "conv_1x1" in picture.words
    assert op_color("conv_1x1") not in {op_color(op) for op in PRIMITIVES}
    genotype = Genotype(*[((("sep_conv_7x7", 0), ("skip_connect", 1)),)] * 2)
    assert "sep_conv_7x7(c_{k-2})" in draw_cell(genotype).words


def test_an_edge_of_zeros_is_not_drawn_and_a_node_of_nothing_says_so():
    assert "Node 2 = nothing. Output = node 2." in draw_cell(torch.zeros(2, 8)).words


@pytest.mark.parametrize(
    ("cell", "kwargs", "message"),
    [
        (torch.zeros(14, 7), {}, r"one column for each of the 8 ops .* got the shape \(14, 7\)"),
        (torch.zeros(13, 8), {}, "13 rows"),
        (torch.zeros(14), {}, r"shape \(14,\)"),
        (torch.full((14, 8), -1.0), {}, "take the softmax"),
        (torch.full((14, 8), float("nan")), {}, "take the softmax"),
        ({"reduce": torch.zeros(14, 8)}, {}, r"no matrix 'normal'; it has \['reduce'\]"),
        (DARTS_V2, {"which": "output"}, "'normal' and 'reduce', got which='output'"),
    ],
)
def test_what_can_not_be_drawn_gives_a_clear_error(cell, kwargs, message):
    with pytest.raises(ValueError, match=message):
        draw_cell(cell, **kwargs)
    assert issubclass(ArchError, ValueError)


def test_the_svg_is_the_same_bytes_in_another_process():
    code = "from nasedu import PUBLISHED as P, draw_cell\n"
    code += "import sys; sys.stdout.buffer.write(draw_cell(P['DARTS_V2']).svg.encode())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode() == draw_cell(DARTS_V2).svg
    # Nothing that Graphviz's C code has to say may land in a notebook.
    assert done.stderr == b""


def test_the_svg_says_itself_to_those_who_can_not_see_it():
    picture = draw_cell(DARTS_V2, title="A <cell> & more")
    root = ElementTree.fromstring(picture.svg)
    assert root.find(f"{SVG}title").text == "A <cell> & more"
    assert root.find(f"{SVG}desc").text == picture.words == root.get("aria-label")
    assert root.get("role") == "img"
    assert not re.search(r"[Gg]raphviz|<!--|\b20[2-9]\d\b", picture.svg)
    data, metadata = picture._repr_mimebundle_()
    assert set(data) == {"image/svg+xml", "image/png", "text/plain"}
    assert data["text/plain"] == metadata["image/png"]["alt"] == picture.words
    assert repr(picture) == picture.words


def test_every_box_holds_its_text_and_none_lies_on_another():
    picture = draw_cell(weights(4, seed=1))
    boxes, _, (width, height) = picture._layout
    placed = list(zip(picture.boxes, boxes, strict=True))
    for box, (x, y) in placed:
        # DejaVu Sans is the widest of the fonts that a page may take.
        lines = re.sub(r"_\{|\}", "", box.text).split("\n")
        widest = max(TextPath((0, 0), line, size=graphs.FONT_SIZE).get_extents().width for line in lines)
        assert widest + 6 <= box.width
        assert x - box.width / 2 > 0 and x + box.width / 2 < width
        assert y - box.height / 2 > 0 and y + box.height / 2 < height
        for other, (u, v) in placed:
            if other is not box:
                assert (
                    abs(x - u) >= (box.width + other.width) / 2
                    or abs(y - v) >= (box.height + other.height) / 2
                )


def under(picture: graphs.CellDrawing) -> list[tuple[str, str]]:
    """Arrows that run behind a box they neither leave nor reach, with that box."""
    places, curves, _ = picture._layout
    found, t = [], np.linspace(0, 1, 25)[:, None]
    for arrow, (curve, _) in zip(picture.arrows, curves, strict=True):
        c = np.array(curve)
        pieces = [c[i : i + 4] for i in range(0, len(c) - 1, 3)]  # Bezier curves of four points
        weights = [(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3]
        points = np.concatenate([sum(b * p for b, p in zip(weights, piece, strict=True)) for piece in pieces])
        for box, place in zip(picture.boxes, places, strict=True):
            half = np.array([box.width, box.height]) / 2 + arrow.width / 2
            inside = (abs(points - place) < half).all(axis=1).any()
            if inside and box.name not in (arrow.source, arrow.target):
                found.append((f"{arrow.source} to {arrow.target}", box.name))
    return found


@pytest.mark.parametrize("direction", ["LR", "TB"])
def test_no_arrow_runs_behind_a_box(direction):
    for genotype in PUBLISHED.values():
        for which in ("normal", "reduce"):
            assert not under(draw_cell(genotype, which, direction=direction))
    for seed in range(6):
        assert not under(draw_cell(weights(4, seed=seed), direction=direction))
    assert not under(draw_network(8))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_nodes_stand_in_order(name):
    for which in ("normal", "reduce"):
        picture = draw_cell(PUBLISHED[name], which)
        places = {box.name: x for box, (x, _) in zip(picture.boxes, picture._layout[0], strict=True)}
        across = [places[f"s{node}"] for node in (0, 2, 3, 4, 5)]
        assert across == sorted(across) and len(set(across)) == 5


def test_a_cell_with_weights_can_be_read_on_a_slide():
    for seed in range(6):
        assert on_a_slide(draw_cell(weights(4, seed=seed))) >= LEGIBLE


@pytest.mark.parametrize("op", ["sep_conv_3x3", "skip_connect"])
def test_the_deepest_cell_can_be_read_on_a_slide(op):
    deep = tuple(((op, max(0, node)), (op, 1)) for node in (0, 2, 3, 4))
    assert on_a_slide(draw_cell(Genotype(deep, deep))) >= LEGIBLE


@pytest.mark.parametrize("input_size", [32, 224])
def test_the_network_of_8_cells_can_be_read_on_a_slide_and_its_boxes_hold_their_text(input_size):
    picture = draw_network(8, channels=16, input_size=input_size)
    assert on_a_slide(picture) >= LEGIBLE
    for box in picture.boxes:
        assert (box.width, box.height) >= graphs.text_size(box.text)


def test_no_drawing_is_wider_than_a_page():
    small, large = draw_cell(weights(1)), draw_cell(weights(6))
    for picture in (small, large):
        root = ElementTree.fromstring(picture.svg)
        assert (int(root.get("width")), int(root.get("height"))) == picture.size
        _, _, width, height = map(float, root.get("viewBox").split())
        assert picture.size[0] / picture.size[1] == pytest.approx(width / height, rel=0.01)
    assert small.size[0] < large.size[0] == graphs.PAGE


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png", "dot"])
def test_save(suffix, tmp_path):
    picture = draw_cell(DARTS_V2)
    path = picture.save(tmp_path / f"cell.{suffix}")
    start = {"svg": b"<svg", "pdf": b"%PDF", "png": b"\x89PNG", "dot": b"digraph"}[suffix]
    first = path.read_bytes()
    assert first.startswith(start)
    assert [item.name for item in tmp_path.iterdir() if item.is_file()] == [f"cell.{suffix}"]
    assert draw_cell(DARTS_V2).save(path).read_bytes() == first
    assert b"Date" not in first and b"Producer" not in first


def test_an_unknown_suffix_gives_a_clear_error_and_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"'cell\.jpg'; end the name in \.svg, \.pdf, \.png or \.dot"):
        draw_cell(DARTS_V2).save(tmp_path / "cell.jpg")
    assert not list(tmp_path.glob("cell*"))


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "cell.pdf"
    path.write_text("old")

    def broken(self):
        raise RuntimeError("no ink")

    monkeypatch.setattr(graphs.CellDrawing, "_figure", broken)
    with pytest.raises(RuntimeError, match="no ink"):
        draw_cell(DARTS_V2).save(path)
    assert path.read_text() == "old"


def test_the_dot_source_can_be_laid_out_by_others():
    import pygraphviz

    graph = pygraphviz.AGraph(string=draw_cell(DARTS_V2).dot)
    assert len(graph.nodes()) == 2 + 4 + 1 + 8
    labels = [node.attr["label"] for node in graph.nodes()]
    assert labels.count("sep_conv\\n3x3") == 5 and "c_{k-2}" in labels


FAKE_DOT = """#!{python}
import sys
open({log!r}, "a").write(" ".join(sys.argv[1:]))
{body}
"""


def install_dot(folder: Path, body: str) -> Path:
    log = folder / "log"
    program = folder / "dot"
    program.write_text(FAKE_DOT.format(python=sys.executable, log=str(log), body=body))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return log


def test_the_dot_program_is_used_where_there_is_one_and_gives_the_same_picture(no_dot):
    without = draw_cell(DARTS_V2).svg
    body = "import pygraphviz\n"
    body += "graph = pygraphviz.AGraph(string=sys.stdin.read())\n"
    body += 'sys.stdout.buffer.write(graph.draw(format="json0", prog="dot"))'
    log = install_dot(no_dot, body)
    assert draw_cell(DARTS_V2).svg == without
    assert "json0" in log.read_text()


def test_a_dot_program_that_fails_is_an_error_not_a_silent_fallback(no_dot):
    install_dot(no_dot, 'sys.exit("no plugin")')
    with pytest.raises(RuntimeError, match="no plugin"):
        _ = draw_cell(DARTS_V2).svg


def test_the_real_dot_program_places_the_boxes_where_the_package_does(no_dot, monkeypatch):
    places = draw_cell(DARTS_V2)._layout[0]
    monkeypatch.setenv("PATH", os.defpath + ":/usr/local/bin:/opt/homebrew/bin")
    if not graphs.shutil.which("dot"):
        pytest.skip("this machine has no `dot` program to compare with")
    for here, there in zip(places, draw_cell(DARTS_V2)._layout[0], strict=True):
        assert here == pytest.approx(there, abs=2)


def test_nothing_is_run_where_there_is_no_dot(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("a program was run")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    monkeypatch.setattr(os, "system", forbidden)
    assert draw_cell(DARTS_V2).svg.startswith("<svg")


def test_a_chain_says_its_layers_and_skips():
    picture = draw_chain(["sep_conv_3x3", "max_pool_3x3", "skip_connect"], [(0, 2)])
    assert picture.words == (
        "A chain of layers. Layers 0: sep_conv_3x3; 1: max_pool_3x3; 2: skip_connect. "
        "Skip connections: 0 to 2."
    )
    arrows = {(arrow.source, arrow.target) for arrow in picture.arrows}
    assert arrows == {("image", "l0"), ("l0", "l1"), ("l1", "l2"), ("l2", "out"), ("l0", "l2")}
    xs = [x for x, _ in picture._layout[0]]
    assert xs == sorted(xs), "the layers stand from left to right"


@pytest.mark.parametrize("skip", [(2, 1), (1, 1), (0, 3), (-1, 1)])
def test_a_skip_that_is_not_there(skip):
    with pytest.raises(ValueError, match=re.escape(str(skip))):
        draw_chain(["skip_connect"] * 3, [skip])


def test_a_network_has_the_shapes_of_the_model():
    from nasedu.space.cells import CNN
    from nasedu.space.network import uniform_arch

    model = CNN(16, 3, 4, 10, 5)
    shapes = []
    for module in [model.stem, *model.cells]:
        module.register_forward_hook(lambda _, __, out: shapes.append("×".join(map(str, out.shape[1:]))))
    with torch.no_grad():
        model(torch.zeros(1, 3, 16, 16), uniform_arch(model))
    picture = draw_network(5, channels=4, input_size=16)
    assert ["".join(box.text.split("\n")[-2:]) for box in picture.boxes[:-1]] == shapes
    assert f"; 1 reduction {shapes[2]};" in picture.words
    assert [box.text.split("\n")[1] for box in picture.boxes[1:-1]] == [
        "normal",
        "reduce",
        "normal",
        "reduce",
        "normal",
    ]
    with pytest.raises(ValueError, match="n_layers=2"):
        draw_network(2)
