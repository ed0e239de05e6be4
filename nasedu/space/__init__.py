"""What can be searched: operations, decision points, cells, networks, and the genotypes that come of them."""

from nasedu.space import small
from nasedu.space.cells import CNN, Cell, MixedEdge, PartialEdge, mixed_edge, shuffled
from nasedu.space.choice import (
    Arch,
    ArchError,
    InputChoice,
    LayerChoice,
    Sampled,
    check_arch,
    check_shapes,
    choices,
    points,
    random_arch,
)
from nasedu.space.derive import describe, discretise, read
from nasedu.space.fast_ops import AvgPool, DilatedConv, FactorizedReduce, MaxPool, ReLU, once
from nasedu.space.genotype import PUBLISHED, Genotype, GenotypeError, edges
from nasedu.space.macro import MACRO_OPS, MacroCNN, MacroLayer
from nasedu.space.network import AuxiliaryHead, DerivedCell, Network, drop, n_parameters, uniform_arch
from nasedu.space.ops import PRIMITIVES, Zero, known, make_op, register, relu_conv_bn
from nasedu.space.small import SmallCNN

__all__ = [
    "Arch",
    "ArchError",
    "AuxiliaryHead",
    "AvgPool",
    "CNN",
    "Cell",
    "DerivedCell",
    "DilatedConv",
    "FactorizedReduce",
    "Genotype",
    "GenotypeError",
    "InputChoice",
    "LayerChoice",
    "MACRO_OPS",
    "MacroCNN",
    "MacroLayer",
    "MaxPool",
    "MixedEdge",
    "Network",
    "PRIMITIVES",
    "PUBLISHED",
    "PartialEdge",
    "ReLU",
    "Sampled",
    "SmallCNN",
    "Zero",
    "check_arch",
    "check_shapes",
    "choices",
    "describe",
    "discretise",
    "drop",
    "edges",
    "known",
    "make_op",
    "mixed_edge",
    "n_parameters",
    "once",
    "points",
    "random_arch",
    "read",
    "register",
    "relu_conv_bn",
    "shuffled",
    "small",
    "uniform_arch",
]
