"""A schedule that would be wrong is refused when it is made, in one sentence that names the argument."""

import inspect
import math

import numpy as np
import pytest
import torch

from stepwell import schedules
from stepwell.errors import UserError

s = schedules
one = s.constant(1.0)

# Each function with arguments that are right.
RIGHT = {
    "constant": {"value": 0.1},
    "step": {"value": 0.1, "every": 10},
    "multi_step": {"value": 0.1, "milestones": [3, 7]},
    "exponential": {"value": 0.1, "rate": 0.1},
    "inverse_time": {"value": 0.1, "rate": 0.1},
    "polynomial": {"value": 0.1, "steps": 10},
    "linear": {"value": 0.1, "steps": 10},
    "cosine": {"value": 0.1, "steps": 10},
    "restarts": {"value": 0.1, "first": 10},
    "cyclical": {"start": 0.1, "peak": 1, "rise": 10, "kind": "exp_range"},
    "one_cycle": {"value": 0.1, "steps": 10},
    "one_cycle_momentum": {"steps": 10},
    "warm_up": {"schedule": one, "steps": 10},
    "warm_up_stable_decay": {"value": 0.1, "rise": 1, "stable": 5, "decay": 5},
    "join": {"schedules": [one, one], "boundaries": [4]},
    "scale": {"schedule": one, "factor": 2},
    "chain": {"schedules": [one]},
    "multiplicative": {"value": 0.1, "factor": one},
    "average": {"start": 3, "every": 2},
    "sawtooth": {"value": 0.1, "length": 10},
    "Plateau": {"value": 0.1},
}


def test_every_function_is_here():
    """A new schedule is tested too."""
    assert set(RIGHT) == set(schedules.__all__) - {"Schedule", "LRScheduler"}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, "0.1", True, {3: 4}, None, torch.tensor(0.1), 1j], ids=repr
)
def test_each_argument_is_checked(name, bad):
    """NaN, infinities and wrong types are refused for every argument but the truth value."""
    make = getattr(schedules, name)
    assert make(**RIGHT[name]) is not None
    for argument, parameter in inspect.signature(make).parameters.items():
        if argument != "three_phase" and bad is not parameter.default:
            with pytest.raises(UserError, match=rf"^{name}: {argument}\b.*: give .+[^.]$") as caught:
                make(**RIGHT[name] | {argument: bad})
            assert "\n" not in str(caught.value)


# Function, arguments over the right ones → what the sentence says.
WRONG = [
    ("constant", {"value": -0.1}, "of at least 0"),
    ("step", {"every": 0}, "above 0"),
    ("step", {"factor": -1}, "of at least 0"),
    ("multi_step", {"milestones": [7, 3]}, "in order"),
    ("multi_step", {"milestones": [-1, 3]}, r"milestones\[0\]"),
    ("inverse_time", {"rate": -0.1}, "of at least 0"),
    ("polynomial", {"power": 0}, "above 0"),
    ("linear", {"steps": -5}, "above 0"),
    ("cosine", {"steps": 0}, "above 0"),
    ("cosine", {"end": -1}, "of at least 0"),
    ("restarts", {"growth": 0.5}, "of at least 1"),
    ("cyclical", {"rise": 0}, "above 0"),
    ("cyclical", {"fall": -1}, "of at least 0"),
    ("cyclical", {"kind": "triangle"}, "triangular2"),
    ("cyclical", {"kind": "triangular", "decay": 0.9}, "no effect"),
    ("one_cycle", {"rise": 1.1}, "at most 1"),
    ("one_cycle", {"rise": 0.6, "three_phase": True}, "at most 0.5"),
    ("one_cycle", {"shape": "cos"}, "cosine, linear"),
    ("one_cycle", {"end_factor": 0}, "above 0"),
    ("one_cycle_momentum", {"high": 1}, "below 1"),
    ("warm_up", {"schedule": 0.1}, "a function of the step"),
    ("warm_up", {"steps": -1}, "of at least 0"),
    ("warm_up_stable_decay", {"decay": 0}, "above 0"),
    ("warm_up_stable_decay", {"shape": "sqrt"}, "1-sqrt"),
    ("join", {"boundaries": [1, 2]}, "2 schedules need 1 boundaries, not 2"),
    ("join", {"schedules": [one, 2.0]}, r"schedules\[1\]=2.0"),
    ("join", {"schedules": [one] * 3, "boundaries": [5, 4]}, "in order"),
    ("chain", {"schedules": []}, "at least one"),
    ("scale", {"factor": -2}, "of at least 0"),
    ("Plateau", {"factor": 1.0}, "below 1"),
    ("Plateau", {"mode": "lowest"}, "min, max"),
    ("Plateau", {"patience": -1}, "of at least 0"),
]


@pytest.mark.parametrize(("name", "changes", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_ranges_are_checked(name, changes, said):
    """Lengths that are no lengths, values below 0, steps in disorder and unknown words are refused."""
    with pytest.raises(UserError, match=said):
        getattr(schedules, name)(**RIGHT[name] | changes)


def test_numbers_of_other_libraries_are_numbers():
    """NumPy's scalars are taken, and values come out as Python's floats."""
    for value in (np.float32(0.5), np.float64(0.5), np.int64(1), 1):
        made = s.cosine(value, np.int32(9))  # type: ignore[arg-type]
        assert type(made(0)) is float and made(0) == float(value)
    assert type(s.constant(1)(0)) is float
