"""Optimizers with torch.optim's classes, arguments and state names, each made from a rule."""

from stepwell.optim.adafactor import Adafactor
from stepwell.optim.adam import Adam, AdamW
from stepwell.optim.clipping import clip_adaptive_, clip_norm_, clip_value_
from stepwell.optim.gradient_centralization import GradientCentralization, centralized
from stepwell.optim.groups import decay_groups
from stepwell.optim.lamb import LAMB
from stepwell.optim.lars import LARS
from stepwell.optim.lookahead import Lookahead
from stepwell.optim.momentum_displacement import MomentumDisplacement
from stepwell.optim.muon import Muon
from stepwell.optim.sam import SAM
from stepwell.optim.sgd import SGD
from stepwell.optim.shampoo import Shampoo
from stepwell.optim.soap import SOAP

__all__ = [
    "LAMB",
    "LARS",
    "SAM",
    "SGD",
    "SOAP",
    "Adafactor",
    "Adam",
    "AdamW",
    "GradientCentralization",
    "Lookahead",
    "MomentumDisplacement",
    "Muon",
    "Shampoo",
    "centralized",
    "clip_adaptive_",
    "clip_norm_",
    "clip_value_",
    "decay_groups",
]
