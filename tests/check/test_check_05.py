"""The checks of notebook 05: a right answer passes, a wrong one is told what was expected."""

import pytest
import torch

from nasedu import check


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def weights(name, c, stride):
    kernel = 5 if "5x5" in name else 3
    if "sep" in name:
        return 2 * (kernel**2 * c + c**2)
    if "dil" in name:
        return kernel**2 * c + c**2
    return c**2 if name == "skip_connect" and stride == 2 else 0


def cell(s0, s1, nodes, ops):
    states, ops = [s0, s1], iter(ops)
    for pairs in nodes:
        states.append(sum(next(ops)(states[source]) for _, source in pairs))
    return torch.cat(states[2:], dim=1)


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (check.edge_row, lambda source, node: ...),
        (check.operation_weights, lambda name, channels, stride: None),
        (check.derived_forward, lambda s0, s1, nodes, ops: ...),
    ],
)
def test_unsolved(ask, answer, capsys):
    assert not ask(answer)
    assert said(capsys).startswith("not solved yet")


@pytest.mark.parametrize(
    ("ask", "answer", "cases"),
    [
        (check.edge_row, lambda source, node: node * (node - 1) // 2 - 1 + source, 4),
        (check.operation_weights, weights, 24),
        (check.derived_forward, cell, 3),
    ],
)
def test_right(ask, answer, cases, capsys):
    assert ask(answer)
    assert said(capsys).count("✓") == cases


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda source, node: node * (node - 1) // 2 + source, "expected: 0\n  got:      1"),
        (lambda source, node: 4 * (node - 2) + source, "expected: 13\n  got:      16"),
        (lambda source, node: {2: 0, 3: 2, 4: 5, 5: 9}.get(node, 0) + source, "all 44 edges"),
    ],
)
def test_another_row(answer, message, capsys):
    assert not check.edge_row(answer)
    assert message in said(capsys)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda name, c, stride: weights(name, c, stride) // 2, "✗ count the weights: sep_conv_3x3"),
        (
            lambda name, c, stride: weights(name, c, 1),
            "✗ count the weights: skip_connect, 16 channels, stride 2",
        ),
        (lambda name, c, stride: weights(name, 16, stride), "sep_conv_3x3, 36 channels"),
    ],
)
def test_another_count(answer, message, capsys):
    assert not check.operation_weights(answer)
    assert message in said(capsys)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda s0, s1, nodes, ops: cell(s1, s0, nodes, ops), "✗ a derived cell: DARTS_V2"),
        (lambda s0, s1, nodes, ops: cell(s0, s1, nodes, [ops[0]] * 8), "✗ a derived cell: DARTS_V2"),
        (lambda s0, s1, nodes, ops: cell(s0, s1, nodes, ops)[:, :2], "shape (1, 4, 1, 1)"),
        (
            lambda s0, s1, nodes, ops: cell(s0, s1, nodes, ops).relu().clamp(max=1e4),
            "on feature maps",
        ),
    ],
)
def test_another_cell(answer, message, capsys):
    assert not check.derived_forward(answer)
    assert message in said(capsys)


def loop(s0, s1, matrix, ops_of, reuse=False, sources=6):
    states, number = [s0, s1], 0
    for _ in range(4):
        node = 0
        for state in states[:sources]:
            row = 0 if reuse else number
            node = node + sum(p * op(state) for p, op in zip(matrix[row], ops_of[row], strict=True))
            number += 1
        states.append(node)
    return torch.cat(states[2:], dim=1)


def test_the_cells_loop():
    assert check.cell_loop(loop)
    assert not check.cell_loop(lambda *cell: loop(*cell, reuse=True))  # one row for all edges
    assert not check.cell_loop(lambda *cell: loop(*cell, sources=2))  # from the two inputs only
