"""Intervals against scipy, closed forms, slow obvious code and simulated coverage."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from stepwell.metrics import intervals


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_wilson_is_scipys(n, share):
    """Wilson's interval equals scipy's, stays in [0, 1] and contains the share, at its ends too."""
    k = round(share * n)
    low, high = intervals.wilson(k, n)
    truth = scipy.stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose([low, high], [truth.low, truth.high], rtol=1e-10, atol=1e-12)
    assert 0 <= low <= k / n <= high <= 1


@given(st.integers(0, 500), st.integers(500, 1000))
def test_effective_wilson_of_a_share_is_wilson(k, n):
    """With the variance p(1−p)/n of a plain share and many units, the effective n is n."""
    p = k / n
    found = intervals.wilson_effective(p, p * (1 - p) / n, units=10**9, boundary_n=n)
    np.testing.assert_allclose(found or (), intervals.wilson(k, n), rtol=1e-6, atol=1e-12)


def test_effective_wilson_knows_nothing_of_one_unit():
    """One row gives no variance: no interval inside (0, 1), and the boundary's n at 0 and 1."""
    assert intervals.wilson_effective(0.4, np.nan, 1, 1) is None
    np.testing.assert_allclose(intervals.wilson_effective(1.0, 0.0, 1, 1) or (), intervals.wilson(1, 1))


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30, unique=True))
def test_student_t_is_scipys(values):
    """The t-interval equals scipy's one-sample interval."""
    truth = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(intervals.student_t(values) or (), tuple(truth), rtol=1e-9, atol=1e-9)
    assert intervals.student_t(values[:1]) is None


def test_mean_of_one_quantity_keeps_its_interval():
    """The mean of one share has its Wilson interval; of four equal ones, half the width about it."""
    low, high = map(float, intervals.wilson(8, 10))
    assert intervals.mean_of_independent([0.8], [low], [high]) == pytest.approx((low, high))
    four = intervals.mean_of_independent([0.8] * 4, [low] * 4, [high] * 4)
    assert four == pytest.approx((0.8 - (0.8 - low) / 2, 0.8 + (high - 0.8) / 2))


@pytest.mark.parametrize("n", [*range(1, 40), 101, 1000, 4001])
def test_median_ranks_by_counting(n):
    """The ranks are the innermost whose binomial coverage is still at least 95 %."""
    found = intervals.median(np.arange(1.0, n + 1)[:, None])
    ranks = [k for k in range(1, n // 2 + 1) if scipy.stats.binom.cdf(k - 1, n, 0.5) <= 0.025]
    if not ranks:
        assert found is None and n < 6
    else:
        assert found is not None
        assert (found[0][0], found[1][0]) == (ranks[-1], n + 1 - ranks[-1])


def test_bca_is_scipys():
    """BCa limits of a ratio of sums agree with scipy's within the simulation's own error."""
    x = np.random.default_rng(0).lognormal(size=(60, 2))
    truth = scipy.stats.bootstrap(
        (x[:, 0], x[:, 1]),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        n_resamples=20000,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    found = intervals.bootstrap(x, lambda t: t[:, :1] / t[:, 1:], seed=2)[0]
    np.testing.assert_allclose(found or (), truth, rtol=0.03)


def test_bootstrap_is_seeded_and_chunks_do_not_matter(monkeypatch):
    """The same seed gives the same limits whatever the chunk size; another seed gives others."""
    x = np.random.default_rng(0).normal(size=(50, 1))

    def limits(seed):
        return intervals.bootstrap(x, lambda t: t / 50, seed, method="percentile")[0] or (0.0, 0.0)

    first = limits(3)
    assert first != (0.0, 0.0) != limits(4) != first
    monkeypatch.setattr(intervals, "CHUNK", 777)
    np.testing.assert_allclose(limits(3), first, rtol=1e-12)


def test_bootstrap_in_groups_has_the_rows_spread(monkeypatch):
    """Drawing random groups instead of rows leaves the interval of a mean as wide as Student's."""
    monkeypatch.setattr(intervals, "MAX_UNITS", 1000)
    x = np.sort(np.random.default_rng(0).exponential(size=(4321, 1)), axis=0)  # order must not matter
    sums = np.hstack([np.ones_like(x), x])
    found = intervals.bootstrap(sums, lambda t: t[:, 1:] / t[:, :1], seed=0)[0]
    truth = intervals.student_t(x[:, 0])
    assert found is not None and truth is not None
    assert found[1] - found[0] == pytest.approx(truth[1] - truth[0], rel=0.1)
    assert found == pytest.approx(truth, rel=0.01)


def test_bootstrap_leaves_out_what_it_cannot_know():
    """Too few rows, a constant statistic and an undefined one have no interval; others keep theirs."""
    x = np.random.default_rng(0).normal(size=(20, 1))
    assert intervals.bootstrap(x[:5], lambda t: t, seed=0) == [None]
    three = intervals.bootstrap(x, lambda t: np.hstack([t, 0 * t + 1, np.full_like(t, np.nan)]), seed=0)
    assert three[0] is not None and three[1:] == [None, None]


@pytest.mark.parametrize("n, share", [(20, 0.5), (50, 0.9), (200, 0.97), (1000, 0.8)])
def test_wilson_covers(n, share):
    """Exact coverage, summed over all outcomes, is near 95 %."""
    k = np.arange(n + 1)
    low, high = intervals.wilson(k, n)
    covered = scipy.stats.binom.pmf(k, n, share)[(low <= share) & (share <= high)].sum()
    assert 0.92 < covered < 0.985


def test_median_covers():
    """The median's interval covers the true median in at least 95 % less three standard errors."""
    x = np.random.default_rng(0).exponential(size=(41, 4000))
    limits = intervals.median(x)
    assert limits is not None
    covered = ((limits[0] <= np.log(2)) & (np.log(2) <= limits[1])).mean()
    assert 0.94 < covered < 0.985
