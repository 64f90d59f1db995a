"""Momentum in the displacement form."""

from collections.abc import Iterable
from typing import Any, Never

from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.momentum_displacement import MOMENTUM_DISPLACEMENT


class MomentumDisplacement(RuleOptimizer):
    """m ← λ m − η g; w ← w + m.

    lr: η ≥ 0. momentum: λ in [0, 1). weight_decay, decay: as in `SGD`. Differs from `SGD(momentum=λ)`
    once the rate changes; torch.optim does not have it.
    """

    rules = (MOMENTUM_DISPLACEMENT,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        decay: float = 0.0,
        **unknown: Never,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "decay": decay}
        super().__init__(params, defaults, unknown)
