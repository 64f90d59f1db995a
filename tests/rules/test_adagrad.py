"""Adagrad with ε inside the root."""

import numpy as np
import torch

from stepwell.engine.eager import Eager
from stepwell.engine.fused import Fused
from stepwell.rules.adagrad import ADAGRAD, ADAGRAD_INSIDE

RATES = {"lr": 0.3, "lr_decay": 0.05, "initial_accumulator_value": 0.02, "eps": 0.1}


def run(engine, rule):
    w = torch.linspace(-2, 2, 9, dtype=torch.float64)
    runner = engine(rule, [w], RATES)
    for t in range(30):
        runner.step([w.sin() + 0.1 * t * w.cos()], RATES)
    return w


def test_epsilon_inside_the_root():
    """Both engines follow G ← G + g², w ← w − η/(1 + (t−1)κ) g / √(G + ε), written slowly in NumPy."""
    w, total = np.linspace(-2, 2, 9), np.full(9, 0.02)
    for t in range(1, 31):
        g = np.sin(w) + 0.1 * (t - 1) * np.cos(w)
        total = total + g**2
        w = w - 0.3 / (1 + 0.05 * (t - 1)) * g / np.sqrt(total + 0.1)
    for engine in (Eager, Fused):
        found = run(engine, ADAGRAD_INSIDE)
        torch.testing.assert_close(found, torch.from_numpy(w), rtol=1e-12, atol=1e-13)
        assert (found - run(engine, ADAGRAD)).abs().max() > 0.01
