"""Weighted means of two samples."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.data.augment.beta import Quantiles
from stepwell.data.augment.draws import Draws, Stream, computed, of_each, returned


def mixup(
    x: Tensor, other: Tensor, draws: Draws, *, alpha: Quantiles, share: float | Tensor = 1.0
) -> tuple[Tensor, Tensor]:
    """Zhang et al. 2018: x̃ = λ x + (1 − λ) x', λ ~ Beta(α, α) for each sample; returns x̃ and λ (B,).

    other: x', the samples' partners (see `partners`). share: of the samples; the others have λ = 1.
    x: (B, …) of any shape. Returns float32 for uint8, else x's type, and λ in the type computed in. The
    paper draws one λ a batch. E[λ] = ½, Var[λ] = 1 / (4 (2α + 1)).
    """
    lam = torch.where(draws.uniform(Stream.MIXUP_SHARE) < share, alpha(draws.uniform(Stream.MIXUP)), 1)
    values = computed(x)
    lam = lam.to(values.dtype)
    weight = of_each(lam, x)
    return returned(weight * values + (1 - weight) * computed(other), x), lam
