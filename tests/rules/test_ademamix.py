"""AdEMAMix, against Algorithm 1 of Pagliardini et al. 2024 with both warm-ups."""

import math

import numpy as np
import pytest
from trajectories import ENGINES, assert_same, by_optimizer, by_paper

from stepwell.optim import AdEMAMix
from stepwell.rules.ademamix import slow_beta

BETA1, BETA2, BETA3, ALPHA, EPS, DECAY = 0.7, 0.95, 0.99, 3.0, 1e-3, 0.1


def algorithm_1(alpha_steps, beta_steps):
    def start():
        m1 = m2 = v = 0.0

        def step(w, g, t, lr):
            nonlocal m1, m2, v
            alpha = min(t * ALPHA / alpha_steps, ALPHA) if alpha_steps else ALPHA
            beta3 = BETA3
            if beta_steps:
                share = t / beta_steps
                down = (1 - share) * math.log(BETA3) + share * math.log(BETA1)
                beta3 = min(math.exp(math.log(BETA1) * math.log(BETA3) / down), BETA3) if share < 1 else BETA3
            m1 = BETA1 * m1 + (1 - BETA1) * g
            m2 = beta3 * m2 + (1 - beta3) * g
            v = BETA2 * v + (1 - BETA2) * g**2
            m1_hat, v_hat = m1 / (1 - BETA1**t), v / (1 - BETA2**t)
            return w - lr * ((m1_hat + alpha * m2) / (np.sqrt(v_hat) + EPS) + DECAY * w)

        return step

    return start


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("alpha_steps", "beta_steps"), [(None, None), (25, 30), (1, 60)])
def test_ademamix(alpha_steps, beta_steps, engine):
    """40 steps with a changing rate, through the end of the warm-ups and inside one that is longer."""
    gap = {(2, 1), (30, 0)}
    ours = by_optimizer(
        lambda p: AdEMAMix(
            p,
            betas=(BETA1, BETA2, BETA3),
            alpha=ALPHA,
            eps=EPS,
            weight_decay=DECAY,
            alpha_warmup=alpha_steps,
            beta3_warmup=beta_steps,
            engine=engine,
        ),
        gap=gap,
    )
    assert_same(ours, by_paper(algorithm_1(alpha_steps, beta_steps), gap=gap))


def test_the_half_life_rises_along_a_line():
    """ln ½ / ln β3(t) is a line from β1's half-life to β3's; after the last step it is β3 itself."""
    lives = [math.log(0.5) / math.log(slow_beta(t, 0.9, 0.9999, 100)) for t in range(101)]
    first, last = math.log(0.5) / math.log(0.9), math.log(0.5) / math.log(0.9999)
    np.testing.assert_allclose(lives, np.linspace(first, last, 101), rtol=1e-9)
    assert slow_beta(100, 0.9, 0.9999, 100) == slow_beta(500, 0.9, 0.9999, 100) == 0.9999
    assert 0 < slow_beta(1, 0.0, 0.9999, 100) < 0.9999  # β1 = 0 has no logarithm
