"""What a run does at each point of its course: rate, momentum, average of the weights, early end."""

from __future__ import annotations

import math
from typing import Any

from stepwell.optim import configs as optimizers
from stepwell.recipe import Recipe
from stepwell.schedules import configs as schedules
from stepwell.training.averaging import Averaging
from stepwell.training.early_stopping import Patience


class Pace:
    """The parts of a run that follow from its place, and from what evaluations have shown.

    A place is the number of updates made; a budget in seconds has no last update, so that its places are
    thousandths of the budget. What the parts count is `state`: JSON, in every snapshot and checkpoint.
    """

    def __init__(self, recipe: Recipe, updates: int | None) -> None:
        scheduled, places = recipe.schedule, updates or 1000
        self.schedule = schedules.build(scheduled, recipe.optimizer.lr, places)
        self.momentum = scheduled.momentum(optimizers.momentum_of(recipe.optimizer), places)
        self.plateau = scheduled.watching()  # a factor of the rate
        average, stopping = recipe.training.average, recipe.training.early_stopping
        ends = schedules.cycle_ends(scheduled, places)
        self.averaging = None if average is None else Averaging(average, ends, places)
        self.patience = None if stopping is None else Patience(stopping)
        self._parts = {
            name: part
            for name, part in (
                ("plateau", self.plateau),
                ("averaging", self.averaging),
                ("patience", self.patience),
            )
            if part is not None
        }

    def rate(self, place: float) -> float:
        """The learning rate of the next update."""
        return self.schedule(place) * (1.0 if self.plateau is None else self.plateau.value)

    def look(self, loss: float) -> None:
        """Takes note of a validation loss; of one that is not finite, as infinite."""
        if self.plateau is not None:
            self.plateau.update(loss)
        if self.patience is not None:
            self.patience.look(loss)

    @property
    def ended_early(self) -> bool:
        """Whether the validation loss has stopped falling for as long as the recipe waits."""
        return self.patience is not None and self.patience.spent

    def state(self) -> dict[str, Any]:
        """What the parts count; JSON has no infinity."""
        return {
            name: {n: v if math.isfinite(v) else None for n, v in part.state_dict().items()}
            for name, part in self._parts.items()
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        for name, part in self._parts.items():
            part.load_state_dict({n: math.inf if v is None else v for n, v in state[name].items()})
