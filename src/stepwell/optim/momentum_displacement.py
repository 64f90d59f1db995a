"""Momentum in the displacement form."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.momentum_displacement import MOMENTUM_DISPLACEMENT


class MomentumDisplacement(RuleOptimizer):
    """m ← λ m − η g; w ← w + m.

    lr: η ≥ 0. momentum: λ in [0, 1). weight_decay: as in `SGD`; see `Extras`. Differs from `SGD(momentum=λ)`
    once the rate changes; torch.optim does not have it.
    """

    rules = (MOMENTUM_DISPLACEMENT,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        momentum: Number = 0.9,
        weight_decay: Number = 0.0,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults, extras)
