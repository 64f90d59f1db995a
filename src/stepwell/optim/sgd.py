"""SGD, with or without momentum."""

from collections.abc import Iterable
from typing import Any, ClassVar

from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.momentum import MOMENTUM
from stepwell.rules.sgd import SGD as RULE


class SGD(RuleOptimizer):
    """w ← w − η g, or with momentum ρ: v ← ρ v + g; w ← w − η v.

    lr: η ≥ 0. momentum: ρ in [0, 1). weight_decay: adds weight_decay · w to the gradient (coupled).
    decay: subtracts lr · decay · w from the weight (decoupled). As `torch.optim.SGD`.
    """

    torch_arguments: ClassVar[dict[str, Any]] = {
        "dampening": 0,
        "nesterov": False,
        "maximize": False,
        "foreach": None,
        "differentiable": False,
        "fused": None,
    }

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "decay": decay}
        super().__init__(MOMENTUM if momentum else RULE, params, defaults)
