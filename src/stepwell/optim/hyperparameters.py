"""What hyperparameters may be: numbers in a range, one-element tensors, schedules."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from torch import Tensor

from stepwell.errors import UserError

ABOVE_0, ABOVE_1 = math.nextafter(0, 1), math.nextafter(1, 2)
ANY = (-sys.float_info.max, math.inf)

# The range of each hyperparameter: low ≤ value < high. A tuple has one for each of its parts. A class for
# which a name means something else says so in its `ranges`.
RANGES: dict[str, tuple[Any, ...]] = {
    "lr": (0.0, math.inf),
    "alpha": (0.0, 1.0),
    "betas": (0.0, 1.0),
    "eps": (0.0, math.inf),
    "etas": ((ABOVE_0, 1.0), (ABOVE_1, math.inf)),
    "history_size": (1.0, math.inf),
    "initial_accumulator_value": (0.0, math.inf),
    "lambd": (0.0, math.inf),
    "lr_decay": (0.0, math.inf),
    "max_eval": (1.0, math.inf),
    "max_iter": (1.0, math.inf),
    "momentum": (0.0, 1.0),
    "momentum_decay": (0.0, math.inf),
    "dampening": ANY,
    "rho": (0.0, 1.0),
    "step_sizes": (0.0, math.inf),
    "t0": ANY,
    "tolerance_change": (0.0, math.inf),
    "tolerance_grad": (0.0, math.inf),
    "alpha_warmup": (0.0, math.inf),
    "beta3": (0.0, 1.0),
    "beta3_warmup": (0.0, math.inf),
    "d0": (ABOVE_0, math.inf),
    "d_coef": (ABOVE_0, math.inf),
    "r": (0.0, math.inf),
    "threshold": (0.0, math.inf),
    "warmup_steps": (0.0, math.inf),
    "weight_lr_power": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "decay": (0.0, math.inf),
    "l1": (0.0, math.inf),
    "ema": (0.0, ABOVE_1),  # 1 leaves the average as it is, which only a schedule has use for
    "max_norm": (ABOVE_0, math.inf),
    "clip_norm": (ABOVE_0, math.inf),
    "clip_value": (ABOVE_0, math.inf),
    "clip_adaptive": (ABOVE_0, math.inf),
    "trust_coefficient": (0.0, math.inf),
    "beta2_decay": (-math.inf, ABOVE_0),
    "d": (1.0, math.inf),
    "ns_coefficients": ANY,
    "ns_steps": (0, 100),
    "shampoo_beta": (-1.0, 1.0),
    "precondition_frequency": (1, math.inf),
    "max_precond_dim": (1, math.inf),
    "damping": (0.0, math.inf),
    "tolerance": (0.0, 1.0),
    "small": (0.0, math.inf),
    "length": (ABOVE_0, math.inf),
}

LENGTHS = {"betas": 2, "etas": 2, "step_sizes": 2, "ns_coefficients": 3}  # of those that are tuples
OPTIONAL = {  # None is off, or what the class says
    "ema",
    "max_norm",
    "clip_norm",
    "clip_value",
    "clip_adaptive",
    "alpha_warmup",
    "beta3",
    "beta3_warmup",
    "tolerance",
}

BOOLEAN = {"maximize", "decoupled"}

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
        if name == "params":
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


def check_near(kind: str, group: Iterable[str], known: Iterable[str]) -> None:
    """Refuses a misspelt hyperparameter in a parameter group, where other keys are the user's own."""
    known = list(known)
    for name in group:
        near = difflib.get_close_matches(name, known, 1, cutoff=0.8) if name not in known else []
        if near and name not in ("params", "initial_lr"):
            raise UserError(f"a parameter group of {kind} has {name}; did you mean {near[0]}?")


def check_group(group: Mapping[str, Any], own: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuses values that would spoil the weights, or be passed over, without a word.

    own: the ranges that a class has in place of those in RANGES.
    """
    for name, value in group.items():
        if name in NOT_HERE:
            plain, advice = NOT_HERE[name]
            if not (isinstance(value, (bool, int, float)) and value == plain):
                raise UserError(f"{name}={value!r} asks for an update that is not here: {advice}")
        elif name in BOOLEAN and not isinstance(value, bool):
            raise UserError(f"{name}={value!r} cannot be used: give True or False")
        elif (limits := own.get(name) or RANGES.get(name)) and not (value is None and name in OPTIONAL):
            _check(name, value, limits)


def _check(name: str, value: Any, limits: tuple[Any, ...]) -> None:
    ranges = limits if isinstance(limits[0], tuple) else (limits,) * LENGTHS.get(name, 1)
    several = len(ranges) > 1
    parts = tuple(value) if several and isinstance(value, (tuple, list)) else (value,)
    if several and len(parts) == len(ranges) and len({isinstance(v, Tensor) for v in parts}) > 1:
        raise UserError(f"{name}={value!r} cannot be used: {name} must be either all floats or all tensors")
    if isinstance(value, Tensor) and value.numel() != 1:
        raise UserError(
            f"{name}={value!r} cannot be used: a tensor as {name} must have 1 element, not {value.numel()}"
        )
    if len(parts) == len(ranges) and all(_within(v, *r) for v, r in zip(parts, ranges, strict=True)):
        return
    what = ("a number", "two numbers", "three numbers", "four numbers")[len(ranges) - 1]
    bounds = ", then ".join(_bound(*r) for r in dict.fromkeys(ranges))
    raise UserError(f"{name}={value!r} cannot be used: give {what} {bounds}")


def _bound(low: float, high: float, optional: bool = False) -> str:
    if optional:
        return "None or " + _bound(low, high)
    if high == ABOVE_0:
        return "of at most 0"
    if (low, high) == ANY:
        return "that is finite"
    above = next((f"above {n}" for n, least in ((0, ABOVE_0), (1, ABOVE_1)) if low == least), None)
    text = above or f"of at least {low:g}"
    return text + (f" and below {high:g}" if high < math.inf else "")


def _within(value: Any, low: float, high: float, optional: bool = False) -> bool:
    if value is None:
        return optional
    if type(value) is float:  # the common case, once an update
        return low <= value < high
    if isinstance(value, bool) or not isinstance(value, (Real, Tensor)):  # NumPy's numbers are Real
        return False
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return value.numel() == 1  # to look at it would wait for the device
    return (not isinstance(value, Tensor) or value.numel() == 1) and low <= float(value) < high
