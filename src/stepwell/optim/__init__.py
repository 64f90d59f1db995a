"""Optimizers with torch.optim's classes, arguments and state names, each made from a rule."""

from stepwell.optim.adadelta import Adadelta
from stepwell.optim.adagrad import Adagrad
from stepwell.optim.adam import Adam, AdamW
from stepwell.optim.adam_then_sgd import AdamThenSGD
from stepwell.optim.adamax import Adamax
from stepwell.optim.adan import Adan
from stepwell.optim.ademamix import AdEMAMix
from stepwell.optim.asgd import ASGD
from stepwell.optim.lion import Lion
from stepwell.optim.momentum_displacement import MomentumDisplacement
from stepwell.optim.nadam import NAdam
from stepwell.optim.nesterov_classic import NesterovClassic
from stepwell.optim.prodigy import Prodigy
from stepwell.optim.radam import RAdam
from stepwell.optim.rms import RMS
from stepwell.optim.rmsprop import RMSprop
from stepwell.optim.rprop import Rprop
from stepwell.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeRAdam, ScheduleFreeSGD
from stepwell.optim.sgd import SGD
from stepwell.optim.sparse_adam import SparseAdam

__all__ = [
    "ASGD",
    "RMS",
    "SGD",
    "AdEMAMix",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamThenSGD",
    "AdamW",
    "Adamax",
    "Adan",
    "Lion",
    "MomentumDisplacement",
    "NAdam",
    "NesterovClassic",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeRAdam",
    "ScheduleFreeSGD",
    "SparseAdam",
]
