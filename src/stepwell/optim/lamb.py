"""LAMB."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.own_decay import OwnDecay
from stepwell.rules.lamb import LAMB as RULE


class LAMB(OwnDecay):
    """u = m̂ / (√v̂ + ε) + λ w; w ← w − η (‖w‖ / ‖u‖) u, with Adam's m̂ and v̂ and each tensor's norms.

    lr: η ≥ 0, the length of a step as a share of the tensor's. betas: β1, β2 in [0, 1). eps: ε ≥ 0.
    weight_decay: λ ≥ 0, inside u. maximize: climbs. See `Extras`. torch.optim does not have it. Source:
    You et al. 2020, Algorithm 2, with the defaults of the authors' code.
    """

    rules = (RULE,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-6,
        weight_decay: Number = 0.0,
        *,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, extras)
