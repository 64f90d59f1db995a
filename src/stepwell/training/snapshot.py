"""A copy of a run's state in memory, to go back to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stepwell.training.reproducible import own_randomness, random_state, restore_random_state
from stepwell.training.run import Run


@dataclass
class Snapshot:
    """The state after `update` updates: tensors by name, optimizer steps, random state."""

    update: int
    tensors: dict[str, Tensor]
    steps: list[list[int]]
    random: dict[str, Tensor]
    scaler: dict[str, Any] = field(default_factory=dict)
    closure: tuple[dict[str, Tensor], Any] = ({}, None)  # see Run.closure_state
    pace: dict[str, Any] = field(default_factory=dict)  # see Pace.state

    @classmethod
    def of(cls, run: Run) -> Snapshot:
        tensors = {name: value.detach().clone() for name, value in run.live.items()}
        snapshot = cls(run.update, tensors, [], {})
        snapshot._note(run)
        return snapshot

    def take(self, run: Run) -> None:
        """Overwrites this copy with the run's present state."""
        with torch.no_grad():
            for name, live in run.live.items():
                self.tensors[name].copy_(live)
        self._note(run)

    def become_start(self, run: Run) -> None:
        """Overwrites this copy with the state before the first update, built anew from the recipe."""
        with own_randomness(run.recipe.seed, run.device):
            fresh = Run(run.recipe, run.data, run.source)
            self.take(fresh)
        fresh.batches.close()

    def restore(self, run: Run) -> None:
        """Puts the run back to this state."""
        with torch.no_grad():
            for name, live in run.live.items():
                live.copy_(self.tensors[name])
        if run.scaler is not None:
            run.scaler.load_state_dict(self.scaler)
        run.pace.load(self.pace)
        run.skipped.zero_()
        for engine, steps in zip(run.optimizer.engines(), self.steps, strict=True):
            engine.steps[:] = steps
        run.load_closure_state(*self.closure)
        restore_random_state(self.random, run.device)
        run.update = self.update

    def _note(self, run: Run) -> None:
        self.update = run.update
        self.steps = [list(engine.steps) for engine in run.optimizer.engines()]
        self.random = random_state(run.device)
        tensors, about = run.closure_state()
        self.closure = {name: value.clone() for name, value in tensors.items()}, about
        self.scaler = run.scaler.state_dict() if run.scaler is not None else {}
        self.pace = run.pace.state()
