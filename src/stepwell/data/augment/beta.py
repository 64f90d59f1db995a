"""The Beta distribution by its inverse, so that one uniform number gives one draw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CELLS = 8192
ERROR = 1e-6  # of a draw, at most, for alpha from 0.01 to 100; a test holds it


@dataclass(frozen=True)
class Quantiles:
    """λ with P(λ ≤ quantile(u)) = u for λ ~ Beta(α, α), from a table.

    The table is over w = (2u)^(1/α), u ≤ ½, in which the quantile is smooth: it starts as a multiple of
    w, where in u it starts as u^(1/α). Linear between its places; the upper half by symmetry. Tables and
    alphas of several members can be stacked.
    """

    table: Tensor  # (CELLS + 1,) float64
    alpha: float | Tensor

    @classmethod
    def of(cls, alpha: float, device: torch.device | None = None) -> Quantiles:
        """The table of this alpha, by SciPy's inverse of the incomplete beta function."""
        from scipy.special import betaincinv

        w = torch.linspace(0, 1, CELLS + 1, dtype=torch.float64)
        table = torch.from_numpy(betaincinv(alpha, alpha, (w**alpha / 2).numpy()))
        return cls(table.to(device), alpha)

    def __call__(self, u: Tensor) -> Tensor:
        """The quantile of each u in [0, 1), float64."""
        lower = torch.minimum(u, 1 - u)
        # A power by exp and log: torch's own rounds otherwise at another place in the batch.
        place = ((2 * lower).log() / self.alpha).exp() * CELLS
        cell = place.long().clamp(max=CELLS - 1)
        low, high = self.table[cell], self.table[cell + 1]
        quantile = low + (place - cell) * (high - low)
        return torch.where(u < 0.5, quantile, 1 - quantile)
