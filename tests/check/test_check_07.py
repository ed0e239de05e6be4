"""The checks of notebook 07: a right answer passes, a wrong one is told what was expected."""

import pytest
import torch

from nasedu import PRIMITIVES, Genotype, accuracy, check, edges


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def node(rows, skip=1, keep=2):
    strength, best = rows[:, skip:].max(dim=1)
    kept = strength.topk(min(keep, len(rows))).indices.tolist()
    return [(PRIMITIVES[skip + int(best[source])], source) for source in kept]


def matrix(nodes, at_most=2):
    rows, made = {edge: row for row, edge in enumerate(edges())}, torch.zeros(14, 8)
    for j, pairs in enumerate(nodes, start=2):
        for op, source in pairs:
            made[rows[source, j], PRIMITIVES.index(op)] += 1
    return made.clamp(max=at_most)


def margin(rows, skip=1):
    top = rows[:, skip:].topk(2, dim=1).values
    strength, order = top[:, 0].sort(descending=True)
    leads = [top[i, 0] - top[i, 1] for i in order[:2]]
    return min([*leads, *(strength[1:2] - strength[2:3])]).item()


def gap(model, arch, x, y, sign=1):
    whole, cut = (accuracy(model(x, a), y)["acc1"] for a in (arch, Genotype.derive(arch).arch()))
    return sign * (whole - cut)


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (check.derive_node, lambda rows: ...),
        (check.genotype_matrix, lambda nodes: None),
        (check.node_margin, lambda rows: ...),
        (check.gap, lambda model, arch, x, y: ...),
    ],
)
def test_unsolved(ask, answer, capsys):
    assert not ask(answer)
    assert said(capsys).startswith("not solved yet")


@pytest.mark.parametrize(
    ("ask", "answer", "cases"),
    [
        (check.derive_node, node, 7),
        (check.genotype_matrix, matrix, 5),
        (check.node_margin, margin, 4),
        (check.gap, gap, 3),
    ],
)
def test_right(ask, answer, cases, capsys):
    assert ask(answer)
    assert said(capsys).count("✓") == cases


@pytest.mark.parametrize(
    ("ask", "answer", "message"),
    [
        (check.derive_node, lambda rows: node(rows, skip=0), 'where "none" is the strongest'),
        (
            check.derive_node,  # edges on which "none" is the strongest are no candidates
            lambda rows: node(rows.where(rows[:, :1] < rows.max(dim=1, keepdim=True).values, 0.0)),
            'where "none" is the strongest',
        ),
        (check.derive_node, lambda rows: node(rows, keep=3), "✗ derive a node: three edges"),
        (check.derive_node, lambda rows: node(rows)[:1] * 2, "✗ derive a node: three edges"),
        (
            check.derive_node,
            lambda rows: [
                (PRIMITIVES[1 + i % 7], i // 7) for i in rows[:, 1:].flatten().topk(2).indices.tolist()
            ],
            "two inputs, not twice the best",
        ),
        (check.derive_node, lambda rows: node(rows[:3]), "4 edges with random weights"),
        (check.genotype_matrix, lambda nodes: matrix(nodes, at_most=1), "one pair twice"),
        (check.genotype_matrix, lambda nodes: matrix(nodes).T, "expected: shape (14, 8)"),
        (check.genotype_matrix, lambda nodes: matrix(nodes).flip(0), "✗ from genotype to matrix: DARTS_V2"),
        (check.node_margin, lambda rows: margin(rows, skip=0), '"none" is no rival'),
        (check.node_margin, lambda rows: margin(rows[:2]), "the third edge comes close"),
        (check.node_margin, lambda rows: 0.15, "expected: 0.03"),
        (
            check.gap,  # one operation on every edge is another cut
            lambda model, arch, x, y: (
                accuracy(model(x, arch), y)["acc1"]
                - accuracy(model(x, {k: (m == m.amax(1, True)).float() for k, m in arch.items()}), y)["acc1"]
            ),
            "expected: 0.5\n  got:      0.75",
        ),
        (check.gap, lambda *a: gap(*a, sign=-1), "expected: 0.5\n  got:      -0.5"),
        (check.gap, lambda *a: abs(gap(*a)), "a negative gap"),
        (check.gap, lambda model, arch, x, y: gap(model, Genotype.derive(arch).arch(), x, y), "got:      0"),
    ],
)
def test_wrong(ask, answer, message, capsys):
    assert not ask(answer)
    out = said(capsys)
    assert message in out and "✗" in out and "hint" in out
