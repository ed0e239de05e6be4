"""Self-checks for the exercises: `check.mixed_op(mine)` says what passed, or what was expected and what came.

The checks of one notebook live in one module here (`notebook_04.py`, ...); `contract.py` says how
to write one.
"""

from nasedu.check.contract import equal, exercise
from nasedu.check.notebook_00 import deep_cell, node_three, read_nodes
from nasedu.check.notebook_01 import best_of, distinct_cells, draws_needed, macro_space
from nasedu.check.notebook_02 import (
    look_ahead,
    one_step_ahead,
    resting_point,
    second_order,
    toy_hypergradients,
)
from nasedu.check.notebook_03 import child_size, expected_updates, kendall_tau
from nasedu.check.notebook_04 import alpha_gradient, merged_filter, mixed_edge, same_padding
from nasedu.check.notebook_05 import cell_loop, derived_forward, edge_row, operation_weights
from nasedu.check.notebook_06 import alpha_step, joint_step, mean_entropy
from nasedu.check.notebook_07 import derive_node, gap, genotype_matrix, node_margin
from nasedu.check.notebook_08 import (
    bandit_gradient,
    best_baseline,
    moving_advantages,
    path_log_prob,
    reinforce_loss,
)
from nasedu.check.notebook_09 import best_of_n, child_step, skip_penalty
from nasedu.check.notebook_10 import difference_interval, pareto_front, runs_needed
from nasedu.check.notebook_11 import best_without_replacement, permutation_test, same_function
from nasedu.check.notebook_12 import limited_skips, patience, price_of_a_step
from nasedu.check.notebook_13 import folded_norm, intensity, new_time, side_by_side
from nasedu.check.notebook_14 import input_choice, own_model, virtual_step

__all__ = [
    "alpha_gradient",
    "alpha_step",
    "bandit_gradient",
    "best_baseline",
    "best_of",
    "best_of_n",
    "best_without_replacement",
    "cell_loop",
    "child_size",
    "child_step",
    "deep_cell",
    "derive_node",
    "derived_forward",
    "difference_interval",
    "distinct_cells",
    "draws_needed",
    "edge_row",
    "equal",
    "exercise",
    "expected_updates",
    "folded_norm",
    "gap",
    "genotype_matrix",
    "input_choice",
    "intensity",
    "joint_step",
    "kendall_tau",
    "limited_skips",
    "look_ahead",
    "macro_space",
    "mean_entropy",
    "merged_filter",
    "mixed_edge",
    "moving_advantages",
    "new_time",
    "node_margin",
    "node_three",
    "one_step_ahead",
    "operation_weights",
    "own_model",
    "pareto_front",
    "path_log_prob",
    "patience",
    "permutation_test",
    "price_of_a_step",
    "read_nodes",
    "reinforce_loss",
    "resting_point",
    "runs_needed",
    "same_function",
    "same_padding",
    "second_order",
    "side_by_side",
    "skip_penalty",
    "toy_hypergradients",
    "virtual_step",
]
