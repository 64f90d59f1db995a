"""Optimizers whose rule keeps numbers that belong to all parameters together."""

from __future__ import annotations

from typing import Any, ClassVar

from stepwell.optim.optimizer import RuleOptimizer


class SharedScalars(RuleOptimizer):
    """Every parameter keeps a copy of the `shared` numbers, and all with a gradient move theirs alike.

    A parameter that had no gradient, or came later, takes over the copy of one with the most updates before
    the next. The first of `shared` counts the updates that a copy has seen.
    """

    shared: ClassVar[tuple[str, ...]]

    def _forget(self) -> None:
        super()._forget()
        self._apart = True  # whether copies may differ

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._apart = True

    def _run(self, engines: list[Any], gradients: list[Any], norm: Any, unscale: Any) -> list[Any]:
        if self._apart:
            states = [state for engine in engines for state in engine.state]
            most = max(states, key=lambda state: float(state[self.shared[0]]), default={})
            for state in states:
                for name in self.shared:
                    state[name].copy_(most[name])
        self._apart = any(g is None for own in gradients for g in own)
        return super()._run(engines, gradients, norm, unscale)
