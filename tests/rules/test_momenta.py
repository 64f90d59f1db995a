"""Momentum and Nesterov in their two forms each, and the slips that the notes carry."""

import numpy as np
import pytest
import torch
from trajectories import ENGINES, assert_same, by_optimizer, by_paper, gradient, rate, start

from stepwell.optim import SGD, MomentumDisplacement, NesterovClassic

RHO = 0.8


def classic_by_hand(steps, change=True):
    """v ← ρ v − η ∇f(w + ρ v); w ← w + v, with the gradient taken where the formula says.

    Returns the points where gradients were taken from the second on, and the last weights."""
    weights, velocities, looked = start(), [np.zeros_like(w) for w in start()], []
    for k in range(steps):
        lr = rate(k if change else 0)
        for i, (w, v) in enumerate(zip(weights, velocities, strict=True)):
            velocities[i] = RHO * v - lr * gradient(i, w + RHO * v, k)
            weights[i] = w + velocities[i]
        looked.append([w + RHO * v for w, v in zip(weights, velocities, strict=True)])
    return looked, weights


@pytest.mark.parametrize("engine", ENGINES)
def test_both_nesterov_forms_are_equal(engine):
    """The parameters stand where the classic form looks ahead to, at every step and while η changes."""
    ours = by_optimizer(lambda p: NesterovClassic(p, momentum=RHO, engine=engine))
    assert_same(ours, classic_by_hand(40)[0])


def test_the_classic_weights_can_be_told():
    """ŵ − ρ v is the classic form's w."""
    kept = {}

    def make(p):
        kept["optimizer"] = NesterovClassic(p, momentum=RHO)
        return kept["optimizer"]

    looked = by_optimizer(make)[-1]
    state = [value["velocity"].numpy() for value in kept["optimizer"].state.values()]
    told = [w - RHO * v for w, v in zip(looked, state, strict=True)]
    assert_same([told], [classic_by_hand(40)[1]])


def test_a_plus_sign_in_nesterovs_velocity_is_seen():
    """With the notes' slip, v ← ρ v + η ∇f, the run climbs: ours differs from it after one step."""
    ours = by_optimizer(lambda p: NesterovClassic(p, momentum=RHO), steps=1)
    slip = [w + (1 + RHO) * rate(0) * gradient(i, w, 0) for i, w in enumerate(start())]
    right = [w - (1 + RHO) * rate(0) * gradient(i, w, 0) for i, w in enumerate(start())]
    assert_same(ours, [right])
    assert not np.allclose(ours[0][0], slip[0])


def run(make, rates):
    """The weight 1 of w²/2 under these rates."""
    p = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = make([p])
    for lr in rates:
        optimizer.param_groups[0]["lr"] = lr
        p.grad = p.detach().clone()
        optimizer.step()
    return p.item()


def test_torchs_nesterov_is_the_classic_one_only_while_the_rate_stays():
    """Equal at a constant rate; apart once it changes, since torch's velocity forgets its rate."""
    classic = lambda p: NesterovClassic(p, momentum=RHO)  # noqa: E731
    torchs = lambda p: SGD(p, momentum=RHO, nesterov=True)  # noqa: E731
    assert run(classic, [0.1] * 30) == pytest.approx(run(torchs, [0.1] * 30), rel=1e-12)
    assert abs(run(classic, [0.1, 0.02]) - run(torchs, [0.1, 0.02])) > 1e-3


def test_momentums_two_forms_differ_once_the_rate_changes():
    """One step each at 0.1 and 0.01, by hand: the velocity form gives the old gradient the new rate."""
    velocity = lambda p: SGD(p, momentum=RHO)  # noqa: E731
    displacement = lambda p: MomentumDisplacement(p, momentum=RHO)  # noqa: E731
    assert run(velocity, [0.1] * 30) == pytest.approx(run(displacement, [0.1] * 30), rel=1e-12)
    # g = 1, then 0.9: v = 0.8 · 1 + 0.9, and m = 0.8 · (−0.1) − 0.01 · 0.9.
    assert run(velocity, [0.1, 0.01]) == pytest.approx(0.9 - 0.01 * 1.7, abs=1e-15)
    assert run(displacement, [0.1, 0.01]) == pytest.approx(0.9 - 0.08 - 0.009, abs=1e-15)


def velocity_by_hand():
    v = 0.0

    def step(w, g, t, lr):
        nonlocal v
        v = RHO * v + g
        return w - lr * v  # the notes' slip is a plus here

    return step


@pytest.mark.parametrize("engine", ENGINES)
def test_momentum_in_the_velocity_form(engine):
    """v ← ρ v + g; w ← w − η v, while η changes: it fails on the notes' plus sign from the first step on."""
    ours = by_optimizer(lambda p: SGD(p, momentum=RHO, engine=engine))
    assert_same(ours, by_paper(velocity_by_hand))


def displacement_by_hand():
    m = 0.0

    def step(w, g, t, lr):
        nonlocal m
        m = RHO * m - lr * g  # the notes' slip is a plus before η
        return w + m

    return step


@pytest.mark.parametrize("engine", ENGINES)
def test_momentum_in_the_displacement_form(engine):
    """m ← λ m − η g; w ← w + m, while η changes: it fails on the notes' plus sign from the first step on."""
    ours = by_optimizer(lambda p: MomentumDisplacement(p, momentum=RHO, engine=engine))
    assert_same(ours, by_paper(displacement_by_hand))
    assert np.all((ours[0][0] < start()[0]) == (gradient(0, start()[0], 0) > 0))
