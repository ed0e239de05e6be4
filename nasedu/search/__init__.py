"""How to search: DARTS, ENAS, random search, the loop they share, and training from scratch."""

from nasedu.search import hypergrad
from nasedu.search.base import (
    Candidate,
    Reward,
    SamplingSearch,
    SearchTrainer,
    arguments,
    gap_callback,
    reward_accuracy,
)
from nasedu.search.checkpoint import CheckpointError
from nasedu.search.controller import ENAS_OPS, IMPOSSIBLE, MACRO_CONSTANTS, Controller
from nasedu.search.darts import DartsTrainer, Softmax
from nasedu.search.decisions import (
    CellPart,
    Head,
    InputPart,
    LayerPart,
    Memory,
    Sample,
    Step,
    Writer,
    parts_of,
    shapes_of,
)
from nasedu.search.early_stop import EarlyStop, Eigenvalues, hessian_vector, largest_eigenvalue, stop_epoch
from nasedu.search.enas import EnasTrainer
from nasedu.search.evaluation import (
    Mean,
    Metrics,
    accuracy,
    batch_statistics,
    buffers_kept,
    evaluate,
    modes_kept,
    prefixed,
    reestimated,
)
from nasedu.search.history import History, HistoryError
from nasedu.search.hypergrad import exact, first_order, implicit, sgd_step, unrolled
from nasedu.search.random_search import RandomSearch
from nasedu.search.registry import METHODS, Method, build
from nasedu.search.reinforce import advantages, leave_one_out, moving_baseline, policy_loss
from nasedu.search.relaxation import EDGES, EdgeShares, Gumbel, edge_shares, gumbel, gumbel_one_hot
from nasedu.search.standalone import StandaloneTrainer, cosine, one_cycle
from nasedu.search.trainer import Trainer, default_device
from nasedu.search.trial import TooLargeError
from nasedu.search.watch import DivergedError

__all__ = [
    "Candidate",
    "CellPart",
    "CheckpointError",
    "Controller",
    "DartsTrainer",
    "DivergedError",
    "EDGES",
    "EarlyStop",
    "EdgeShares",
    "Eigenvalues",
    "Gumbel",
    "ENAS_OPS",
    "EnasTrainer",
    "Head",
    "History",
    "HistoryError",
    "IMPOSSIBLE",
    "InputPart",
    "LayerPart",
    "MACRO_CONSTANTS",
    "METHODS",
    "Mean",
    "Memory",
    "Method",
    "Metrics",
    "RandomSearch",
    "Reward",
    "Sample",
    "SamplingSearch",
    "SearchTrainer",
    "StandaloneTrainer",
    "Softmax",
    "Step",
    "TooLargeError",
    "Trainer",
    "Writer",
    "accuracy",
    "advantages",
    "arguments",
    "batch_statistics",
    "buffers_kept",
    "build",
    "cosine",
    "default_device",
    "edge_shares",
    "evaluate",
    "exact",
    "first_order",
    "gap_callback",
    "gumbel",
    "gumbel_one_hot",
    "hessian_vector",
    "hypergrad",
    "implicit",
    "largest_eigenvalue",
    "leave_one_out",
    "modes_kept",
    "moving_baseline",
    "one_cycle",
    "parts_of",
    "policy_loss",
    "prefixed",
    "reestimated",
    "reward_accuracy",
    "sgd_step",
    "shapes_of",
    "stop_epoch",
    "unrolled",
]
