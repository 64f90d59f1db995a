"""A step that is halved until the loss falls enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stepwell.curvature.products import Curvature, evaluate

HALVINGS = 30


def halved(
    at: Curvature, closure: Callable[[], Any], change: Tensor, enough: Callable[[float], float]
) -> Tensor | None:
    """α · change with the first α of 1, ½, ¼, … for which f(w + α · change) ≤ f(w) + enough(α).

    None if 30 halvings are not enough. The weights are bit for bit what they were, also when the closure
    fails. A loss that is not finite is too high.
    """
    weights, before, alpha = [p.detach().clone() for p in at.parameters], float(at.loss), 1.0
    for _ in range(HALVINGS):
        try:
            move(at, alpha * change)
            loss = float(evaluate(closure).detach())
        finally:
            with torch.no_grad():
                for p, w in zip(at.parameters, weights, strict=True):
                    p.copy_(w)
        if loss <= before + enough(alpha):
            return alpha * change
        alpha /= 2
    return None


def move(at: Curvature, change: Tensor) -> None:
    """w ← w + change."""
    with torch.no_grad():
        for p, part in zip(at.parameters, at.parts(change), strict=True):
            p.add_(part)
