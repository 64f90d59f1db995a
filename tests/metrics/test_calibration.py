"""Reliability by bins and the expected calibration error, against a loop over samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from stepwell.metrics.calibration import BINS, expected_calibration_error, reliability

confidences = st.floats(0, 1) | st.sampled_from(np.linspace(0, 1, BINS + 1).tolist())
answers = st.lists(st.tuples(confidences, st.booleans()), min_size=1, max_size=60)


def by_hand(confidence, right):
    """The samples of each bin (low, high], the first with 0."""
    edges, bins = np.linspace(0, 1, BINS + 1), [[] for _ in range(BINS)]
    for c, r in zip(confidence, right, strict=True):
        place = next(k for k in range(BINS) if c <= edges[k + 1])
        bins[place].append((c, r))
    return bins


@given(answers)
def test_reliability_is_that_of_a_loop(found):
    """Mean confidence, share right, count, edges of every bin with samples; Wilson's limits are scipy's."""
    confidence, right = np.array([c for c, _ in found]), np.array([r for _, r in found])
    table = reliability(confidence, right)
    bins = by_hand(confidence, right)
    used = [k for k, some in enumerate(bins) if some]
    assert table["count"] == [len(bins[k]) for k in used]
    for row, k in enumerate(used):
        values, hits = zip(*bins[k], strict=True)
        assert table["confidence"][row] == pytest.approx(np.mean(values))
        assert table["accuracy"][row] == pytest.approx(np.mean(hits))
        assert table["edges"][row] == pytest.approx([k / BINS, (k + 1) / BINS])
        limits = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
        assert (table["low"][row], table["high"][row]) == pytest.approx((limits.low, limits.high), abs=1e-9)


@given(answers)
def test_the_error_is_the_weighted_gap_of_the_bins(found):
    """ECE = Σ count · |accuracy − confidence| / n of the very bins that the diagram shows."""
    confidence, right = np.array([c for c, _ in found]), np.array([r for _, r in found])
    bins = [some for some in by_hand(confidence, right) if some]
    gaps = [len(some) * abs(np.mean([r for _, r in some]) - np.mean([c for c, _ in some])) for some in bins]
    value, limits = expected_calibration_error(confidence, right, 0)
    assert value == pytest.approx(sum(gaps) / len(found), abs=1e-12)
    assert limits is None or limits[0] <= value <= limits[1]
