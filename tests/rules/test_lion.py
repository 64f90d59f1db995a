"""Lion, against Algorithm 2 of Chen et al. 2023."""

import numpy as np
import pytest
from trajectories import ENGINES, assert_same, by_optimizer, by_paper

from stepwell.optim import Lion

BETA1, BETA2, DECAY = 0.85, 0.6, 0.3


def algorithm_2():
    m = 0.0

    def step(w, g, t, lr):
        nonlocal m
        c = BETA1 * m + (1 - BETA1) * g
        w = w - lr * (np.sign(c) + DECAY * w)
        m = BETA2 * m + (1 - BETA2) * g
        return w

    return step


@pytest.mark.parametrize("engine", ENGINES)
def test_lion(engine):
    """40 steps with a changing rate, decoupled decay and missing gradients."""
    gap = {(5, 1), (6, 1), (11, 0)}
    ours = by_optimizer(lambda p: Lion(p, betas=(BETA1, BETA2), weight_decay=DECAY, engine=engine), gap=gap)
    assert_same(ours, by_paper(algorithm_2, gap=gap))
