"""Optimizers whose rule has the weight decay in its own formula."""

from __future__ import annotations

from typing import Any

from stepwell.optim.optimizer import RuleOptimizer


class OwnDecay(RuleOptimizer):
    """Gives `weight_decay` to the rule, instead of folding it into the gradient.

    With `decoupled` it is taken out of the formula: w ← (1 − η · weight_decay) w before the rule.
    """

    def _named(self, values: dict[str, Any]) -> dict[str, Any]:
        return super()._named({**values, "weight_decay": 0.0} if values["decoupled"] else values)

    def _around(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return super()._around(group if group["decoupled"] else {**group, "weight_decay": 0.0})
