"""Adafactor."""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, ClassVar, Unpack

from torch import Tensor

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.optim.own_decay import OwnDecay
from stepwell.rules import Rule
from stepwell.rules.adafactor import ADAFACTOR, ADAFACTOR_EPS

MATRIX, VECTOR = {"row_var", "col_var"}, {"variance"}


class Adafactor(OwnDecay):
    """w ← w − α u / max(1, rms(u) / d), with u = g / √v, v kept by rows and columns of a matrix, and
    α = max(ε2, rms(w)) · min(η, 1/√t).

    lr: η ≥ 0, the largest relative step; also the rate of the decay w ← (1 − η · weight_decay) w.
    beta2_decay: τ ≤ 0, v's share of the past is 1 − t^τ. eps: (ε1, ε2); ε1 None is the precision of the
    weights' type, of float32 for half precision. d: ≥ 1, the largest rms of u. maximize: climbs. foreach
    chooses torch's kernels and has no effect here. As `torch.optim.Adafactor`, its arguments in its order;
    besides them see `Extras`. Source: Shazeer & Stern 2018; how this form differs is in the rule's text.
    """

    rules = (ADAFACTOR, ADAFACTOR_EPS)
    spread: ClassVar = {"eps": ("eps1", "eps2")}
    ranges: ClassVar = {"eps": ((0.0, math.inf, True), (0.0, math.inf))}  # the first can be None

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-2,
        beta2_decay: Number = -0.8,
        eps: tuple[Number | None, Number] = (None, 1e-3),
        d: Number = 1.0,
        weight_decay: Number = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults, extras)

    def rule_of(self, group: dict[str, Any]) -> Rule:
        return ADAFACTOR if group["eps"][0] is None else ADAFACTOR_EPS

    @property
    def state(self) -> defaultdict[Tensor, dict[str, Any]]:  # type: ignore[override]
        """As torch's: a matrix has row_var and col_var, anything else variance."""
        told = super().state
        for p, values in told.items():
            for name in VECTOR if p.dim() > 1 else MATRIX:
                values.pop(name, None)
        return told

    @state.setter
    def state(self, value: defaultdict[Tensor, dict[str, Any]]) -> None:
        RuleOptimizer.state.fset(self, value)  # type: ignore[attr-defined]

    def _check_state(self, names: set[str], rule: Rule) -> None:
        if names not in (MATRIX, VECTOR):
            super()._check_state(names, rule)
