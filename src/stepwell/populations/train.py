"""Trains a population: members of one shape together, the others one after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from stepwell.populations.groups import Group, divide, notes
from stepwell.populations.kept import Kept
from stepwell.populations.member import Member, Outcome
from stepwell.progress import Progress
from stepwell.training.reproducible import undisturbed

# At a rung: the update, and the validation loss of each member that is still there → those who go on.
Keep = Callable[[int, dict[int, float]], Collection[int]]

SAVE_SECONDS = 30.0


@undisturbed()
def train(
    members: Sequence[Member],
    *,
    folder: Path | None = None,
    rungs: Sequence[int] = (),
    keep: Keep | None = None,
    weights: bool = False,
    interrupted: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Trains every member and returns how each ended, in their order.

    folder: where the state is kept, so that the same call goes on after a kill, with the same end; None: in
    memory alone. rungs, keep: at each of these updates `keep` is asked who goes on; the others are given up.
    weights: put the delivered weights into the outcomes. interrupted: asked after every update; once it is
    true, the state is saved and `Stopped` raised.

    A member's end is that of its recipe trained alone, but for rounding, whoever the others are; one that
    diverges is reported and no longer trained, and the others go on untouched. The trap: a user's module that
    draws by torch's own functions (nn.Dropout) has numbers of its own for each member, but not those that it
    would draw alone, and with other members they are others.
    """
    kept = None if folder is None else Kept(folder, members)
    found = {} if kept is None else kept.ended()
    if len(found) == len(members):
        return [found[number] for number in range(len(members))]
    groups = divide(members) if kept is None else kept.groups(lambda: divide(members))
    watch = _Watch(members, kept, interrupted)
    with Progress(watch.state, after=2.0) as progress:
        for note in notes(groups):
            progress.say(f"Note: {note}.")
        groups = [group for group in groups if not found.keys() >= set(group.numbers)]
        if rungs and keep is not None:
            found |= _by_rungs(groups, watch, sorted(rungs), keep, kept, weights)
        else:
            for group in groups:
                models = watch.begin(group)
                watch.run(models, math.inf)
                found |= _end(models, kept, weights)
    if kept is not None:
        kept.clear()
    return [found[number] for number in range(len(members))]


class Stopped(Exception):
    """The training of a population was interrupted; what is saved goes on with the same call."""


def _end(models: Any, kept: Kept | None, weights: bool) -> dict[int, Outcome]:
    outcomes = models.outcomes(weights)
    if kept is not None:
        kept.end(outcomes)
    return outcomes


def _by_rungs(
    groups: list[Group],
    watch: _Watch,
    rungs: list[int],
    keep: Keep,
    kept: Kept | None,
    weights: bool,
) -> dict[int, Outcome]:
    """All groups to a rung, then the choice, and so on: those who are chosen from must all be there."""
    every = [watch.begin(group) for group in groups]
    decided = [] if kept is None else kept.state["going"]
    for number, rung in enumerate(rungs):
        losses: dict[int, float] = {}
        for models in every:  # one that has no saved state comes here again, to be given up here again
            watch.run(models, rung)
            losses |= models.losses()
        if number == len(decided):
            for models in every if kept is not None else ():
                kept.save(models)  # type: ignore[union-attr]
            decided.append(sorted(keep(rung, losses)))
            if kept is not None:  # from here on it is not asked again
                kept.write()
        going = set(decided[number])
        for models in every:
            for member in [number for number in models.losses() if number not in going]:
                models.leave(member, rung)
    found: dict[int, Outcome] = {}
    for models in every:
        watch.run(models, math.inf)
        found |= _end(models, kept, weights)
    return found


class _Watch:
    """How far all are, for the bar; saves now and then."""

    def __init__(
        self,
        members: Sequence[Member],
        kept: Kept | None,
        interrupted: Callable[[], bool],
    ) -> None:
        self.members, self.kept, self.interrupted = members, kept, interrupted
        self.done: dict[int, float] = {}  # members' trainings made by each group
        self.models: Any = None
        self.saved_at = time.monotonic()

    def begin(self, group: Group) -> Any:
        """Builds a group's models, where they were saved."""
        models = group.make(self.members)
        if self.kept is not None:
            self.kept.load(models)
        return models

    def run(self, models: Any, update: float) -> None:
        """Trains a group up to an update; saves it by the clock and when interrupted."""
        self.models = models
        while True:
            models.run_to(update, self._is_due)
            if self.interrupted():
                if self.kept is not None:
                    self.kept.save(models)
                raise Stopped
            if models.finished or models.update >= update:
                break
            if self.kept is not None:
                self.kept.save(models)
            self.saved_at = time.monotonic()

    def _is_due(self) -> bool:
        late = self.kept is not None and time.monotonic() - self.saved_at >= SAVE_SECONDS
        return late or self.interrupted()

    def state(self) -> dict[str, Any]:
        """What the bar shows."""
        models = self.models
        if models is None:
            return {"fraction": 0.0, "text": f"{len(self.members)} models"}
        self.done[models.place] = models.fraction * models.count
        share = sum(self.done.values()) / len(self.members)
        together = f", {models.count} together" if models.count > 1 else ""
        return {"fraction": min(share, 1.0), "text": f"{len(self.members)} models{together}"}
