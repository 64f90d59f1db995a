"""Successive halving: the worse half of an entry's tuned values is given up at each rung."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stepwell.errors import UserError
from stepwell.populations.compare.choice import rank

SHARES = (1 / 8, 1 / 4, 1 / 2)  # of the updates


def rungs(updates: int, evaluate_every: int) -> list[int]:
    """The updates at which values are given up: first evaluations at or after 1/8, 1/4, 1/2 of the run."""
    places = {math.ceil(share * updates / evaluate_every) * evaluate_every for share in SHARES}
    found = sorted(place for place in places if place < updates)
    if not found:
        raise UserError(
            "--halving needs an evaluation before the end: train longer, or lower training.evaluate_every"
        )
    return found


class Halving:
    """Who goes on at a rung, for `population.train(keep=)`.

    Of each entry the better half of the values that are still there goes on, rounded up, so that one
    always does; all seeds of a value go on or end together. The better value is the one with fewer failed
    runs, then the one with the lower mean validation loss of the newest evaluation.

    Source: Jamieson & Talwalkar (2016), AISTATS, 240, with η = 2. The trap: under a falling learning rate
    a low rate looks better early than it ends.
    """

    def __init__(self, entries: Sequence[Sequence[Sequence[int]]]) -> None:
        """entries: for each entry and each of its values the numbers of the members, one a seed."""
        self.entries = entries

    def __call__(self, update: int, losses: dict[int, float]) -> set[int]:
        going: set[int] = set()
        for values in self.entries:
            there = [members for members in values if any(number in losses for number in members)]
            there.sort(key=lambda members: rank([losses.get(number, math.nan) for number in members]))
            for members in there[: math.ceil(len(there) / 2)]:
                going.update(members)
        return going
