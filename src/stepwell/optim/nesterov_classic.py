"""Nesterov's momentum in its classic form."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.nesterov_classic import NESTEROV_CLASSIC


class NesterovClassic(RuleOptimizer):
    """v ← ρ v − η ∇f(w + ρ v); w ← w + v, where the parameters hold ŵ = w + ρ v.

    lr: η ≥ 0. momentum: ρ in [0, 1), which must stay. weight_decay: adds weight_decay · ŵ to the gradient
    (coupled). maximize: climbs. See `Extras`. Differs from `SGD(momentum=ρ, nesterov=True)`, torch's, once
    the rate changes; torch.optim does not have it.
    """

    rules = (NESTEROV_CLASSIC,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        momentum: Number = 0.9,
        weight_decay: Number = 0.0,
        *,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, extras)
