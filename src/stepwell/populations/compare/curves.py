"""The course of an entry over its seeds: mean and interval at each update, and when a target is reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from stepwell.metrics.intervals import student_t


def mean_curve(curves: Sequence[Sequence[dict[str, Any]]], metric: str) -> dict[str, list[Any]]:
    """Returns {"update", "mean", "low", "high"}: at the updates where every curve has the metric.

    curves: the rows of `Outcome.curve`, one list a seed. low and high: 95 % interval of the mean over seeds
    at each update by itself, None with one seed.
    """
    by_update = [
        {row["update"]: row["validation"][metric] for row in curve if metric in row["validation"]}
        for curve in curves
    ]
    shared = sorted(set.intersection(*map(set, by_update))) if by_update else []
    found: dict[str, list[Any]] = {"update": shared, "mean": [], "low": [], "high": []}
    for update in shared:
        values = [curve[update] for curve in by_update]
        low, high = student_t(values) or (None, None)
        found["mean"].append(math.fsum(values) / len(values))
        found["low"].append(low)
        found["high"].append(high)
    return found


def best_of(curve: dict[str, list[Any]], higher: bool) -> float | None:
    """The best mean of a curve; None of an empty one."""
    return (max if higher else min)(curve["mean"], default=None)


def updates_to(curve: dict[str, list[Any]], target: float, higher: bool) -> int | None:
    """The first update at which the mean over seeds is at the target or beyond; None where it never is."""
    beyond = (mean >= target if higher else mean <= target for mean in curve["mean"])
    return next((update for update, there in zip(curve["update"], beyond, strict=True) if there), None)
