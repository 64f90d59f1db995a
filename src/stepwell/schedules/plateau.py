"""A value that is cut when a metric has stopped getting better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, SupportsFloat

from stepwell.errors import UserError
from stepwell.schedules.arguments import NOT_NEGATIVE, checked, number, one_of

_STATE = ("value", "best", "num_bad_epochs", "cooldown_counter")


class Plateau:
    """Multiplies the value by `factor` once more than `patience` updates in a row brought nothing better.

    Not a function of the step, but of the metrics it is told: `update(metric)` returns the value, and
    `plateau(step)` is today's value at any step, so that it stands where a schedule does.

    value: ≥ 0. mode: "min" where a lower metric is better, or "max". factor: in [0, 1). patience, cooldown:
    updates ≥ 0; for `cooldown` updates after a cut none is counted. threshold: ≥ 0; better than the best is
    a metric below best · (1 − threshold) (threshold_mode "rel") or below best − threshold ("abs"), with "max"
    above it with the other sign. min_lr: ≥ 0, the value goes no lower. eps: a cut by no more is not made.

    As `torch.optim.lr_scheduler.ReduceLROnPlateau`, also in two traps: NaN counts as not better, and "rel"
    is meant for metrics above 0 (for those below, with "min", a little worse counts as better).
    """

    @checked(
        value=NOT_NEGATIVE,
        mode=one_of("min", "max"),
        factor=number(least=0, below=1),
        patience=NOT_NEGATIVE,
        threshold=NOT_NEGATIVE,
        threshold_mode=one_of("rel", "abs"),
        cooldown=NOT_NEGATIVE,
        min_lr=NOT_NEGATIVE,
        eps=NOT_NEGATIVE,
    )
    def __init__(
        self,
        value: float,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.value, self.factor, self.min_lr, self.eps = value, factor, min_lr, eps
        self.mode, self.threshold, self.threshold_mode = mode, threshold, threshold_mode
        self.patience, self.cooldown = patience, cooldown
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = 0.0

    def __call__(self, step: float) -> float:
        return self.value

    def update(self, metric: SupportsFloat) -> float:
        """Takes the metric of an evaluation and returns the value from now on."""
        current = _metric(metric)
        if self._is_better(current):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            lower = max(self.value * self.factor, self.min_lr)
            if self.value - lower > self.eps:
                self.value = lower
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        return self.value

    def _is_better(self, metric: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        relative = self.threshold_mode == "rel"
        bar = self.best * (1 + sign * self.threshold) if relative else self.best + sign * self.threshold
        return metric > bar if self.mode == "max" else metric < bar

    def state_dict(self) -> dict[str, float]:
        """What `update` has changed: the value, the best metric and two counts."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from a saved state; factor, patience and the like stay as this object was made."""
        if not isinstance(state_dict, Mapping) or set(state_dict) != set(_STATE):
            raise UserError(f"this is not the state of a Plateau, which has {', '.join(_STATE)}")
        loaded = {"best": _metric(state_dict["best"])}
        for name in ("value", "num_bad_epochs", "cooldown_counter"):
            loaded[name] = NOT_NEGATIVE("state of Plateau", name, state_dict[name])
        vars(self).update(loaded)


def _metric(value: Any) -> float:
    """A metric as a float; a tensor of one element is one too."""
    try:
        if not isinstance(value, (str, bytes)):
            return float(value)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise UserError(f"Plateau: metric={value!r} cannot be used: give one number")
