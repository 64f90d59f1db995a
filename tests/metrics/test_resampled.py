"""The corrected t against its formula written out, and against what it promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from stepwell.metrics.intervals import student_t
from stepwell.metrics.resampled import corrected_t


@pytest.mark.parametrize(("folds", "repeats"), [(2, 1), (5, 1), (10, 3)])
def test_the_formula(folds, repeats):
    """m ± t √((1/J + n_held/n_learnt) s²), with sums written out and scipy's quantile."""
    values = np.random.default_rng(folds).normal(0.9, 0.03, folds * repeats).tolist()
    count, mean = len(values), math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (count - 1)
    half = stats.t.ppf(0.975, count - 1) * math.sqrt((1 / count + 1 / (folds - 1)) * variance)
    assert corrected_t(values, 1 / (folds - 1)) == pytest.approx((mean - half, mean + half), rel=1e-12)


def test_values_that_share_their_training_rows_are_covered():
    """Of 20,000 draws of 10 values with correlation n_held/(n_held + n_learnt) = 0.1, 95 % are covered.

    For such normal values it is exact: the bound is five standard deviations. Student's own covers far fewer.
    """
    draw, count = np.random.default_rng(0), 20_000
    values = math.sqrt(0.1) * draw.normal(size=(count, 1)) + math.sqrt(0.9) * draw.normal(size=(count, 10))
    limits: list[Any] = [corrected_t(v, 1 / 9) for v in values]
    covered = np.mean([low < 0 < high for low, high in limits])
    assert abs(covered - 0.95) < 5 * math.sqrt(0.95 * 0.05 / count)
    limits = [student_t(v) for v in values[:2000]]
    assert np.mean([low < 0 < high for low, high in limits]) < 0.9


def test_one_fold_has_no_interval():
    assert corrected_t([0.5], 0.25) is None
