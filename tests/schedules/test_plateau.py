"""Plateau does what torch's ReduceLROnPlateau does, and goes on from its state."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepwell import schedules
from stepwell.errors import UserError

settings = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.floats(0.05, 0.95),
        "patience": st.integers(0, 4),
        "threshold": st.sampled_from([0.0, 1e-4, 0.1, 0.5]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 3),
        "min_lr": st.sampled_from([0.0, 0.01, 0.2]),
        "eps": st.sampled_from([0.0, 1e-8, 0.05]),
    }
)
# Few different metrics, so that equal ones, which do not count as better, come often.
metrics = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 0.9, 1.0, 2.0, 5.0, math.nan, math.inf]), max_size=60)


@given(settings=settings, metrics=metrics)
def test_values_are_torchs(settings, metrics):
    """The same value after every metric, whatever the settings and the metrics, NaN among them."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
    ours = schedules.Plateau(0.5, **settings)
    for step, metric in enumerate(metrics):
        theirs.step(metric)
        assert ours.update(metric) == optimizer.param_groups[0]["lr"] == ours(step)


@given(settings=settings, metrics=metrics, cut=st.integers(0, 60))
def test_state_goes_on(settings, metrics, cut):
    """A new one with a saved state gives the values that the first would have given."""
    first, second = schedules.Plateau(0.5, **settings), schedules.Plateau(0.5, **settings)
    for metric in metrics[:cut]:
        first.update(metric)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [first.update(m) for m in metrics[cut:]] == [second.update(m) for m in metrics[cut:]]
    assert first(0) == second(0)


def test_stands_where_a_schedule_does():
    """After a warm-up, the value is what the metrics have made of it; a tensor is a metric too."""
    plateau = schedules.Plateau(1.0, factor=0.5, patience=1)
    rate = schedules.warm_up(plateau, 3)
    assert rate(2) == 0.75 and rate(3) == 1.0
    for _ in range(3):
        plateau.update(torch.tensor([2.0]))
    assert rate(3) == 0.5


@pytest.mark.parametrize("bad", ["0.3", None, torch.zeros(2), [1.0]], ids=repr)
def test_a_metric_that_is_no_number_is_refused(bad):
    """Nothing is counted then."""
    plateau = schedules.Plateau(1.0)
    with pytest.raises(UserError, match=r"^Plateau: metric=.*give one number"):
        plateau.update(bad)
    assert plateau.state_dict() == schedules.Plateau(1.0).state_dict()


@pytest.mark.parametrize("bad", [3, {}, {"value": 1.0}, {"value": -1.0}, {"best": "low"}], ids=repr)
def test_a_state_that_is_none_is_refused(bad):
    """A wrong state changes nothing."""
    plateau = schedules.Plateau(1.0)
    whole = plateau.state_dict()
    with pytest.raises(UserError):
        plateau.load_state_dict(
            {**whole, **bad} if isinstance(bad, dict) and len(bad) == 1 and bad != {"value": 1.0} else bad
        )
    assert plateau.state_dict() == whole
