"""Ranking statistics against scikit-learn, pairwise counting and finite differences."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from stepwell.metrics.ranking import average_precision, mid_ranks, roc_auc

ROWS = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({y for _, y in rows}) == 2
)


def columns(rows):
    return np.array([s for s, _ in rows]) / 6, np.array([y for _, y in rows])


@given(st.lists(st.integers(0, 5), min_size=1))
def test_mid_ranks_are_scipys(x):
    """Ties share the mean of their ranks."""
    np.testing.assert_array_equal(mid_ranks(np.array(x, float)), scipy.stats.rankdata(x))


@given(ROWS)
def test_values_are_scikit_learns(rows):
    """Both areas equal scikit-learn's, with any ties."""
    scores, positive = columns(rows)
    assert roc_auc(scores, positive)[0] == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    truth = average_precision_score(positive, scores)
    assert average_precision(scores, positive)[0] == pytest.approx(truth, abs=1e-12)


@given(ROWS)
def test_delong_variance_by_pairs(rows):
    """DeLong's variance equals its definition by comparing every pair."""
    scores, positive = columns(rows)
    x, y = scores[positive], scores[~positive]
    if min(len(x), len(y)) < 2:
        assert np.isnan(roc_auc(scores, positive)[1])
        return
    pairs = (x[:, None] > y) + 0.5 * (x[:, None] == y)  # (m, n)
    truth = pairs.mean(1).var(ddof=1) / len(x) + pairs.mean(0).var(ddof=1) / len(y)
    assert roc_auc(scores, positive)[1] == pytest.approx(truth, abs=1e-12)


@given(ROWS)
def test_derivative_of_average_precision(rows):
    """The derivative equals central differences of scikit-learn's weighted average precision."""
    scores, positive = columns(rows)
    _, derivative = average_precision(scores, positive)
    assert derivative.sum() == pytest.approx(0, abs=1e-12)  # doubling every weight changes nothing
    step = 1e-4 * np.eye(len(scores))
    for j in range(len(scores)):
        up, down = (average_precision_score(positive, scores, sample_weight=1 + s * step[j]) for s in (1, -1))
        assert derivative[j] == pytest.approx((up - down) / 2e-4, abs=1e-6)


def test_derivatives_give_the_bootstraps_spread():
    """√Σ derivative² is the standard deviation of average precision over resampled rows."""
    r = np.random.default_rng(0)
    positive = r.random(300) < 0.3
    scores = r.normal(size=300) + 1.5 * positive
    drawn = r.integers(300, size=(1000, 300))
    resampled = [average_precision(scores[rows], positive[rows])[0] for rows in drawn]
    derivative = average_precision(scores, positive)[1]
    assert np.sqrt(np.square(derivative).sum()) == pytest.approx(np.std(resampled), rel=0.08)
