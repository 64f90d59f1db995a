"""What a line of metrics.jsonl says of single layers: norms of weights, shares of units that hardly learn."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from stepwell.nn.gradient_flow import norms
from stepwell.training.run import Run

SPACING = 50  # updates at least from one look at the units to the next


class GradientFlow:
    """Describes an update by layer: `looking` during its forward pass, `keep` before it, `row` after it.

    Whether the units are looked at is decided by the update's number alone, and what is kept of them from
    update to update, `run.units`, is part of the checkpoint: so lines are the same in every repetition.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._before: list[Tensor] = []  # weights before an update whose size is to be measured
        self._gradients: list[Tensor] = []
        self._looked = False

    def looking(self) -> AbstractContextManager[None]:
        """Around forward and backward of the next update: looks at its units, if it is this one's turn."""
        self._looked = self._is_due(self.run.update + 1)
        return self.run.units.watching(self.run.network) if self._looked else nullcontext()

    def keep(self) -> None:
        """Keeps the gradients and the weights before the update."""
        parameters = self.run.parameters.values()
        self._before = [p.detach().clone() for p in parameters]
        self._gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]

    def row(self) -> dict[str, Any]:
        """What the line of the update gets, after it: "layers" and "units", as far as they were looked at."""
        found: dict[str, Any] = {}
        if self._before:
            after = [p.detach() for p in self.run.parameters.values()]
            found["layers"] = norms(list(self.run.parameters), self._gradients, self._before, after)
        if self._looked:
            units = self.run.units.commit()
            if units:
                found["units"] = units
        self.forget()
        return found

    def forget(self) -> None:
        """Drops an update that is rolled back."""
        self._before, self._gradients, self._looked = [], [], False
        self.run.units.discard()

    def _is_due(self, update: int) -> bool:
        """The first line, then those at least SPACING updates apart, and the last update."""
        every = self.run.recipe.training.log_every
        return update in (every, self.run.updates) or update % (math.ceil(SPACING / every) * every) == 0
