"""Adan, against Algorithm 1 of Xie et al. 2022 with the bias corrections of the authors' code."""

import numpy as np
import pytest
from trajectories import ENGINES, assert_same, by_optimizer, by_paper

from stepwell.optim import Adan

B1, B2, B3 = 0.02 * 4, 0.08 * 3, 0.01 * 7  # the paper's β, which are 1 − the code's
EPS, DECAY = 1e-3, 0.4


def algorithm_1(proximal=True):
    def start():
        m = v = n = 0.0
        before = None

        def step(w, g, t, lr):
            nonlocal m, v, n, before
            change = 0 * g if before is None else g - before
            m = (1 - B1) * m + B1 * g
            v = (1 - B2) * v + B2 * change
            n = (1 - B3) * n + B3 * (g + (1 - B2) * change) ** 2
            before = g
            m_hat, v_hat, n_hat = (x / (1 - (1 - b) ** t) for x, b in ((m, B1), (v, B2), (n, B3)))
            move = lr / (np.sqrt(n_hat) + EPS) * (m_hat + (1 - B2) * v_hat)
            return (w - move) / (1 + lr * DECAY) if proximal else (1 - lr * DECAY) * w - move

        return step

    return start


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("no_prox", [False, True])
def test_adan(no_prox, engine):
    """40 steps with a changing rate, either decay, and missing gradients, which the change skips."""
    gap = {(0, 1), (5, 1), (6, 1), (11, 0)}
    betas = (1 - B1, 1 - B2, 1 - B3)
    ours = by_optimizer(
        lambda p: Adan(p, betas=betas, eps=EPS, weight_decay=DECAY, no_prox=no_prox, engine=engine), gap=gap
    )
    assert_same(ours, by_paper(algorithm_1(not no_prox), gap=gap))


def test_the_two_decays_add_up():
    """`decay` acts before the rule, whose own form of weight_decay stays."""
    ours = by_optimizer(lambda p: Adan(p, eps=EPS, betas=(1 - B1, 1 - B2, 1 - B3), decay=DECAY), steps=30)
    assert_same(ours, by_paper(algorithm_1(False), steps=30))
