"""Schedules give torch's values where torch has them, and closed forms elsewhere."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepwell import schedules
from stepwell.schedules.configs import SCHEDULES, build


def torchs(make, steps, lr=0.5):
    """The rates that torch's scheduler gives at each step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler, values = make(optimizer), []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.step()
            scheduler.step()
    return values


@pytest.mark.parametrize("steps", [10, 137])
def test_values_are_torchs(steps):
    """Cosine, step, exponential and one-cycle equal torch's schedulers at every step."""
    t = torch.optim.lr_scheduler
    pairs = [
        (schedules.cosine(0.5, steps, 0.01), lambda o: t.CosineAnnealingLR(o, steps, 0.01)),
        (schedules.step(0.5, 4, 0.3), lambda o: t.StepLR(o, 4, 0.3)),
        (schedules.exponential(0.5, 0.07), lambda o: t.ExponentialLR(o, math.exp(-0.07))),
        (schedules.one_cycle(0.5, steps), lambda o: t.OneCycleLR(o, 0.5, steps, cycle_momentum=False)),
    ]
    for ours, theirs in pairs:
        assert [ours(k) for k in range(steps)] == pytest.approx(torchs(theirs, steps), rel=1e-9, abs=1e-12)


def test_warm_up_rises_linearly_and_then_follows():
    """After the rise the schedule runs as if it had begun then."""
    after = schedules.cosine(1.0, 20)
    values = [schedules.warm_up(after, 4)(k) for k in range(24)]
    assert values[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert values[4:] == [after(k) for k in range(20)]


@given(name=st.sampled_from(sorted(SCHEDULES)), updates=st.integers(10, 500), lr=st.floats(1e-6, 10))
def test_every_schedule_stays_within_bounds(name, updates, lr):
    """At every update of a run of any length the rate is finite, not negative and at most the set rate."""
    schedule = build(SCHEDULES[name].model_validate({}), lr, updates)
    values = [schedule(k) for k in range(updates + 1)]
    assert all(math.isfinite(v) and -1e-12 <= v <= lr * (1 + 1e-9) for v in values)
    assert max(values[:updates]) >= lr * (0.5 if updates < 40 else 0.98)
