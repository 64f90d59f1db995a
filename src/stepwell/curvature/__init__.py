"""Curvature of a loss by products with its Hessian: products, Gauss–Newton, eigenpairs by Lanczos."""

from stepwell.curvature.gauss_newton import GaussNewton
from stepwell.curvature.lanczos import Eigenpairs, eigenpairs
from stepwell.curvature.products import Curvature

__all__ = ["Curvature", "Eigenpairs", "GaussNewton", "eigenpairs"]
