"""The checks of notebook 00: a right answer passes, a wrong one is told what was expected."""

import pytest

from nasedu import PUBLISHED, GenotypeError, check

NODE_4, NODE_5 = PUBLISHED["PC_DARTS"].normal[2:]
SHALLOW = (("skip_connect", 0), ("skip_connect", 1))
DEEP = [
    (("sep_conv_3x3", 0), ("skip_connect", 1)),
    (("sep_conv_3x3", 2), ("skip_connect", 1)),
    (("max_pool_3x3", 0), ("skip_connect", 3)),
    (("skip_connect", 4), ("avg_pool_3x3", 0)),
]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "ask",
    [
        lambda: check.read_nodes(..., ...),
        lambda: check.read_nodes(NODE_4, ...),
        lambda: check.node_three(lambda states, ops: ...),
        lambda: check.deep_cell(...),
    ],
)
def test_unsolved(ask, capsys):
    assert not ask()
    assert said(capsys).startswith("not solved yet")


def test_the_nodes_in_any_order_and_as_lists(capsys):
    assert check.read_nodes(NODE_4, [list(pair) for pair in reversed(NODE_5)])
    assert said(capsys).count("✓") == 2


def test_nodes_that_are_not_those_of_the_matrix(capsys):
    assert not check.read_nodes(NODE_4, NODE_4)
    out = said(capsys)
    assert "✗ read a cell off its matrix: node 5" in out and "avg_pool_3x3" in out and "hint" in out


@pytest.mark.parametrize(
    "right",
    [
        lambda states, ops: ops["sep_conv_3x3"](states[1]) + ops["skip_connect"](states[0]),
        lambda states, ops: states[0] + ops["sep_conv_3x3"](states[1]),
    ],
)
def test_node_three(right, capsys):
    assert check.node_three(right)
    assert said(capsys).count("✓") == 2


@pytest.mark.parametrize(
    ("wrong", "came"),
    [
        (lambda states, ops: ops["skip_connect"](states[1]) + ops["sep_conv_3x3"](states[0]), "[5. 1. 0.]"),
        (lambda states, ops: ops["skip_connect"](states[0]) + ops["sep_conv_5x5"](states[1]), "[1. 7. 0.]"),
        (lambda states, ops: ops["skip_connect"](states[0]), "[1. 0. 0.]"),
        (lambda states, ops: 3, "shape ()"),
    ],
)
def test_another_node(wrong, came, capsys):
    assert not check.node_three(wrong)
    assert came in said(capsys)


def test_node_three_must_use_the_operations_it_is_given(capsys):
    assert not check.node_three(lambda states, ops: states[0] + 5 * states[1])
    assert "✗ compute a node: on feature maps" in said(capsys)


def test_a_deep_cell(capsys):
    assert check.deep_cell(DEEP)
    assert said(capsys).count("✓") == 7


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda cell: cell[:3], "number of nodes"),
        (lambda cell: [(("sep_conv_3x3", 1), ("skip_connect", 1)), *cell[1:]], "inputs of node 2"),
        (
            lambda cell: [*cell[:2], (("skip_connect", 0), ("skip_connect", 1)), cell[3]],
            "node 4 takes node 3",
        ),
        (
            lambda cell: [
                (("skip_connect", 0), ("skip_connect", 1)),
                (("skip_connect", 2), ("sep_conv_3x3", 1)),
                *cell[2:],
            ],
            "a convolution on a path",
        ),
        (lambda cell: [*cell[:3], (("conv_3x3", 4), ("skip_connect", 1))], "names that are no operation"),
    ],
)
def test_a_cell_that_is_not_what_was_asked(change, what, capsys):
    assert not check.deep_cell(change(DEEP))
    assert f"✗ draw the deepest cell: {what}" in said(capsys)


def test_what_is_no_cell_at_all_is_told_by_the_genotype():
    with pytest.raises(GenotypeError, match="node 3 of the normal cell"):
        check.deep_cell([*DEEP[:1], (("skip_connect", 3), ("skip_connect", 1)), *DEEP[2:]])
