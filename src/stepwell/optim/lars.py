"""LARS."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.own_decay import OwnDecay
from stepwell.rules.lars import LARS as RULE


class LARS(OwnDecay):
    """r = κ ‖w‖ / (‖g‖ + λ ‖w‖); v ← ρ v + η r (g + λ w); w ← w − v, with each tensor's norms.

    lr: η ≥ 0. momentum: ρ in [0, 1). weight_decay: λ ≥ 0. trust_coefficient: κ ≥ 0. maximize: climbs.
    The usual choice is κ = 0.001 for matrices and plain momentum for biases and norms: give those
    to an `SGD` of their own. See `Extras`. torch.optim does not have it. Source: You et al. 2017,
    Algorithm 1; there λ is 0.0005.
    """

    rules = (RULE,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1.0,
        momentum: Number = 0.9,
        weight_decay: Number = 0.0,
        trust_coefficient: Number = 1e-3,
        *,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "maximize": maximize,
        }
        super().__init__(params, defaults, extras)
