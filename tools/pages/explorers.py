"""Two explorers made for the browser alone: the map of the 125 architectures, and the cell builder.

Each is a page with its data, made here from the package's own files, and a script of its own beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from nasedu.show.cells import op_color
from nasedu.space import small
from nasedu.space.genotype import PUBLISHED, edges
from nasedu.space.ops import PRIMITIVES
from nasedu.study import record, truth


def ranks(scores: torch.Tensor) -> list[int]:
    """Each one's rank, 1 for the largest score; the first of equals has the smaller number."""
    order = torch.argsort(scores, descending=True, stable=True)
    out = torch.empty_like(order)
    out[order] = torch.arange(1, len(scores) + 1)
    return out.tolist()


def map_data() -> dict[str, Any]:
    """Everything the map shows: accuracies in %, curves, ranks under each score, "
    "and the searches' paths."""
    table = truth.load()
    space = small.architectures()
    number = {names: i for i, names in enumerate(space)}
    tests: list[list[float]] = [[] for _ in space]
    curves: list[list[list[float]]] = [[] for _ in space]
    for row in table:
        tests[number[tuple(row.names)]].append(100 * row.test_accuracy)
        curves[number[tuple(row.names)]].append([100 * value for value in row.curve])
    mean = torch.tensor([sum(one) / len(one) for one in tests])
    weights = [0] * len(space)
    for row in table:
        weights[number[tuple(row.names)]] = row.parameters
    runs = record.load("small_space")
    judged = {
        "trained alone (the truth)": ranks(mean),
        "number of weights": ranks(torch.tensor(weights).float()),
    }
    for method in dict.fromkeys(run["key"]["method"] for run in runs if "scores" in run):
        scores = [run["scores"]["reestimated"] for run in runs if run["key"]["method"] == method]
        judged[f"supernet of {method}, mean of {len(scores)} seeds"] = ranks(torch.tensor(scores).mean(dim=0))
    paths = {}
    for run in runs:
        steps = [epoch["arch"]["cell"] for epoch in run.get("history", ()) if "arch" in epoch]
        if steps:
            found = [number[small.names_of({"cell": torch.tensor(step)})] for step in steps]
            paths[f"{run['key']['method']}, seed {run['key']['seed']}"] = found
    return {
        "ops": list(small.OPS),
        "names": [list(names) for names in space],
        "accuracy": [round(float(value), 4) for value in mean],
        "seeds": [[round(value, 1) for value in one] for one in tests],
        "curves": [
            [round(sum(values) / len(values), 1) for values in zip(*one, strict=True)] for one in curves
        ],
        "weights": weights,
        "ranks": judged,
        "paths": paths,
        "colors": {name: op_color(name) for name in small.OPS}
        | {"conv_1x1": "#E69F00", "conv_3x3": "#D55E00"},
    }


def builder_data() -> dict[str, Any]:
    """The builder's rows and columns, and the published cell that it begins with."""
    return {
        "ops": list(PRIMITIVES),
        "edges": [list(edge) for edge in edges(4)],
        "colors": {name: op_color(name) for name in PRIMITIVES},
        "start": PUBLISHED["DARTS_V2"].arch()["normal"].int().tolist(),
    }


def page(title: str, words: str, name: str, data: dict[str, Any]) -> str:
    """Write the Markdown page of one explorer."""
    store = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f"# {title}\n\n{words}\n\n```{{raw}} html\n<div id='{name}'><p>This explorer "
        f"needs JavaScript.</p></div>\n"
        f"<script type='application/json' id='{name}-data'>{store}</script>\n"
        f"<script src='_static/{name}.js' defer></script>\n```\n"
    )


def write(folder: Path) -> list[str]:
    """Write both pages to the folder; return their names."""
    pages = {
        "map": page(
            "The map of the 125 architectures",
            "Each square is one architecture of the [small "
            "space](11_the_truth_in_a_small_space.ipynb): three "
            "edges, five operations. The number is its accuracy on the test images, in "
            "percent, the mean of three "
            "trainings. Choose one to see its cell, its curve and its rank; or let a search "
            "walk over the map: at "
            "each epoch the square is the strongest operation of each edge.",
            "map",
            map_data(),
        ),
        "builder": page(
            "The cell builder",
            "A cell is a matrix: a row for each edge, a column for each operation "
            "([notebook 00](00_start_here.ipynb)). Choose an edge in the drawing to change "
            "its operation, or a place "
            "in the matrix. Every node takes two inputs. It begins with the normal cell that "
            "DARTS (second order) "
            "found on CIFAR-10.",
            "builder",
            builder_data(),
        ),
    }
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return list(pages)
