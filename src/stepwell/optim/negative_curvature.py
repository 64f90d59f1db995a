"""Gradient descent that leaves saddle points along their negative curvature."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from stepwell.curvature.lanczos import eigenpairs
from stepwell.curvature.products import Curvature
from stepwell.optim.backtracking import halved
from stepwell.optim.checked import Number
from stepwell.optim.second_order import Closure, SecondOrder, check_count


class NegativeCurvature(SecondOrder):
    """w ← w − η g; where ‖g‖ ≤ `small` and the smallest eigenvalue λ of H is negative, w ← w + α v.

    v is λ's eigenvector, ‖v‖ = 1, signed so that gᵀv ≤ 0: both terms of the model

        f(w + α v) ≈ f(w) + α gᵀv + ½ α² λ

    fall. α is `length`, halved until the loss falls by a tenth of what the model says (30 times at most,
    then it is a gradient step). λ counts as negative below −√(machine precision) · max |θ|.

    lr: η ≥ 0, default 0.1. small: ≥ 0, default 1e-3. length: above 0, default 1. steps: the most Lanczos
    products in an update, default 30. seed: of Lanczos' random start; updates draw different ones.
    After an update `eigenvalue` is λ, or None if it was not looked for, and `escaped` says which step it was.

    Cost of an update: a gradient; where it is small, up to `steps` products and some losses.
    Source: the lectures' "escape along the eigenvector"; Goldfarb 1980 for the condition on α.
    Trap: the closure runs again for each α: it must give the same loss at the same weights.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 0.1,
        *,
        small: Number = 1e-3,
        length: Number = 1.0,
        steps: int = 30,
        seed: int = 0,
    ) -> None:
        self.eigenvalue: float | None = None
        self.escaped = False
        super().__init__(params, {"lr": lr, "small": small, "length": length, "steps": steps, "seed": seed})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        check_count("steps", group["steps"])
        check_count("seed", group["seed"], least=0)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.eigenvalue, self.escaped = None, False
        super().__setstate__(state)

    def change(self, at: Curvature, closure: Closure) -> Tensor:
        group, g = self.param_groups[0], at.gradient
        self.eigenvalue, self.escaped = None, False
        if float(g.norm()) <= float(group["small"]):
            found = eigenpairs(
                at.product, g, steps=group["steps"], tolerance=0.01, seed=group["seed"] + self.updates
            )
            self.eigenvalue, v = float(found.values[0]), found.vectors[0]
            if self.eigenvalue < -(torch.finfo(g.dtype).eps ** 0.5) * float(found.values.abs().max()):
                away = self._escape(at, closure, v * (-1.0 if float(g @ v) > 0 else 1.0))
                if away is not None:
                    self.escaped = True
                    return away
        return -self.rates(at) * g

    def _escape(self, at: Curvature, closure: Closure, v: Tensor) -> Tensor | None:
        """α v; None if no α lowers the loss enough."""
        length = float(self.param_groups[0]["length"])
        slope, curvature = float(at.gradient @ v) * length, float(self.eigenvalue or 0) * length**2
        return halved(at, closure, length * v, lambda a: 0.1 * (a * slope + 0.5 * a**2 * curvature))
