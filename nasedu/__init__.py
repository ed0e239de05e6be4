"""nasedu: neural architecture search, built step by step. An architecture is a matrix; see the notebooks."""

from nasedu.baselines import RandomSearch
from nasedu.candidates import reward_accuracy
from nasedu.cells import Cell, DerivedCell
from nasedu.choice import ArchError, InputChoice, LayerChoice, check_arch, choices, points, random_arch
from nasedu.controller import ENAS_OPS, Controller
from nasedu.darts import DartsTrainer
from nasedu.data import Augment, ImageDataset, batches, get_dataset
from nasedu.derive import describe, discretise, read
from nasedu.enas import EnasTrainer
from nasedu.evaluation import accuracy, batch_statistics, evaluate
from nasedu.genotype import PUBLISHED, Genotype, GenotypeError, edges
from nasedu.history import History
from nasedu.macro import MACRO_OPS, MacroCNN
from nasedu.network import CNN, Network, n_parameters, uniform_arch
from nasedu.ops import PRIMITIVES, make_op, register
from nasedu.reinforce import advantages, moving_baseline, policy_loss
from nasedu.training import Trainer

__version__ = "0.1.0"
