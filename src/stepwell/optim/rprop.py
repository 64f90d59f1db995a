"""Rprop."""

from collections.abc import Iterable
from typing import Any, ClassVar, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.rprop import RPROP


class Rprop(RuleOptimizer):
    """w ← w − s sign(g), each weight's step s grown while its gradient keeps its sign and cut when it turns.

    lr: what s starts at, ≥ 0. etas: η⁻ in (0, 1), by which s is cut, and η⁺ > 1, by which it grows.
    step_sizes: the least and the largest s. maximize: climbs. foreach and capturable choose torch's
    kernels and have no effect here; differentiable is refused. As `torch.optim.Rprop`, its arguments in
    its order; besides them see `Extras`. The formula is at `stepwell.rules.rprop`.
    """

    rules = (RPROP,)
    spread: ClassVar = {"etas": ("eta_minus", "eta_plus"), "step_sizes": ("size_min", "size_max")}

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-2,
        etas: tuple[Number, Number] = (0.5, 1.2),
        step_sizes: tuple[Number, Number] = (1e-6, 50.0),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, extras)
