"""The loss of mixed samples: any loss, at both targets."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stepwell.data.augment.partners import Mixed
from stepwell.nn.losses import Loss


def mixed_loss(loss: Loss) -> Loss:
    """Returns (z, targets) → λ L(z, own) + (1 − λ) L(z, partner) for each sample, (B,); targets: a `Mixed`.

    loss: (z, y) → L for each sample, such as F.cross_entropy with reduction="none" (Zhang et al. 2018).
    For cross-entropy, plain and binary, this is L at the blended target, in which it is linear. For mse
    it is that and a constant, λ (1 − λ) (a − b)², so the gradient is the same.
    """

    def of_mixed(z: Tensor, y: Any) -> Tensor:
        assert isinstance(y, Mixed)
        return y.lam * loss(z, y.own) + (1 - y.lam) * loss(z, y.partner)

    return of_mixed
