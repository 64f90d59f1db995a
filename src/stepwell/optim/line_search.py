"""How far to go along a direction: a step that satisfies the strong Wolfe conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Point:
    """A place x + t d on the line: the step t, the loss f(t) and its slope s(t) there, and the gradient."""

    step: float
    loss: float
    slope: float
    gradient: Tensor


def strong_wolfe(
    at: Callable[[float], Point],
    start: Point,
    step: float,
    most: int,
    narrow: float,
    c1: float = 1e-4,
    c2: float = 0.9,
) -> tuple[Point, int]:
    """Finds t with f(t) ≤ f(0) + c1 t s(0) and |s(t)| ≤ −c2 s(0), where s is the slope of f.

    at: what is at a step. start: what is at 0, with a slope below 0. step: the first t to try. most: how
    many more to try; the lowest point seen is returned when they are used up. narrow: the length of a
    bracket that is not searched further. Returns the point and how many were looked at.

    Steps grow until they bracket such a point (Algorithm 3.5), and the bracket shrinks (3.6).

    Source: Nocedal & Wright 2006, §3.5, with the safeguards of Schmidt's minFunc, as torch.optim.LBFGS.
    Differs from torch where a loss is not finite: that point is taken as too high, not followed.
    """

    def too_high(p: Point) -> bool:
        return not p.loss <= start.loss + c1 * p.step * start.slope

    def flat(p: Point) -> bool:
        return abs(p.slope) <= -c2 * start.slope

    before, now, tries = start, at(step), 0
    while tries < most:
        if too_high(now) or (tries > 1 and now.loss >= before.loss) or (not flat(now) and now.slope >= 0):
            break
        if flat(now):
            return now, tries + 1
        following = cubic_minimum(before, now, now.step + 0.01 * (now.step - before.step), 10 * now.step)
        before, now, tries = now, at(following), tries + 1
    else:
        return (start if start.loss <= now.loss else now), tries + 1

    # The bracket: its ends in the order of torch's list, which decides between equal losses.
    ends, stuck = [before, now], False
    low = _lower(ends)
    while tries < most and abs(ends[1].step - ends[0].step) >= narrow:
        step, stuck = _inside(ends, stuck)
        now, tries = at(step), tries + 1
        if too_high(now) or now.loss >= ends[low].loss:
            ends[1 - low] = now
            low = _lower(ends)
            continue
        if not flat(now) and now.slope * (ends[1 - low].step - ends[low].step) >= 0:
            ends[1 - low] = ends[low]
        ends[low] = now
        if flat(now):
            break
    return ends[low], tries + 1


def _lower(ends: list[Point]) -> int:
    return 0 if not ends[1].loss < ends[0].loss else 1


def _inside(ends: list[Point], stuck: bool) -> tuple[float, bool]:
    """The next step to try in a bracket, and whether it is near an end: twice in turn is too often."""
    left, right = sorted(p.step for p in ends)
    step, margin = cubic_minimum(ends[0], ends[1], left, right), 0.1 * (right - left)
    if min(right - step, step - left) >= margin:
        return step, False
    if not stuck and left < step < right:
        return step, True
    return (right - margin if abs(right - step) < abs(step - left) else left + margin), False


def cubic_minimum(a: Point, b: Point, low: float, high: float) -> float:
    """Where the cubic through the losses and slopes of two points is least, between `low` and `high`.

    Source: Nocedal & Wright 2006, eq. 3.59. The middle where there is no minimum.
    """
    if a.step > b.step:
        a, b = b, a
    middle = (low + high) / 2
    if a.step == b.step:
        return middle
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.step - b.step)
    square = d1 * d1 - a.slope * b.slope
    if not 0 <= square < math.inf:
        return middle
    d2 = math.sqrt(square)
    below = b.slope - a.slope + 2 * d2
    if below == 0:
        return middle
    return min(max(b.step - (b.step - a.step) * ((b.slope + d2 - d1) / below), low), high)
