"""The learning rates of a stack's members, update by update, and what else has a course."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stepwell.populations.updates import Now
from stepwell.recipe import Recipe
from stepwell.training.pace import Pace

AHEAD = 512  # updates whose rates are computed at once


class Rates:
    """Asks each member's `Pace`; members with the same schedule and rate are asked once."""

    def __init__(self, recipes: Sequence[Recipe], end: int) -> None:
        self.paces, self.end = [Pace(recipe, end) for recipe in recipes], end
        self.keys = [f"{r.schedule.model_dump_json()} {r.optimizer.lr!r}" for r in recipes]
        self._look()
        self._table: tuple[int, Tensor] | None = None

    def _look(self) -> None:
        self.has_momentum = any(pace.momentum is not None for pace in self.paces)
        self.has_average = any(pace.averaging is not None for pace in self.paces)
        self.has_plateau = any(pace.plateau is not None for pace in self.paces)

    def at(self, update: int, updates_per_epoch: int) -> Now:
        """Those of the next update; called once an update, since averages count."""
        rates = self._scheduled(update)
        if self.has_plateau:
            factors = [1.0 if pace.plateau is None else pace.plateau.value for pace in self.paces]
            rates = rates * torch.tensor(factors, dtype=torch.float64)
        nothing: list[float | None] = [None] * len(self.paces)
        momentum = kept = nothing
        if self.has_momentum:
            momentum = [None if pace.momentum is None else pace.momentum(update) for pace in self.paces]
        if self.has_average:
            there, epochs = update + 1, (update + 1) // updates_per_epoch
            averages = [pace.averaging for pace in self.paces]
            kept = [None if average is None else average.kept(there, epochs) for average in averages]
        return Now(rates, momentum, kept)

    def _scheduled(self, update: int) -> Tensor:
        """The schedules' rates, (K,) float64."""
        first = update // AHEAD * AHEAD
        if self._table is None or self._table[0] != first:
            places = range(first, min(first + AHEAD, self.end))
            columns: dict[str, list[float]] = {}
            for key, pace in zip(self.keys, self.paces, strict=True):
                if key not in columns:
                    columns[key] = [pace.schedule(place) for place in places]
            every = [columns[key] for key in self.keys]
            self._table = first, torch.tensor(every, dtype=torch.float64).T.contiguous()
        return self._table[1][update - first]

    def keep(self, rows: list[int]) -> None:
        """Goes on with these members alone."""
        self.paces, self.keys = [self.paces[row] for row in rows], [self.keys[row] for row in rows]
        self._table = None
        self._look()
