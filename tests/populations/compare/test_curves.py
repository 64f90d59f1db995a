"""Curves over seeds, and when they reach a target."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stepwell.populations.compare.curves import best_of, mean_curve, updates_to


def rows(values: dict[int, float]) -> list[dict]:
    return [{"update": u, "validation": {"loss": v} if np.isfinite(v) else {}} for u, v in values.items()]


def test_mean_and_interval_at_shared_updates():
    """Student's interval at each update that all seeds have; one stopped early and one was not finite."""
    curves = [{10: 3.0, 20: 2.0, 30: 1.0}, {10: 5.0, 20: 4.0}, {10: 1.0, 20: 3.0, 30: np.nan}]
    found = mean_curve([rows(c) for c in curves], "loss")
    assert found["update"] == [10, 20] and found["mean"] == [3.0, 3.0]
    for k, values in enumerate(([3, 5, 1], [2, 4, 3])):
        expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        assert (found["low"][k], found["high"][k]) == pytest.approx(expected)


def test_a_target_is_reached_where_the_mean_is():
    """The first evaluation at the target or beyond, in the metric's own direction; None where never."""
    curve = mean_curve([rows({10: 3.0, 20: 2.0, 30: 2.5})], "loss")
    assert updates_to(curve, 2.5, higher=False) == 20
    assert updates_to(curve, 1.9, higher=False) is None
    assert updates_to(curve, 2.9, higher=True) == 10
    assert (best_of(curve, False), best_of(curve, True)) == (2.0, 3.0)
    assert best_of(mean_curve([], "loss"), True) is None
