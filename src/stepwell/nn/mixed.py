"""The loss of mixed samples: any loss, at both targets."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stepwell.data.augment.partners import Mixed
from stepwell.errors import UserError
from stepwell.nn.losses import Loss


def mixed_loss(loss: Loss) -> Loss:
    """Returns (z, targets) → λ L(z, own) + (1 − λ) L(z, partner) for each sample, (B,); targets: a `Mixed`.

    Targets that are not mixed go to the loss as they are.

    loss: (z, y) → L for each sample, such as F.cross_entropy with reduction="none" (Zhang et al. 2018).
    For cross-entropy, plain and binary, this is L at the blended target, in which it is linear. For mse
    it is that and a constant, λ (1 − λ) (a − b)², so the gradient is the same.
    """

    def of_mixed(z: Tensor, y: Any) -> Tensor:
        if not isinstance(y, Mixed):
            return loss(z, y)
        own = loss(z, y.own)
        if own.shape != y.lam.shape:
            raise UserError(
                f"mixed_loss needs a loss for each sample, {tuple(y.lam.shape)}, and this one returns "
                f'{tuple(own.shape)}: build it with reduction="none"'
            )
        return y.lam * own + (1 - y.lam) * loss(z, y.partner)

    return of_mixed
