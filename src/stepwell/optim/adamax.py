"""Adamax."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.adamax import ADAMAX


class Adamax(RuleOptimizer):
    """w ← w − η m̂ / u, with m̂ the debiased moving average of g, and u ← max(β2 u, |g| + ε).

    lr: η ≥ 0. betas: β1, β2 in [0, 1). eps: ε ≥ 0. weight_decay: adds weight_decay · w to the gradient
    (coupled). maximize: climbs. foreach and capturable choose torch's kernels and have no effect here;
    differentiable is refused. As `torch.optim.Adamax`, its arguments in its order; besides them see
    `Extras`.
    """

    rules = (ADAMAX,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 2e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults, extras)
