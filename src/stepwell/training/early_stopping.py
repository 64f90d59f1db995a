"""Early stopping: the run ends once the validation loss has stopped falling."""

from __future__ import annotations

import math

from stepwell.recipe.training import EarlyStopping


class Patience:
    """Counts evaluations without a fall.

    A loss is lower where it is below (1 − threshold) · the lowest so far; one that is not finite never is.
    Losses are not negative. Source: Prechelt 1998, criterion UP with single evaluations for strips.
    """

    def __init__(self, config: EarlyStopping) -> None:
        self.config = config
        self.lowest, self.waited = math.inf, 0

    @property
    def spent(self) -> bool:
        """Whether there were as many in a row as `patience`."""
        return self.waited >= self.config.patience

    def look(self, loss: float) -> None:
        """Takes note of an evaluation."""
        if loss < (1 - self.config.threshold) * self.lowest:
            self.lowest, self.waited = loss, 0
        else:
            self.waited += 1

    def state_dict(self) -> dict[str, float]:
        """What it counts."""
        return {"lowest": self.lowest, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Goes on from there."""
        self.lowest, self.waited = state["lowest"], int(state["waited"])
