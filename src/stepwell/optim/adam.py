"""Adam."""

from collections.abc import Iterable
from typing import Any, Never

from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.adam import ADAM


class Adam(RuleOptimizer):
    """w ← w − η m̂ / (√v̂ + ε), with the moving means m of g and v of g², both debiased.

    lr: η ≥ 0. betas: β1, β2 in [0, 1). eps: ε ≥ 0, outside the root. weight_decay: adds
    weight_decay · w to the gradient (coupled). decay: subtracts lr · decay · w from the weight
    (decoupled: AdamW); decoupled_weight_decay=True takes weight_decay as `decay`. foreach, fused and
    capturable choose torch's kernels and have no effect here; the others are refused except at their
    defaults. As `torch.optim.Adam`, its arguments in its order.
    """

    rules = (ADAM,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        decay: float = 0.0,
        **unknown: Never,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
            "decay": decay,
        }
        super().__init__(params, defaults, unknown)
