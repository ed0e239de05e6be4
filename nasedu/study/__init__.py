"""Was it worth it: recipes, recorded runs, the truth table, studies of many runs, and their statistics."""

from nasedu.study import protocols, recorded, retraining, statistics, study, table_search, truth
from nasedu.study.jobs import Settings, darts, enas
from nasedu.study.planted import Planted, plant
from nasedu.study.protocols import (
    CELL_SEARCH,
    RETRAIN,
    SMALL_SPACE,
    Protocol,
    cell_search,
    shared_scores,
    small_space,
)
from nasedu.study.recorded import Recorded, RecordedError, stamp, this_machine
from nasedu.study.retraining import Retraining, cells_of, retrain
from nasedu.study.statistics import Interval, kendall_tau, mean_interval, noise_ceiling, tau_interval
from nasedu.study.study import Study, StudyError, conduct
from nasedu.study.table_search import incumbents, regret, regularised_evolution
from nasedu.study.truth import TruthError

__all__ = [
    "CELL_SEARCH",
    "Interval",
    "Planted",
    "Protocol",
    "RETRAIN",
    "Recorded",
    "RecordedError",
    "Retraining",
    "SMALL_SPACE",
    "Settings",
    "Study",
    "StudyError",
    "TruthError",
    "cell_search",
    "cells_of",
    "conduct",
    "darts",
    "enas",
    "incumbents",
    "kendall_tau",
    "mean_interval",
    "noise_ceiling",
    "plant",
    "protocols",
    "recorded",
    "regret",
    "regularised_evolution",
    "retrain",
    "retraining",
    "shared_scores",
    "small_space",
    "stamp",
    "statistics",
    "study",
    "table_search",
    "tau_interval",
    "this_machine",
    "truth",
]
