"""A member of a population, and how its training ended."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from stepwell.data.dataset import DataSet
from stepwell.recipe import Recipe


@dataclass(frozen=True)
class Member:
    """One training: a recipe that `recipe.resolve` has decided for this data.

    Members may share one `DataSet`, which is then in memory once, or have a part of their own each (folds).
    """

    recipe: Recipe
    data: DataSet


@dataclass
class Outcome:
    """How a member's training ended; what `stepwell train` would say of the same recipe.

    updates, epochs: as far as it came. diverged: the first update whose loss, gradient or weights were
    not finite, where it ended; None if all were. A member is not rolled back, as a run of its own is: a rate
    that fails is to be seen to fail. stopped_at: the update at which it was given up for worse than others.
    ended_early: by training.early_stopping.
    curve: a row for each evaluation: {"update", "epoch", "loss": mean training loss since the last row,
    "validation": {"loss", the task's first metric} or {} where not finite}.
    delivered: "last" or "best" weights, chosen as `stepwell train` does. best: {"update", "loss"}.
    validation, test: loss and first metrics of the delivered weights; {} without such a part, or diverged.
    how: "stacked" or "alone". weights: the delivered state dict of the member's `Network`, if asked for.
    """

    updates: int
    epochs: float
    diverged: int | None = None
    stopped_at: int | None = None
    ended_early: bool = False
    curve: list[dict[str, Any]] = field(default_factory=list)
    delivered: str = "last"
    best: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    how: str = "alone"
    weights: dict[str, Tensor] | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything but the weights."""
        weights, self.weights = self.weights, None
        try:
            return {name: value for name, value in asdict(self).items() if name != "weights"}
        finally:
            self.weights = weights


def newest_loss(outcome: Outcome) -> float:
    """The validation loss of its last evaluation; NaN where that was not finite, or there was none."""
    return outcome.curve[-1]["validation"].get("loss", math.nan) if outcome.curve else math.nan
