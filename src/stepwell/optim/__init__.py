"""Optimizers with torch.optim's classes, arguments and state names, each made from a rule."""

from stepwell.optim.adadelta import Adadelta
from stepwell.optim.adafactor import Adafactor
from stepwell.optim.adagrad import Adagrad
from stepwell.optim.adam import Adam, AdamW
from stepwell.optim.adam_then_sgd import AdamThenSGD
from stepwell.optim.adamax import Adamax
from stepwell.optim.adan import Adan
from stepwell.optim.ademamix import AdEMAMix
from stepwell.optim.asgd import ASGD
from stepwell.optim.clipping import clip_adaptive_, clip_norm_, clip_value_
from stepwell.optim.extras import Extras
from stepwell.optim.from_rule import from_rule
from stepwell.optim.gradient_centralization import GradientCentralization, centralized
from stepwell.optim.groups import decay_groups
from stepwell.optim.lamb import LAMB
from stepwell.optim.lars import LARS
from stepwell.optim.lbfgs import LBFGS
from stepwell.optim.lion import Lion
from stepwell.optim.lookahead import Lookahead
from stepwell.optim.max_norm import max_norm, max_norm_
from stepwell.optim.momentum_displacement import MomentumDisplacement
from stepwell.optim.muon import Muon
from stepwell.optim.muon_with_adamw import MuonWithAdamW
from stepwell.optim.nadam import NAdam
from stepwell.optim.negative_curvature import NegativeCurvature
from stepwell.optim.nesterov_classic import NesterovClassic
from stepwell.optim.newton import Newton
from stepwell.optim.prodigy import Prodigy
from stepwell.optim.radam import RAdam
from stepwell.optim.rms import RMS
from stepwell.optim.rmsprop import RMSprop
from stepwell.optim.rprop import Rprop
from stepwell.optim.saddle_free_newton import SaddleFreeNewton
from stepwell.optim.sam import SAM
from stepwell.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeRAdam, ScheduleFreeSGD
from stepwell.optim.sgd import SGD
from stepwell.optim.shampoo import Shampoo
from stepwell.optim.soap import SOAP
from stepwell.optim.sparse_adam import SparseAdam

__all__ = [
    "ASGD",
    "LAMB",
    "LARS",
    "LBFGS",
    "RMS",
    "SAM",
    "SGD",
    "SOAP",
    "AdEMAMix",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamThenSGD",
    "AdamW",
    "Adamax",
    "Adan",
    "Extras",
    "GradientCentralization",
    "Lion",
    "Lookahead",
    "MomentumDisplacement",
    "Muon",
    "MuonWithAdamW",
    "NAdam",
    "NegativeCurvature",
    "NesterovClassic",
    "Newton",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SaddleFreeNewton",
    "ScheduleFreeAdamW",
    "ScheduleFreeRAdam",
    "ScheduleFreeSGD",
    "Shampoo",
    "SparseAdam",
    "centralized",
    "clip_adaptive_",
    "clip_norm_",
    "clip_value_",
    "decay_groups",
    "from_rule",
    "max_norm",
    "max_norm_",
]
