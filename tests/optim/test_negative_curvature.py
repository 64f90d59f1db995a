"""A step along negative curvature leaves saddles that a gradient step does not."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from test_newton import parameter

from stepwell.errors import UserError
from stepwell.optim import NegativeCurvature


def test_the_lectures_saddle():
    """y = w1·w2·x at 0: gradient 0, smallest eigenvalue −2; a step of length 1 along w1 = ±w2 = 1/√2."""
    w = parameter(0.0, 0.0)
    optimizer = NegativeCurvature([w])
    before = optimizer.step(lambda: (1 - w[0] * w[1]) ** 2)
    assert optimizer.gradient_norm is not None and float(optimizer.gradient_norm) == 0 and optimizer.escaped
    assert optimizer.eigenvalue == pytest.approx(-2, abs=1e-14)
    torch.testing.assert_close(w.detach().abs(), torch.full((2,), math.sqrt(0.5), dtype=torch.float64))
    assert float(before) == 1 and float((1 - w[0] * w[1]).detach() ** 2) == pytest.approx(0.25)
    assert optimizer.products == 2


def test_elsewhere_it_is_gradient_descent():
    """Where ‖g‖ > small, w ← w − η g without a product; the threshold itself counts as small."""
    w = parameter(0.3, 0.4)
    optimizer = NegativeCurvature([w], lr=0.25, small=0.999)
    optimizer.step(lambda: w[0] ** 2 - w[1] ** 2)  # ‖g‖ = 1
    torch.testing.assert_close(w.detach(), parameter(0.15, 0.6).detach(), rtol=0, atol=1e-15)
    assert optimizer.products == 0 and optimizer.eigenvalue is None and not optimizer.escaped
    w = parameter(0.0, 0.5)
    optimizer = NegativeCurvature([w], small=1.0)
    optimizer.step(lambda: w[0] ** 2 - w[1] ** 2)  # ‖g‖ = 1
    assert optimizer.escaped and optimizer.eigenvalue == pytest.approx(-2)


@pytest.mark.parametrize("side", [1e-5, -1e-5])
def test_the_sign_is_downhill(side):
    """x² − y² from y = ±1e-5: the step goes on to the side it is on, gᵀv < 0, whatever v's sign is."""
    for seed in range(6):
        w = parameter(0.0, side)
        NegativeCurvature([w], length=0.5, seed=seed).step(lambda w=w: w[0] ** 2 - w[1] ** 2)
        torch.testing.assert_close(w.detach(), parameter(0.0, side + math.copysign(0.5, side)).detach())


def test_the_length_is_halved_until_the_loss_falls():
    """x² − y² + 54.4 y⁴ from 0: α halves from 1 to ⅛, the first with f(α) ≤ −α²/10, 54.4 α² ≤ 0.9."""
    w, tried = parameter(0.0, 0.0), []

    def closure():
        tried.append(w.detach().clone())
        return w[0] ** 2 - w[1] ** 2 + 54.4 * w[1] ** 4

    optimizer = NegativeCurvature([w])
    optimizer.step(closure)
    torch.testing.assert_close(w.detach().abs(), parameter(0.0, 0.125).detach())
    lengths = [float(t.norm()) for t in tried]
    assert lengths == pytest.approx([0, 1, 0.5, 0.25, 0.125], abs=1e-12)


@pytest.mark.parametrize(
    ("slope", "fourth", "alpha"), [(0.0, 57, 1 / 8), (0.0, 59, 1 / 16), (0.5, 303, 1 / 16)]
)
def test_how_far_the_loss_must_fall(slope, fourth, alpha):
    """x² − b y − y² + c y⁴ from 0 with length 2: f(α) ≤ −(b α + α²)/10 is c α⁴ ≤ 0.9 (b α + α²)."""
    assert fourth * alpha**4 <= 0.9 * (slope * alpha + alpha**2)
    assert fourth * (2 * alpha) ** 4 > 0.9 * (slope * 2 * alpha + (2 * alpha) ** 2)
    w = parameter(0.0, 0.0)
    optimizer = NegativeCurvature([w], small=1.0, length=2.0)
    optimizer.step(lambda: w[0] ** 2 - slope * w[1] - w[1] ** 2 + fourth * w[1] ** 4)
    torch.testing.assert_close(w.detach().abs(), parameter(0.0, alpha).detach())


