"""NAdam."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.nadam import NADAM


class NAdam(RuleOptimizer):
    """Adam that steps by the gradient and by the momentum as it will be: Nesterov's look-ahead.

    lr: η ≥ 0. betas: β1, β2 in [0, 1). eps: ε ≥ 0, outside the root. weight_decay: adds weight_decay · w
    to the gradient (coupled); with decoupled_weight_decay=True, w ← (1 − η · weight_decay) w before the
    step. momentum_decay: ψ ≥ 0, how fast the momentum rises from β1/2 to β1. maximize: climbs. foreach
    and capturable choose torch's kernels and have no effect here; differentiable is refused. As
    `torch.optim.NAdam`, its arguments in its order; besides them see `Extras`. The formula is at
    `stepwell.rules.nadam`.
    """

    rules = (NADAM,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 2e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        momentum_decay: Number = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, extras)
