"""Prodigy, against Algorithm 4 of Mishchenko & Defazio 2023 as its authors' code runs it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from trajectories import ENGINES, assert_same, by_optimizer, gradient, rate, start

from stepwell.errors import UserError
from stepwell.optim import Prodigy

BETA1, BETA2, EPS = 0.8, 0.95, 1e-6


def algorithm_4(
    steps, base, d0=1e-3, beta3=None, coef=1.0, growth=math.inf, decay=0.0, coupled=False, corrected=False,
    safeguard=False, gap=(),
):  # fmt: skip
    """The weights and d after each step."""
    w = start()
    first = [x.copy() for x in w]
    m, v, s = ([np.zeros_like(x) for x in w] for _ in range(3))
    beta3 = math.sqrt(BETA2) if beta3 is None else beta3
    d = d_max = d0
    numerator, weights, estimates = 0.0, [], []
    for k in range(steps):
        lr = rate(k, base)
        bias = math.sqrt(1 - BETA2 ** (k + 1)) / (1 - BETA1 ** (k + 1)) if corrected else 1.0
        dlr = d * lr * bias
        there = [i for i in range(len(w)) if (k, i) not in gap]
        numerator *= beta3
        denominator = 0.0
        for i in there:
            g = gradient(i, w[i], k) + (decay * w[i] if coupled else 0.0)
            numerator += d / d0 * dlr * np.sum(g * (first[i] - w[i]))
            m[i] = BETA1 * m[i] + (1 - BETA1) * d * g
            v[i] = BETA2 * v[i] + (1 - BETA2) * d**2 * g**2
            s[i] = beta3 * s[i] + d / d0 * (d if safeguard else dlr) * g
            denominator += np.abs(s[i]).sum()
        hat = coef * numerator / denominator
        if d == d0:
            d = max(d, hat)
        d_max = max(d_max, hat)
        d = min(d_max, d * growth)
        for i in there:
            if not coupled:
                w[i] = w[i] - decay * dlr * w[i]
            w[i] = w[i] - dlr * m[i] / (np.sqrt(v[i]) + d * EPS)
        weights.append([x.copy() for x in w])
        estimates.append(d)
    return weights, estimates


CASES = {
    "plain": ({}, {}),
    "decay": ({"weight_decay": 0.2}, {"decay": 0.2}),
    "both decays": ({"weight_decay": 0.15, "decay": 0.05}, {"decay": 0.2}),
    "coupled": ({"weight_decay": 0.2, "decouple": False}, {"decay": 0.2, "coupled": True}),
    "corrected": ({"use_bias_correction": True}, {"corrected": True}),
    "safeguard": ({"safeguard_warmup": True}, {"safeguard": True}),
    "growth": ({"growth_rate": 1.1, "d_coef": 0.5}, {"growth": 1.1, "coef": 0.5}),
    "beta3": ({"beta3": 0.9}, {"beta3": 0.9}),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_prodigy(case, engine):
    """60 steps with a changing rate: the weights of all parameters, and so the d that they share."""
    options, theirs = CASES[case]
    ours = by_optimizer(
        lambda p: Prodigy(p, betas=(BETA1, BETA2), eps=EPS, d0=1e-3, engine=engine, **options), 60, base=1.0
    )
    weights, estimates = algorithm_4(60, 1.0, **theirs)
    assert estimates[-1] > 5e-3, "the case must be one where d grows"
    assert_same(ours, weights, rtol=1e-8)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_parameter_without_a_gradient_keeps_up_with_d(engine):
    """d is one for all: after steps without a gradient, or from the first on, a parameter uses today's d."""
    gap = {(k, 2) for k in range(8)} | {(12, 0), (13, 0), (13, 1), (40, 1)}
    ours = by_optimizer(
        lambda p: Prodigy(p, betas=(BETA1, BETA2), eps=EPS, d0=1e-3, engine=engine), 60, base=1.0, gap=gap
    )
    assert_same(ours, algorithm_4(60, 1.0, gap=gap)[0], rtol=1e-8)


def test_nothing_moves_before_the_first_gradient():
    """While every gradient is 0, or the rate is, weights and d stay finite and as they were."""
    p = torch.ones(2, requires_grad=True)
    optimizer = Prodigy([p], weight_decay=0.5)
    p.grad = torch.zeros(2)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.0
    p.grad = torch.ones(2)
    optimizer.step()
    assert p.tolist() == [1, 1] and optimizer.state[p]["d"].item() == 1e-6


def test_the_state_of_float32_weights_goes_on_exactly():
    """Saved and loaded in mid-run it ends at the uninterrupted run's weights, d to its last digit."""

    def run(reload):
        p = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
        optimizer = Prodigy([p], d0=1e-3)
        for k in range(30):
            if reload and k == 15:
                saved = optimizer.state_dict()
                optimizer = Prodigy([p])
                optimizer.load_state_dict(saved)
            p.grad = torch.tensor(gradient(0, p.detach().double().numpy(), k)).float()
            optimizer.step()
        return p.tolist(), optimizer.state[p]["d"].item()

    assert run(reload=True) == run(reload=False)


def test_what_one_d_cannot_be_is_refused():
    """Groups with two rates, except 0, and a growth below 1 have no estimate."""
    a, b = (torch.zeros(1, requires_grad=True) for _ in range(2))
    with pytest.raises(UserError, match=r"lr=0\.5 .* one d for all groups"):
        Prodigy([{"params": [a]}, {"params": [b], "lr": 0.5}])
    Prodigy([{"params": [a]}, {"params": [b], "lr": 0.0}])
    wrongs: list[Any] = [0.5, math.nan, "2", True, None]
    for wrong in wrongs:
        with pytest.raises(UserError, match="growth_rate"):
            Prodigy([a], growth_rate=wrong)
