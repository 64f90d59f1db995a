"""Optimizers with torch.optim's classes, arguments and state names, each made from a rule but LBFGS."""

from stepwell.optim.adadelta import Adadelta
from stepwell.optim.adagrad import Adagrad
from stepwell.optim.adam import Adam, AdamW
from stepwell.optim.adamax import Adamax
from stepwell.optim.asgd import ASGD
from stepwell.optim.lbfgs import LBFGS
from stepwell.optim.momentum_displacement import MomentumDisplacement
from stepwell.optim.nadam import NAdam
from stepwell.optim.radam import RAdam
from stepwell.optim.rmsprop import RMSprop
from stepwell.optim.rprop import Rprop
from stepwell.optim.sgd import SGD
from stepwell.optim.sparse_adam import SparseAdam

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "MomentumDisplacement",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
]
