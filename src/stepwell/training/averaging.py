"""Averages of the weights along a run: exponential, Polyak's, and stochastic weight averaging.

The optimizer keeps a ← ε a + (1 − ε) w in its own pass over memory; here is the ε of each update.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from stepwell.recipe.training import Average


class Averaging:
    """Which updates have a part in the average, and how large a one.

    At the n-th update after `start`:
    ema: ε = min(decay, (1 + n) / (10 + n)), so that a soon forgets where it began (as TensorFlow's).
    polyak: ε = 1 − 1/n, so that a is the mean of all weights since.
    swa: the same for the n-th end of a cycle of the rate, or of an epoch, and ε = 1 in between.
    Before the first point ε is 0, and a is w itself.

    Sources: Polyak & Juditsky 1992; Izmailov et al. 2018, algorithm 1.
    """

    def __init__(self, config: Average, ends: Sequence[float], places: int) -> None:
        """ends: places at which a cycle is complete, of `places` in all; none, and epochs count."""
        self.config, self.ends = config, ends
        self.start = (config.start or 0.0) * places
        self.points = 0  # in the average so far
        self.seen = 0  # cycles or epochs that were complete at the last update

    def kept(self, place: float, epochs: int) -> float:
        """The ε of the update that leads to this place, and to so many whole epochs; counts it."""
        begun = place > self.start
        if self.config.kind == "swa":
            # An end between two updates belongs to the one after it; the small number is for rounding.
            complete = bisect_right(self.ends, place + 1e-9) if self.ends else epochs
            new, self.seen = complete > self.seen, complete
            if not (new and begun):
                return 1.0 if self.points else 0.0
        elif not begun:
            return 0.0
        self.points += 1
        if self.config.kind == "ema":
            return min(self.config.decay or 0.0, (1 + self.points) / (10 + self.points))
        return 1 - 1 / self.points

    def state_dict(self) -> dict[str, float]:
        """What it counts."""
        return {"points": self.points, "seen": self.seen}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Goes on from there."""
        self.points, self.seen = int(state["points"]), int(state["seen"])
