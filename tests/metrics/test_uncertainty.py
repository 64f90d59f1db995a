"""The split of entropy into chance and disagreement: closed forms, and the mean divergence."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr

from stepwell.metrics.uncertainty import of_classes, of_values


def test_closed_forms():
    """Models that contradict each other with certainty: all disagreement, ln M; that agree: none."""
    sure = np.eye(3)[:, None, :]  # three models, one sample, each another class
    split = of_classes(sure)
    np.testing.assert_allclose([split.total, split.expected, split.mutual], [[np.log(3)], [0], [np.log(3)]])
    fair = np.full((4, 1, 2), 0.5)  # a coin, and all know it
    split = of_classes(fair)
    np.testing.assert_allclose([split.total, split.expected, split.mutual], [[np.log(2)], [np.log(2)], [0]])
    p = np.array([[[0.9, 0.1]], [[0.1, 0.9]]])
    own = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    split = of_classes(p)
    np.testing.assert_allclose([*split.total, *split.expected], [np.log(2), own])
    np.testing.assert_allclose(split.mutual, np.log(2) - own)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 5))
def test_disagreement_is_the_mean_divergence_from_the_mean(seed, models, classes):
    """I = 1/M Σ KL(p_m ‖ p̄), between 0 and ln M; the parts add up; zeros are no trouble."""
    draw = np.random.default_rng(seed)
    p = draw.dirichlet(np.full(classes, 0.3), (models, 7))
    p[0, 0] = np.eye(classes)[0]
    split = of_classes(p)
    divergence = rel_entr(p, p.mean(0)).sum(-1).mean(0)
    np.testing.assert_allclose(split.mutual, divergence, atol=1e-12)
    np.testing.assert_allclose(split.total, split.expected + split.mutual, atol=1e-12)
    assert (split.mutual <= np.log(models) + 1e-12).all()


def test_values_have_the_sample_deviation():
    """Two models that are 2d apart have the standard deviation √2 d."""
    found = of_values(np.array([[[1.0], [5.0]], [[4.0], [5.0]]]))
    np.testing.assert_allclose(found, [[3 / np.sqrt(2)], [0]])
