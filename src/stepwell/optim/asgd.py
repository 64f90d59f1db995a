"""ASGD."""

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.asgd import ASGD as AVERAGED


class ASGD(RuleOptimizer):
    """w ← (1 − λ η) w − η g with a falling rate η, and the average of w from step t0 on as the state `ax`.

    lr: the rate at first, ≥ 0; after step t it is lr / (1 + λ lr t)^α. lambd: λ ≥ 0. alpha: α ≥ 0. t0: the
    step at which the averaging begins. weight_decay: adds weight_decay · w to the gradient (coupled).
    maximize: climbs. foreach and capturable choose torch's kernels and have no effect here;
    differentiable is refused. As `torch.optim.ASGD`, its arguments in its order; besides them see
    `Extras`, of which `ema` averages with a fixed share.
    """

    rules = (AVERAGED,)
    ranges: ClassVar = {"alpha": (0.0, math.inf)}

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-2,
        lambd: Number = 1e-4,
        alpha: Number = 0.75,
        t0: Number = 1e6,
        weight_decay: Number = 0.0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults, extras)
