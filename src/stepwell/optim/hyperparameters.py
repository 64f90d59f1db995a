"""What hyperparameters may be: numbers in a range, one-element tensors, schedules."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from stepwell.errors import UserError

ABOVE_0 = math.nextafter(0, 1)

# The range of each hyperparameter: low ≤ value < high. A tuple has one for each of its parts.
RANGES: dict[str, tuple[Any, ...]] = {
    "lr": (0.0, math.inf),
    "betas": (0.0, 1.0),
    "eps": (0.0, math.inf),
    "momentum": (0.0, 1.0),
    "weight_decay": (0.0, math.inf),
    "decay": (0.0, math.inf),
    "l1": (0.0, math.inf),
    "ema": (0.0, 1.0),
    "clip_norm": (ABOVE_0, math.inf),
    "clip_value": (ABOVE_0, math.inf),
    "clip_adaptive": (ABOVE_0, math.inf),
    "damping": (0.0, math.inf),
    "tolerance": (0.0, 1.0),
    "small": (0.0, math.inf),
    "length": (ABOVE_0, math.inf),
}

LENGTHS = {"betas": 2}  # of those that are tuples
OPTIONAL = {"ema", "clip_norm", "clip_value", "clip_adaptive", "tolerance"}  # None is off

# Those of torch's arguments that ask for what is not here: their plain value, and what to do without them.
NOT_HERE: dict[str, tuple[Any, str]] = {
    "differentiable": (False, "leave it at False, or use torch.optim's class of the same name"),
}


def number(value: Any) -> float:
    """A hyperparameter as a Python number; of a tensor on a GPU this waits for it."""
    return value if isinstance(value, (int, float)) else float(value)


def take_schedules(group: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The group with each schedule replaced by its value at the start (or where `updates` says), and the
    schedules by name; of a tuple with schedules in it, the tuple."""
    made, plain, schedules = group.get("updates", 0), dict(group), {}
    for name, value in group.items():
        if name not in RANGES:
            continue
        if callable(value) and not isinstance(value, Tensor):
            schedules[name], plain[name] = value, value(made)
        elif isinstance(value, (tuple, list)) and any(map(callable, value)):
            schedules[name] = tuple(value)
            plain[name] = tuple(v(made) if callable(v) else v for v in value)
    return plain, schedules


def check_names(kind: str, given: Iterable[str], known: list[str]) -> None:
    """Refuses an argument that the optimizer does not have."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise UserError(f"{kind} has no argument {name}; {hint}")


def check_group(kind: str, group: Mapping[str, Any]) -> None:
    """Refuses values that would spoil the weights, or be passed over, without a word."""
    for name, value in group.items():
        if name in NOT_HERE:
            plain, advice = NOT_HERE[name]
            if not (isinstance(value, (bool, int, float)) and value == plain):
                raise UserError(f"{name}={value!r} asks for an update that is not here: {advice}")
        elif name in RANGES and not (value is None and name in OPTIONAL):
            _check(name, value)
    if kind in ("Adam", "AdamW"):
        _check_tensors(group)


def _check(name: str, value: Any) -> None:
    limits = RANGES[name]
    length = LENGTHS.get(name)
    if length is None:
        parts, ranges = (value,), (limits,)
    else:
        parts = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        ranges = limits if isinstance(limits[0], tuple) else (limits,) * length
        if len(parts) == length and len({isinstance(v, Tensor) for v in parts}) > 1:
            raise UserError(
                f"{name}={value!r} cannot be used: {name} must be either all floats or all tensors"
            )
    if isinstance(value, Tensor) and value.numel() != 1:
        raise UserError(
            f"a tensor as {name} must have 1 element, not {value.numel()} (Tensor {name} must be 1-element)"
        )
    if len(parts) == len(ranges) and all(_within(v, *r) for v, r in zip(parts, ranges, strict=True)):
        return
    what = "a number" if length is None else f"{('two', 'three', 'four')[length - 2]} numbers"
    bounds = " and ".join(_bound(*r) for r in dict.fromkeys(ranges))
    raise UserError(f"{name}={value!r} cannot be used: give {what} {bounds}")


def _bound(low: float, high: float) -> str:
    text = "above 0" if low == ABOVE_0 else f"of at least {low:g}" if low > -math.inf else "of any size"
    return text + (f" and below {high:g}" if high < math.inf else "")


def _within(value: Any, low: float, high: float) -> bool:
    if type(value) is float:  # the common case, once an update
        return low <= value < high
    if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
        return False
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return value.numel() == 1  # to look at it would wait for the device
    return (not isinstance(value, Tensor) or value.numel() == 1) and low <= float(value) < high


def _check_tensors(group: Mapping[str, Any]) -> None:
    """As torch's Adam, whose foreach form takes no tensors unless it is capturable."""
    if group.get("foreach") and not group.get("capturable"):
        for name in ("lr", "betas"):
            value = group.get(name)
            parts = value if isinstance(value, (tuple, list)) else (value,)
            if any(isinstance(v, Tensor) for v in parts):
                raise UserError(f"{name} is a tensor, which foreach=True takes only with capturable=True")
