"""Gradient centralization: each unit's gradient without its mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stepwell.optim.wrapper import Wrapper


def centralized(gradient: Tensor) -> Tensor:
    """g − mean(g) for each row of a matrix or filter of a convolution; vectors and scalars as they are.

    Returns a new tensor, or `gradient` itself where nothing is to be done.

    Source: Yong et al. 2020, eq. 1; units are the first dimension, as torch's layers have it.
    """
    if gradient.dim() < 2:
        return gradient
    return gradient - gradient.mean(dim=tuple(range(1, gradient.dim())), keepdim=True)


class GradientCentralization(Wrapper):
    """Gives the base centralized gradients: g ← g − mean(g), unit by unit (see `centralized`).

    base: any torch optimizer. Weights of a unit then keep their sum. `p.grad` itself stays as it is. What
    the base adds to the gradient, weight decay say, is not centralized.

    Source: Yong et al. 2020, Algorithm 1.
    """

    key = "gradient_centralization"

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Makes the base's step with centralized gradients; returns what the base returns."""
        own: dict[Tensor, tuple[Tensor, Tensor]] = {}  # a parameter's gradient, and what stands in for it

        def centralize() -> None:
            with torch.no_grad():
                for p in self.parameters():
                    if p.grad is not None and p.grad.dim() > 1:
                        own[p] = p.grad, centralized(p.grad)
                        p.grad = own[p][1]

        def put_back() -> None:
            for p, (gradient, stand_in) in own.items():
                if p.grad is stand_in:
                    p.grad = gradient
            own.clear()

        def evaluate() -> Any:
            put_back()  # a base may evaluate more than once
            assert closure is not None
            with torch.enable_grad():
                loss = closure()
            centralize()
            return loss

        try:
            if closure is not None:
                return self.base.step(evaluate)
            centralize()
            return self.base.step()
        finally:
            put_back()
