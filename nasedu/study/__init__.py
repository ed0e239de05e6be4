"""Was it worth it: recipes, records of what was run, the truth table, the course's studies, statistics."""

from nasedu.study import protocols, recipe, record, statistics, table_search, truth
from nasedu.study.planted import Planted, plant
from nasedu.study.protocols import (
    CELL_SEARCH,
    RETRAIN,
    SMALL_SPACE,
    STUDIES,
    blind,
    cells_of,
    shared_scores,
    train_cell,
)
from nasedu.study.recipe import Recipe, RecipeError
from nasedu.study.record import Record, RecordError, conduct, load, shipped, stamp, this_machine
from nasedu.study.statistics import (
    Interval,
    kendall_tau,
    mean_interval,
    noise_ceiling,
    student_interval,
    tau_interval,
)
from nasedu.study.table_search import incumbents, regret, regularised_evolution
from nasedu.study.truth import TruthError

__all__ = [
    "CELL_SEARCH",
    "Interval",
    "Planted",
    "RETRAIN",
    "Recipe",
    "RecipeError",
    "Record",
    "RecordError",
    "SMALL_SPACE",
    "STUDIES",
    "TruthError",
    "blind",
    "cells_of",
    "conduct",
    "incumbents",
    "kendall_tau",
    "load",
    "mean_interval",
    "noise_ceiling",
    "plant",
    "protocols",
    "recipe",
    "record",
    "regret",
    "regularised_evolution",
    "shared_scores",
    "shipped",
    "stamp",
    "student_interval",
    "statistics",
    "table_search",
    "tau_interval",
    "this_machine",
    "train_cell",
    "truth",
]
