"""Every kind of ensemble by name. A new one is one file and one row."""

from __future__ import annotations

from typing import Protocol

from stepwell.populations.ensemble import average, folds, independent, snapshots, soup
from stepwell.populations.ensemble.job import Bench, Job, Made, Served


class Kind(Protocol):
    """What each kind's module offers."""

    def train(self, job: Job, /) -> Made: ...

    def serve(self, job: Job, made: Made, bench: Bench, /) -> Served: ...


KINDS: dict[str, Kind] = {
    "independent": independent,
    "folds": folds,
    "snapshots": snapshots,
    "average": average,
    "soup": soup,
}

# What each predicts with, in words.
MEANS = {
    "independent": "the mean prediction of {count} members that differ by their seed",
    "folds": "the mean prediction of {count} members that each left out another fold",
    "snapshots": "the mean prediction of {count} snapshots of one run",
    "average": "the mean of the weights of {count} snapshots of one run",
    "soup": "the greedy mean of the weights of {chosen} of {count} members",
}
