"""Runs an optimizer, and a paper's algorithm in NumPy, on one problem with three parameters."""

import math

import numpy as np
import torch

SHAPES = ((3, 4), (5,), ())
ENGINES = ("eager", "fused")


def rate(k, base=0.05):
    """A learning rate that rises and falls; k counts from 0."""
    return base * (1.2 + math.sin(0.7 * k))


def start():
    random = np.random.default_rng(0)
    return [random.normal(size=shape) for shape in SHAPES]


def gradient(i, w, k):
    """The gradient of parameter i at step k: a bowl whose centre wanders, so that signs change."""
    slopes = np.linspace(0.3, 2.0, w.size).reshape(w.shape)
    return slopes * (w - np.cos(1.3 * k + i)) + 0.2 * np.sin(5 * w)


def by_optimizer(make, steps=40, base=0.05, gap=None):
    """The weights after each step of `make(parameters)`; gap: (k, i) have no gradient."""
    parameters = [torch.tensor(w, requires_grad=True) for w in start()]
    optimizer = make(parameters)
    weights = []
    for k in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(k, base)
        for i, p in enumerate(parameters):
            there = not (gap and (k, i) in gap)
            p.grad = torch.tensor(gradient(i, p.detach().numpy(), k)) if there else None
        optimizer.step()
        weights.append([p.detach().numpy().copy() for p in parameters])
    return weights


def by_paper(algorithm, steps=40, base=0.05, gap=None):
    """The same by one `algorithm()` a parameter: a function (w, gradient at w, step from 1, η) → w."""
    parameters, algorithms = start(), [algorithm() for _ in SHAPES]
    times, weights = [0] * len(SHAPES), []
    for k in range(steps):
        for i, w in enumerate(parameters):
            if not (gap and (k, i) in gap):
                times[i] += 1
                parameters[i] = algorithms[i](w, gradient(i, w, k), times[i], rate(k, base))
        weights.append([w.copy() for w in parameters])
    return weights


def assert_same(ours, theirs, rtol=1e-10):
    """Every weight after every step."""
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-12, err_msg=f"after step {k + 1}")
