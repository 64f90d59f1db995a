"""Saddle-free Newton (Dauphin et al. 2014)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from stepwell.curvature.lanczos import lanczos
from stepwell.curvature.products import LIMIT, Curvature
from stepwell.curvature.spectrum import through_spectrum
from stepwell.optim.checked import Number
from stepwell.optim.second_order import Closure, SecondOrder, check_count


class SaddleFreeNewton(SecondOrder):
    """w ← w − η (|H| + λI)⁻¹ g, where |H| is H with the absolute values of its eigenvalues.

    A saddle repels it, where it attracts Newton's method. Above 2,000 parameters |H| is taken in the
    Krylov space of k Lanczos vectors, Q (k, n), from g:

        w ← w − η Qᵀ (|Q H Qᵀ| + λI)⁻¹ Q g

    lr: η ≥ 0, default 1. damping: λ ≥ 0, default 1e-3; with 0, directions that are flat within rounding
    are left alone. k: None, the default, is the whole H up to 2,000 parameters and 30 vectors above; a
    number is that many vectors at any size. search: True, the default, halves a step until the loss falls
    by 1e-4 of what its slope promises; False is the formula as it stands.

    Cost of an update: a gradient, n products (with n³ operations) or k, and with `search` a loss or more.
    Source: Dauphin et al. 2014, algorithm 1. Differences: the space starts at g, which it therefore
    contains, and the last update's direction is not added to it; λ is given, not searched.
    Trap: exactly at a saddle g is 0, and so is the step: NegativeCurvature leaves it.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1.0,
        damping: Number = 1e-3,
        *,
        k: int | None = None,
        search: bool = True,
    ) -> None:
        super().__init__(params, {"lr": lr, "damping": damping, "k": k, "search": search})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        if group["k"] is not None:
            check_count("k", group["k"])

    def change(self, at: Curvature, closure: Closure) -> Tensor:
        group, g = self.param_groups[0], at.gradient
        damping, k = float(group["damping"]), group["k"]
        if k is None and g.numel() <= LIMIT:
            d = -through_spectrum(at.matrix(), g, lambda values: values.abs() + damping)
        elif float(g.norm()) == 0:
            d = g
        else:
            *_, (Q, T, _) = lanczos(at.product, g, k or 30)
            d = -Q.T @ through_spectrum(T.to(g), Q @ g, lambda values: values.abs() + damping)
        return self.along(d, at, closure)
