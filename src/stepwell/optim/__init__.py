"""Optimizers with torch.optim's classes, arguments and state names, each made from a rule."""

from stepwell.optim.adam import Adam, AdamW
from stepwell.optim.momentum_displacement import MomentumDisplacement
from stepwell.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "MomentumDisplacement"]
