"""What a range test makes of losses: the rule, on curves whose numbers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.errors import UserError
from stepwell.populations.range_test import BlowUp, judge, rising

RATES = rising(1e-6, 1e1, 200)
X = np.log10(RATES)


def curve(first: float = 2.0, rise: float = 8.0) -> np.ndarray:
    """Level at `first` up to 10⁻⁴, down a line to 0 at 10⁻², level to 10⁻¹, then up by `rise` a decade."""
    fall = np.clip(-(X + 4) / 2, -1, 0) * first
    return first + fall + rise * np.maximum(X + 1, 0)


def test_the_ends_of_a_known_curve_are_found():
    """Ten per cent of the line are done at 10^−3.8, ninety at 10^−2.2, and it rises from 10^−1 on.

    Smoothing over 0.12 decades rounds the corners: a quarter of a decade is allowed.
    """
    found = judge(RATES, curve()[None])
    assert found.rate and found.low and found.high
    for rate, x in ((found.low, -3.8), (found.rate, -2.2), (found.high, -1.0)):
        assert abs(math.log10(rate) - x) < 0.25
    assert found.spread == (found.rate, found.rate) and not found.notes


def test_a_small_fall_is_said_to_be_one():
    """A loss that falls from 100 to 99 has a rate, and a note; one that falls to 90 has none."""
    small, larger = (judge(RATES, 100 - share + share / 2 * curve(rise=80.0)[None]) for share in (1, 10))
    assert small.rate and len(small.notes) == 1 and "more than 1 %" in small.notes[0]
    assert larger.rate and not larger.notes


@pytest.mark.parametrize("height", [1e3, 1e30, math.inf, math.nan])
def test_the_blow_up_does_not_reach_back(height: float):
    """However high the loss flies from 10⁰ on, and if it is cut there, the three rates stay the same."""
    losses = curve()
    losses[X > 0] = height
    first, found = judge(RATES, curve()[None]), judge(RATES, losses[None])
    assert (found.low, found.rate, found.high) == (first.low, first.rate, first.high)


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-100, 100), st.floats(1e-5, 1e5))
def test_units_do_not_matter(scale: float, shift: float, unit: float):
    """Losses in other units or with a constant added, and rates in other units, give the same rate."""
    noise = np.random.default_rng(0).normal(size=(3, 200)) * 0.1
    first = judge(RATES, curve() + noise)
    other = judge([unit * rate for rate in RATES], scale * (curve() + noise) + shift)
    assert first.rate and other.rate
    np.testing.assert_allclose(other.picks, first.picks * unit, rtol=1e-9)
    assert other.rate == pytest.approx(first.rate * unit, rel=0.11)  # both have two digits


def test_noise_is_no_fall():
    """Of 400 curves of noise alone at most 2 % show a rate, and of five seeds together none does.

    A minimum of some 15 independent means four standard errors below: 15 · 3e-5, and the noise is itself
    estimated; 2 % is far above.
    """
    noise = 1 + np.random.default_rng(0).normal(size=(400, 200))
    alone = [judge(RATES, row[None]).rate is not None for row in noise]
    assert sum(alone) <= 8
    assert all(judge(RATES, rows).rate is None for rows in noise.reshape(80, 5, 200))


@pytest.mark.parametrize(
    "losses",
    [
        np.full(200, 0.0),
        np.full(200, 3.0),
        np.linspace(1, 5, 200),
        np.where(np.arange(200) < 4, 1.0, 5.0),
        np.full(200, math.nan),
    ],
)
def test_a_loss_that_does_not_fall_has_no_rate(losses: np.ndarray):
    """Constant, rising or not finite at all: there is no rate."""
    found = judge(RATES, losses[None])
    assert found.rate is found.low is found.high is found.spread is None


def test_the_median_of_the_seeds_counts():
    """Of five seeds, shifted by decades, the middle one's rates are taken; two that fail are told."""
    rows = np.stack([np.interp(X - shift, X, curve()) for shift in (-1, 0, 0.5, 0, 1)])
    assert judge(RATES, rows).rate == judge(RATES, curve()[None]).rate
    rows[:2] = 1.0
    found = judge(RATES, rows)
    assert found.rate and any("2 of 5 seeds" in note for note in found.notes)
    rows[2] = 1.0
    assert judge(RATES, rows).rate is None


def test_a_range_that_is_too_short_is_told():
    """Cut off before it rises, or begun where it falls already: a note says so."""
    before, after = X < -1.5, X > -3
    notes = judge(np.array(RATES)[before].tolist(), curve()[None, before]).notes
    assert len(notes) == 1 and "did not rise" in notes[0]
    notes = judge(np.array(RATES)[after].tolist(), curve()[None, after]).notes
    assert len(notes) == 1 and "from the lowest rate on" in notes[0]


def test_rates_rise_by_a_factor():
    """From low to high, each as many times the one before."""
    rates = np.array(rising(1e-5, 1e-1, 41))
    np.testing.assert_allclose(rates[[0, 20, 40]], [1e-5, 1e-3, 1e-1])
    np.testing.assert_allclose(rates[1:] / rates[:-1], 10**0.1)


@pytest.mark.parametrize(
    ("low", "high", "updates", "what"),
    [
        (1.0, 1.0, 100, "low=1 is not below high=1"),
        (0.0, 1.0, 100, "low=0.0"),
        (0.1, math.inf, 100, "high=inf"),
        (0.1, math.nan, 100, "high=nan"),
        (0.1, 1.0, 9, "updates=9"),
    ],
)
def test_a_range_that_is_none_is_refused(low: float, high: float, updates: int, what: str):
    """One sentence names the value."""
    with pytest.raises(UserError, match=what):
        rising(low, high, updates)


def test_when_losses_have_blown_up():
    """From 2, level: the mean m = 2 + (l − 2)/5 of a jump to l passes 4 · 2 at l = 32, not before."""
    for jump, end in ((31.9, False), (32.1, True), (math.nan, True), (math.inf, True)):
        blow_up = BlowUp()
        assert not any(blow_up.seen(2.0) for _ in range(5))
        assert blow_up.seen(jump) is end