def test_minima_plateaus_and_flat_valleys_are_not_escaped():
    """x² + y², (x + y)² with its flat direction, x⁴ and a constant slope of 0: a gradient step, no escape."""
    for loss in (
        lambda w: (w**2).sum(),
        lambda w: w.sum() ** 2,
        lambda w: (w**4).sum(),
        lambda w: 0 * w.sum(),
        lambda w: 1e6 * w[0] ** 2 - 1e-6 * w[1] ** 2,  # 1e-12 of the largest is rounding, not curvature
    ):
        w = parameter(1e-7, -1e-7)
        optimizer = NegativeCurvature([w], small=1.0)
        optimizer.step(lambda w=w, loss=loss: loss(w))
        assert not optimizer.escaped and optimizer.eigenvalue is not None
        g = torch.autograd.grad(loss(x := parameter(1e-7, -1e-7)), x)[0]
        torch.testing.assert_close(w.detach(), x.detach() - 0.1 * g, rtol=1e-12, atol=0)


def test_it_finds_the_way_out_of_a_deep_networks_saddle():
    """Ten parameters that multiply in pairs, all 0: gradient descent stays for ever, this reaches 0 loss."""
    u, v = (torch.zeros(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    target = torch.tensor([1.0, -2, 3, -0.5, 1.5], dtype=torch.float64)
    optimizer, losses = NegativeCurvature([u, v], lr=0.05), []
    for _ in range(400):
        losses.append(float(optimizer.step(lambda: (u * v - target).square().sum())))
    assert losses[-1] < 1e-8
    assert all(new <= old + 1e-12 for old, new in pairwise(losses))


def test_a_closure_that_fails_on_the_way_leaves_the_weights():
    """An error, or a nan, in a trial: the weights are bit for bit what they were, or a shorter α is taken."""
    w, calls = parameter(0.125, 0.25), []

    def failing():
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return (w[0] - 0.125) * (w[1] - 0.25)

    with pytest.raises(KeyboardInterrupt):
        NegativeCurvature([w]).step(failing)
    assert torch.equal(w, parameter(0.125, 0.25))
    w = parameter(0.0, 0.0)  # the logarithm is nan from 1 on
    NegativeCurvature([w], length=4.0).step(lambda: w[0] ** 2 + (1 - w[1] ** 2).log())
    assert 0 < float(w.detach().norm()) < 1


def test_each_update_draws_its_own_start_and_a_seed_repeats_it():
    """The same seed gives the same bits; another seed need not give the same sign."""
    ends = {}
    for seed in [0, 0, *range(8)]:
        w = parameter(0.0, 0.0)
        NegativeCurvature([w], seed=seed).step(lambda w=w: (1 - w[0] * w[1]) ** 2)
        ends.setdefault(seed, set()).add(tuple(w.tolist()))
    assert all(len(found) == 1 for found in ends.values())
    assert len({w[0] > 0 for found in ends.values() for w in found}) == 2
    w, signs = parameter(0.0, 0.0), set()
    optimizer = NegativeCurvature([w])
    for _ in range(8):  # from the same saddle, by the same optimizer
        with torch.no_grad():
            w.zero_()
        optimizer.step(lambda: (1 - w[0] * w[1]) ** 2)
        signs.add(float(w[0].detach()) > 0)
    assert len(signs) == 2


def test_values_that_cannot_be():
    """`steps` and `seed` are whole numbers, `small` and `length` numbers in their ranges."""
    cases: tuple[dict[str, Any], ...] = (
        {"steps": 0},
        {"steps": 2.5},
        {"seed": 0.5},
        {"seed": -1},
        {"small": -1.0},
        {"length": 0.0},
    )
    for wrong in cases:
        with pytest.raises(UserError, match=next(iter(wrong))):
            NegativeCurvature([parameter(1.0)], **wrong)
