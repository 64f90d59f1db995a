"""The line search looks where torch's looks, and what it returns satisfies the strong Wolfe conditions."""

import math

import pytest
import torch
from torch.optim.lbfgs import _strong_wolfe

from stepwell.optim.line_search import Point, cubic_minimum, strong_wolfe


def wiggle(seed):
    """A line that falls at 0, with hills and valleys, and its slope."""
    random = torch.Generator().manual_seed(seed)
    size, turns, phase = torch.rand(3, 4, generator=random, dtype=torch.float64)
    bend = 10 ** (4 * torch.rand((), generator=random, dtype=torch.float64) - 3)

    def f(t):
        t = torch.tensor(float(t), dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            loss = (size * torch.sin(8 * turns * t + 7 * phase)).sum() + bend * (t - 3) ** 2
            (slope,) = torch.autograd.grad(loss, t)
        return float(loss.detach()), float(slope)

    return f


def cases():
    falling = [seed for seed in range(400) if wiggle(seed)(0.0)[1] < -0.1]
    return [(seed, step) for seed in falling for step in (0.01, 1.0, 30.0)]


@pytest.mark.parametrize("most", [0, 1, 3, 25])
def test_it_looks_where_torchs_looks(most):
    """On hundreds of wiggly lines the steps looked at, one after another, are those of torch's search."""
    for seed, first in cases():
        f, mine, theirs = wiggle(seed), [], []

        def at(t, f=f, seen=mine):
            seen.append(float(t))
            loss, slope = f(t)
            return Point(t, loss, slope, torch.tensor([slope], dtype=torch.float64))

        def torchs(x, t, d, f=f, seen=theirs):
            seen.append(float(t))
            loss, slope = f(t)
            return loss, torch.tensor([slope], dtype=torch.float64)

        start = at(0.0)
        mine.clear()
        found, looked = strong_wolfe(at, start, first, most, narrow=1e-9)
        one = torch.ones(1, dtype=torch.float64)
        _, _, t, calls = _strong_wolfe(
            torchs, [], first, one, start.loss, start.gradient, start.gradient.dot(one), max_ls=most
        )
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-12), seed
        assert looked == calls == len(mine)
        assert found.step == pytest.approx(float(t), rel=1e-9, abs=1e-12)


def test_the_conditions_hold():
    """f(t) ≤ f(0) + c1 t s(0) and |s(t)| ≤ −c2 s(0), wherever the search ends before its tries do."""
    held = 0
    for seed, first in cases():
        f = wiggle(seed)

        def at(t, f=f):
            loss, slope = f(t)
            return Point(t, loss, slope, torch.tensor([slope]))

        start = at(0.0)
        found, looked = strong_wolfe(at, start, first, most=40, narrow=1e-12)
        if looked <= 40:
            assert found.loss <= start.loss + 1e-4 * found.step * start.slope
            assert abs(found.slope) <= -0.9 * start.slope
            held += 1
    assert held > 300


def test_the_cubics_minimum():
    """Through two points of t³ − 3t it is 1; without a minimum between them, the middle or an end."""

    def point(t):
        return Point(t, t**3 - 3 * t, 3 * t**2 - 3, torch.zeros(1))

    assert cubic_minimum(point(0.0), point(2.5), 0.0, 2.5) == pytest.approx(1.0)
    assert cubic_minimum(point(2.5), point(0.0), 0.0, 2.5) == pytest.approx(1.0)
    assert cubic_minimum(point(0.0), point(2.5), 1.5, 2.5) == 1.5
    infinite = Point(2.0, math.inf, math.nan, torch.zeros(1))
    assert cubic_minimum(point(0.0), infinite, 0.0, 2.0) == 1.0
