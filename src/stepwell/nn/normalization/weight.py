"""Weight normalization (Salimans & Kingma 2016)."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Layer = TypeVar("Layer", bound=nn.Module)


class WeightNorm(nn.Module):
    """w = g v / ‖v‖ for each unit (first dimension): length and direction are trained apart.

    Two weights, g `original0` (U, 1, …) and v `original1` (U, …), as torch's
    `parametrizations.weight_norm`. A unit that is set to zero has g = 0 and a direction, where torch's
    would be NaN. Traps: the gradient of v stands at a right angle to it, so ‖v‖ only grows, and its rate
    falls; weight decay of v changes that rate and not w, decay of g does what decay of w would. Source:
    Salimans & Kingma 2016, eq. 2 and 3.
    """

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return v * (g / _length(v))

    def right_inverse(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """g and v of a given w: assigning to `layer.weight` comes here."""
        length = _length(w)
        return length, torch.where(length > 0, w, 1.0)


def _length(v: Tensor) -> Tensor:
    """√Σv² of each unit, (U, 1, …)."""
    return v.flatten(1).norm(dim=1).view(-1, *[1] * (v.dim() - 1))


def weight_norm(layer: Layer, name: str = "weight") -> Layer:
    """Puts `WeightNorm` on the layer's weight, whose value stays as it is; returns the layer.

    >>> sorted(name for name, _ in weight_norm(nn.Linear(3, 2)).named_parameters())
    ['bias', 'parametrizations.weight.original0', 'parametrizations.weight.original1']
    """
    parametrize.register_parametrization(layer, name, WeightNorm(), unsafe=True)
    return layer
