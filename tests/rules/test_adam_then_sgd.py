"""SWATS, against Algorithm 1 of Keskar & Socher 2017 on all parameters as one vector."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from trajectories import ENGINES, SHAPES, assert_same, by_optimizer, gradient, rate, start

from stepwell.optim import AdamThenSGD

BETAS, EPS, THRESHOLD = (0.7, 0.8), 1e-4, 2e-3


def algorithm_1(steps, rate=rate, gap=(), threshold=THRESHOLD):
    """The weights after each step, and the step of the switch (None without one)."""
    w, phase, switch = start(), "Adam", None
    found = lr_then = math.nan
    m, a, v = ([np.zeros_like(x) for x in w] for _ in range(3))
    estimate, times, weights = 0.0, [0] * len(w), []
    for k in range(1, steps + 1):
        there = [i for i in range(len(w)) if (k - 1, i) not in gap]
        g = [gradient(i, w[i], k - 1) for i in range(len(w))]
        lr = rate(k - 1)
        if phase == "SGD":
            for i in there:
                v[i] = BETAS[0] * v[i] + g[i]
                w[i] = w[i] - (1 - BETAS[0]) * found * lr / lr_then * v[i]
            weights.append([x.copy() for x in w])
            continue
        p = {}
        for i in there:
            times[i] += 1
            m[i] = BETAS[0] * m[i] + (1 - BETAS[0]) * g[i]
            a[i] = BETAS[1] * a[i] + (1 - BETAS[1]) * g[i] ** 2
            corrected = np.sqrt(1 - BETAS[1] ** times[i]) / (1 - BETAS[0] ** times[i])
            p[i] = -lr * corrected * m[i] / (np.sqrt(a[i]) + EPS)
            w[i] = w[i] + p[i]
        whole_p = np.concatenate([p[i].ravel() for i in there])
        whole_g = np.concatenate([g[i].ravel() for i in there])
        if whole_p @ whole_g != 0:
            gamma = whole_p @ whole_p / -(whole_p @ whole_g)
            estimate = BETAS[1] * estimate + (1 - BETAS[1]) * gamma
            mean = estimate / (1 - BETAS[1] ** k)
            if k > 1 and abs(mean - gamma) < threshold and mean > 0:
                phase, found, lr_then, switch = "SGD", mean, lr, k
        weights.append([x.copy() for x in w])
    return weights, switch


def make(engine: Any = "auto", threshold=THRESHOLD):
    return lambda p: AdamThenSGD(p, betas=BETAS, eps=EPS, threshold=threshold, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("change", [False, True], ids=["constant rate", "changing rate"])
def test_it_switches_when_the_algorithm_does(engine, change, monkeypatch):
    """The same weights before, at and after the switch; the steps of SGD follow the schedule."""
    if not change:
        monkeypatch.setattr("trajectories.rate", lambda k, base: base)
    theirs, switch = algorithm_1(60, rate if change else lambda k: 0.05)
    assert switch and 1 < switch < 45
    assert_same(by_optimizer(make(engine), steps=60), theirs, rtol=1e-8)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_parameter_that_missed_the_switch_has_switched(engine):
    """Without a gradient in the step of the switch, and in some before, it goes on with SGD as the others."""
    gap = {(17, 0), (18, 0), (2, 1), (4, 1)}
    theirs, switch = algorithm_1(60, gap=gap, threshold=1e-3)
    assert switch == 18  # which is k = 17
    assert_same(by_optimizer(make(engine, 1e-3), steps=60, gap=gap), theirs, rtol=1e-8)


def test_until_the_switch_it_is_adam():
    """threshold=0 never switches: Adam of torch, whose ε counts after the correction, with ε = 0."""
    ours = by_optimizer(lambda p: AdamThenSGD(p, betas=BETAS, eps=0.0, threshold=0.0))
    theirs = by_optimizer(lambda p: torch.optim.Adam(p, betas=BETAS, eps=0.0))
    assert_same(ours, theirs)


def test_the_rate_found_is_told_and_the_same_for_all():
    """`sgd_rate` is 0 before the switch; after it all parameters have one value, over groups too."""
    kept = {}

    def in_groups(p):
        groups = [{"params": p[:1]}, {"params": p[1:]}]
        kept["optimizer"] = make()(groups)
        return kept["optimizer"]

    theirs, switch = algorithm_1(60)
    assert switch
    by_optimizer(in_groups, steps=switch - 1)
    rates = [state["sgd_rate"].item() for state in kept["optimizer"].state.values()]
    assert rates == [0.0] * len(SHAPES)
    assert_same(by_optimizer(in_groups, steps=60), theirs, rtol=1e-8)
    rates = {state["sgd_rate"].item() for state in kept["optimizer"].state.values()}
    assert len(rates) == 1 and rates.pop() > 0
