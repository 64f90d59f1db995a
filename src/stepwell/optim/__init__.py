"""Optimizers with torch.optim's classes, arguments and state names, each made from a rule."""

from stepwell.optim.adam import Adam, AdamW
from stepwell.optim.curvature import Curvature
from stepwell.optim.gauss_newton import GaussNewton
from stepwell.optim.lanczos import Eigenpairs, eigenpairs
from stepwell.optim.momentum_displacement import MomentumDisplacement
from stepwell.optim.negative_curvature import NegativeCurvature
from stepwell.optim.newton import Newton
from stepwell.optim.saddle_free_newton import SaddleFreeNewton
from stepwell.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Curvature",
    "Eigenpairs",
    "GaussNewton",
    "MomentumDisplacement",
    "NegativeCurvature",
    "Newton",
    "SaddleFreeNewton",
    "eigenpairs",
]
