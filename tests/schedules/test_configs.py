"""The recipe's schedules: shares of the run become lengths."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stepwell import schedules
from stepwell.errors import UserError
from stepwell.recipe import read_recipe
from stepwell.schedules.configs import SCHEDULES, build, cycle_ends


def built(name, lr, updates, **keys):
    return build(SCHEDULES[name].model_validate({"name": name, **keys}), lr, updates)


@given(name=st.sampled_from(sorted(SCHEDULES)), updates=st.integers(1, 500), lr=st.floats(0, 10))
def test_every_schedule_stays_within_bounds(name, updates, lr):
    """At every update of a run of any length the rate is finite, not negative and at most the set rate."""
    rate = built(name, lr, updates)
    values = [rate(k) for k in range(updates + 1)]
    assert all(math.isfinite(v) and -1e-12 <= v <= lr * (1 + 1e-9) for v in values)
    if updates >= 40:
        assert max(values[:updates]) >= 0.9 * lr  # the top of a triangle may lie between two


# Name and keys → the function with its lengths written out, for a run of 200 updates at rate 0.3.
WRITTEN_OUT = [
    ("constant", {"warmup": 0.1}, schedules.warm_up(schedules.constant(0.3), 20)),
    ("step", {"every": 0.25, "factor": 0.5}, schedules.step(0.3, 50, 0.5)),
    ("exponential", {"end": 0.1}, schedules.exponential(0.3, math.log(10) / 200)),
    ("inverse-time", {"end": 0.2}, schedules.inverse_time(0.3, 4 / 200)),
    ("polynomial", {"power": 3, "end": 0.1, "warmup": 0}, schedules.polynomial(0.3, 200, 3, 0.03)),
    ("linear", {"warmup": 0.25}, schedules.warm_up(schedules.linear(0.3, 150), 50)),
    ("cosine", {"end": 0.5}, schedules.warm_up(schedules.cosine(0.3, 190, 0.15), 10)),
    (
        "restarts",
        {"cycles": 3, "growth": 2, "warmup": 0.3},
        schedules.warm_up(schedules.restarts(0.3, 20, 2), 60),
    ),
    ("restarts", {"cycles": 4, "growth": 1}, schedules.restarts(0.3, 50)),
    ("cyclical", {"cycles": 5, "low": 0.2}, schedules.cyclical(0.06, 0.3, 20)),
    ("cyclical", {"kind": "triangular2", "low": 0}, schedules.cyclical(0, 0.3, 25, kind="triangular2")),
    (
        "cyclical",
        {"kind": "exp_range", "height": 0.5},
        schedules.cyclical(0.03, 0.3, 25, kind="exp_range", decay=0.5 ** (1 / 200)),
    ),
    ("one-cycle", {"rise": 0.4, "low_momentum": 0.8}, schedules.one_cycle(0.3, 200, 0.4)),
    (
        "plateau",
        {"warmup": 0.1, "factor": 0.5, "patience": 3, "threshold": 0.1},
        schedules.warm_up(schedules.constant(0.3), 20),
    ),
    (
        "warm-up-stable-decay",
        {"warmup": 0.1, "decay": 0.5, "shape": "linear", "end": 0.1},
        schedules.warm_up_stable_decay(0.3, 20, 90, 90, "linear", 0.03),
    ),
    (
        "swa",
        {"warmup": 0.1, "start": 0.5, "cycles": 3, "high": 0.4, "low": 0.1},
        schedules.warm_up(
            schedules.join([schedules.cosine(0.3, 90, 0.12), schedules.sawtooth(0.12, 30, 0.03)], [90]), 20
        ),
    ),
]


@pytest.mark.parametrize(
    ("name", "keys", "ends"),
    [
        ("cosine", {}, []),
        ("cyclical", {"cycles": 4}, [50, 100, 150, 200]),
        ("cyclical", {"cycles": 2.5}, [80, 160]),
        ("restarts", {"cycles": 3, "growth": 2, "warmup": 0.3}, [80, 120, 200]),
        ("swa", {"warmup": 0.1, "start": 0.5, "cycles": 3}, [140, 170, 200]),
    ],
)
def test_cycles_end_where_the_rate_is_lowest(name, keys, ends):
    """The ends of a run of 200 updates; the rate after each, if it is not the run's, is not lower there."""
    config = SCHEDULES[name].model_validate({"name": name, **keys})
    assert cycle_ends(config, 200) == pytest.approx(ends)
    rate = build(config, 0.3, 200)
    for end in ends[:-1]:
        assert rate(end - 1) < 1.2 * rate(end + 5) and rate(end - 1) <= rate(end - 6)


@pytest.mark.parametrize(("name", "keys", "wanted"), WRITTEN_OUT, ids=lambda value: str(value)[:50])
def test_shares_are_lengths(name, keys, wanted):
    """Each name and each of its keys."""
    rate = built(name, 0.3, 200, **keys)
    assert [rate(t) for t in range(200)] == pytest.approx(
        [wanted(t) for t in range(200)], rel=1e-9, abs=1e-15
    )


def test_every_name_and_key_is_written_out():
    """A new key of a new schedule is tested too."""
    told = {(name, key) for name, keys, _ in WRITTEN_OUT for key in keys}
    keys = {(name, key) for name, kind in SCHEDULES.items() for key in kind.model_fields if key != "name"}
    shared = {(name, key) for name, key in keys if key in ("warmup", "end")}
    assert {name for name, _, _ in WRITTEN_OUT} == set(SCHEDULES) and keys - shared <= told


def test_lengths_scale_with_the_run():
    """A run ten times as long has the same curve."""
    for name in SCHEDULES:
        short, long = built(name, 1.0, 1000), built(name, 1.0, 10_000)
        far = [t for t in range(1000) if abs(short(t) - long(10 * t)) > 0.02]
        assert len(far) <= 4, (name, far)  # a cut may fall one step to the other side


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"schedule": "cyclical", "schedule.height": 0.5}, "height has no effect with kind=triangular"),
        ({"schedule": "cyclical", "schedule.kind": "triangle"}, "triangular, triangular2, exp_range"),
        ({"schedule": "one-cycle", "schedule.warmup": 0.1}, "schedule.warmup has no effect"),
        ({"schedule": "one-cycle", "schedule.low_momentum": 1}, "low_momentum"),
        ({"schedule": "one-cycle", "schedule.low_momentum": 0}, "low_momentum"),
        ({"schedule": "plateau", "schedule.factor": 1}, "factor"),
        ({"schedule": "plateau", "schedule.patience": -1}, "at least 0"),
        ({"schedule": "restarts", "schedule.cycles": 0}, "at least 1"),
        ({"schedule": "polynomial", "schedule.power": 0}, "above 0"),
        ({"schedule": "inverse-time", "schedule.end": 0}, "above 0"),
        ({"schedule": "warm-up-stable-decay", "schedule.shape": "sqrt"}, "1-sqrt"),
        ({"schedule": "inverse_time"}, "did you mean inverse-time"),
    ],
)
def test_wrong_keys_are_refused(words, said):
    """In a recipe, by the names and ranges of the keys."""
    with pytest.raises(UserError, match=said):
        read_recipe(None, words)
    with pytest.raises(ValidationError):
        SCHEDULES["cosine"].model_validate({"warmup": 1.0})
