"""Checks of a schedule's arguments, made once when it is made: a wrong one would spoil a whole run."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from itertools import pairwise
from numbers import Real
from typing import Any, ParamSpec, TypeVar

from stepwell.errors import UserError

# From whose argument it is, its name and the value given, to the value to use; raises UserError.
Check = Callable[[str, str, Any], Any]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def checked(**checks: Check) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorates a function whose arguments are checked before it runs; numbers come in as floats."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(function)
        defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
        where = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            bound = signature.bind(*args, **kwargs)
            for name, check in checks.items():
                if bound.arguments.get(name, defaults[name]) is not defaults[name]:  # a default is right
                    bound.arguments[name] = check(where, name, bound.arguments[name])
            return function(*bound.args, **bound.kwargs)

        return run

    return decorate


def number(
    least: float = -math.inf, above: float = -math.inf, below: float = math.inf, most: float = math.inf
) -> Check:
    """A check for a finite number in a range."""
    words = {"of at least": least, "above": above, "below": below, "at most": most}
    bounds = " and ".join(f"{word} {bound:g}" for word, bound in words.items() if math.isfinite(bound))

    def check(where: str, name: str, value: Any) -> float:
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
            found = float(value)
            if least <= found <= most and above < found < below:
                return found
        raise UserError(_cannot(where, name, value, f"a finite number {bounds}".rstrip()))

    return check


FINITE, NOT_NEGATIVE, POSITIVE = number(), number(least=0), number(above=0)


def one_of(*choices: str) -> Check:
    """A check for one of a few words."""

    def check(where: str, name: str, value: Any) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise UserError(_cannot(where, name, value, f"one of {', '.join(choices)}"))

    return check


def function(where: str, name: str, value: Any) -> Callable[[float], float]:
    """A check for a schedule, which is any function of the step."""
    if not callable(value):
        raise UserError(_cannot(where, name, value, "a function of the step, such as constant(0.1)"))
    return value  # pyright: ignore[reportReturnType]


def functions(where: str, name: str, value: Any) -> list[Callable[[float], float]]:
    """A check for at least one schedule."""
    if not isinstance(value, (list, tuple)) or not value:
        raise UserError(_cannot(where, name, value, "a list of at least one schedule"))
    return [function(where, f"{name}[{k}]", schedule) for k, schedule in enumerate(value)]


def ascending(where: str, name: str, value: Any) -> list[float]:
    """A check for steps in order, of which two may be equal."""
    if not isinstance(value, (list, tuple)):
        raise UserError(_cannot(where, name, value, "a list of steps"))
    steps = [NOT_NEGATIVE(where, f"{name}[{k}]", step) for k, step in enumerate(value)]
    if any(later < earlier for earlier, later in pairwise(steps)):
        raise UserError(_cannot(where, name, value, "the steps in order, from first to last"))
    return steps


def _cannot(where: str, name: str, value: Any, wanted: str) -> str:
    return f"{where}: {name}={value!r} cannot be used: give {wanted}"
