"""Optimizers with torch.optim's classes, arguments and state names, each made from a rule."""

from stepwell.optim.adafactor import Adafactor
from stepwell.optim.adam import Adam, AdamW
from stepwell.optim.lamb import LAMB
from stepwell.optim.lars import LARS
from stepwell.optim.momentum_displacement import MomentumDisplacement
from stepwell.optim.muon import Muon
from stepwell.optim.sgd import SGD
from stepwell.optim.shampoo import Shampoo
from stepwell.optim.soap import SOAP

__all__ = [
    "LAMB",
    "LARS",
    "SGD",
    "SOAP",
    "Adafactor",
    "Adam",
    "AdamW",
    "MomentumDisplacement",
    "Muon",
    "Shampoo",
]
