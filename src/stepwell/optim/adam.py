"""Adam."""

from collections.abc import Iterable
from typing import Any, ClassVar

from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.adam import ADAM


class Adam(RuleOptimizer):
    """w ← w − η m̂ / (√v̂ + ε), with the moving means m of g and v of g², both debiased.

    lr: η ≥ 0. betas: β1, β2 in [0, 1). eps: ε ≥ 0, outside the root. weight_decay: adds
    weight_decay · w to the gradient (coupled). decay: subtracts lr · decay · w from the weight
    (decoupled: AdamW). As `torch.optim.Adam`.
    """

    torch_arguments: ClassVar[dict[str, Any]] = {
        "amsgrad": False,
        "maximize": False,
        "foreach": None,
        "capturable": False,
        "differentiable": False,
        "fused": None,
        "decoupled_weight_decay": False,
    }

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "decay": decay}
        super().__init__(ADAM, params, defaults)
