"""Adadelta."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.adadelta import ADADELTA


class Adadelta(RuleOptimizer):
    """w ← w − η √(D + ε) / √(G + ε) · g, with G and D the moving averages of g² and of the squared steps.

    lr: η ≥ 0, 1 in the paper. rho: what the averages keep, in [0, 1). eps: ε ≥ 0, inside both roots.
    weight_decay: adds weight_decay · w to the gradient (coupled). maximize: climbs. foreach and
    capturable choose torch's kernels and have no effect here; differentiable is refused. As
    `torch.optim.Adadelta`, its arguments in its order; besides them see `Extras`.
    """

    rules = (ADADELTA,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1.0,
        rho: Number = 0.9,
        eps: Number = 1e-6,
        weight_decay: Number = 0.0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "capturable": capturable,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, extras)
