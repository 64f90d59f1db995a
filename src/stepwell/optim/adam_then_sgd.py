"""Adam, then SGD."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.shared_scalars import SharedScalars
from stepwell.rules.adam_then_sgd import ADAM_THEN_SGD


class AdamThenSGD(SharedScalars):
    """Adam until the rate that SGD would need for the same steps has settled, then SGD with that rate.

    lr: η ≥ 0, Adam's; after the switch it multiplies the rate found by today's η over that of the switch.
    betas: β1, β2 in [0, 1); β1 is also SGD's momentum. eps: ε ≥ 0. threshold: how near today's rate must be
    to its mean, ≥ 0: the paper's 1e-9 may never be met, 0 never switches. weight_decay: adds weight_decay · w
    to the gradient (coupled). maximize: climbs. See `Extras`.

    All parameters switch together, those of all groups: `state[p]["sgd_rate"]` is 0 until then. torch.optim
    does not have it. Source: Keskar & Socher 2017 (SWATS), Algorithm 1.
    """

    rules = (ADAM_THEN_SGD,)
    shared = ("updates", "estimate", "sgd_rate")

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-9,
        weight_decay: Number = 0.0,
        *,
        threshold: Number = 1e-9,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "threshold": threshold,
            "maximize": maximize,
        }
        super().__init__(params, defaults, extras)
