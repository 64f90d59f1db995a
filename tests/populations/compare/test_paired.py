"""The paired t test."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stepwell.populations.compare.paired import difference

values = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12)


@given(values)
def test_it_is_scipys(pairs: list[tuple[float, float]]):
    """p, mean and interval are those of scipy.stats.ttest_rel."""
    a, b = np.array(pairs).T
    if np.ptp(a - b) < 1e-6:
        return
    found = difference(dict(enumerate(a)), dict(enumerate(b)))
    theirs = stats.ttest_rel(a, b)
    interval = theirs.confidence_interval(0.95)
    np.testing.assert_allclose(found["p"], theirs.pvalue, rtol=1e-7, atol=1e-15)
    np.testing.assert_allclose(
        [found["low"], found["high"]], [interval.low, interval.high], rtol=1e-9, atol=1e-12
    )
    assert found["n"] == len(a)


def test_equal_values_do_not_differ():
    """The same rule under two names with the same seeds has the same values: p is 1."""
    assert difference({0: 0.5, 1: 0.7}, {0: 0.5, 1: 0.7})["p"] == 1


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_one_difference_throughout_is_judged_by_its_signs(n: int):
    """p is the share of all 2ⁿ sign patterns whose mean is as far from 0: t would say p = 0."""
    first, second = {s: 0.5 + s / 64 for s in range(n)}, {s: 0.25 + s / 64 for s in range(n)}
    signs = itertools.product((-1, 1), repeat=n)
    share = np.mean([abs(sum(pattern)) >= n for pattern in signs])
    assert difference(first, second)["p"] == pytest.approx(share)


def test_rounded_values_are_no_surer_than_their_rounding():
    """Two rules that are right on 30 and on 20 of 30 rows with every seed differ; one row proves little.

    Normal values that differ by nothing are rounded to each of several steps: at most 5 % are significant
    with a standard error of 0.3 %, also where most of five differences are equal.
    """
    sure = difference(dict.fromkeys(range(5), 1.0), dict.fromkeys(range(5), 20 / 30), 1 / 30)
    assert sure["p"] < 1e-6 and sure["low"] < sure["mean"] < sure["high"]
    draw = np.random.default_rng(0)
    for spread in (0.2, 0.5, 1.0, 3.0):
        a, b = np.round(0.3 + spread * draw.normal(size=(2, 4000, 5)))
        p = [difference(dict(enumerate(x)), dict(enumerate(y)), 1.0)["p"] for x, y in zip(a, b, strict=True)]
        assert np.mean(np.array(p) < 0.05) < 0.06


def test_only_shared_seeds_count():
    """A run that diverged takes its pair along; with one pair left nothing is tested."""
    found = difference({0: 1.0, 1: 2.0, 2: 9.0}, {0: 0.5, 1: 1.0, 3: 7.0})
    assert (found["n"], found["mean"]) == (2, 0.75)
    assert difference({0: 1.0}, {0: 0.5}) == {"mean": 0.5, "low": None, "high": None, "p": None, "n": 1}
    assert difference({0: 1.0}, {1: 0.5})["mean"] is None
