"""What signals by layer say, in a sentence: do they grow or shrink geometrically with depth?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

STEADY = (0.8, 1.25)  # factor a layer
SMALL = 30.0  # total change that no depth turns into an alarm
MOST = 0.5  # share of a layer's units from which it is spoken of


@dataclass(frozen=True)
class Course:
    """A size along layers, in order. `factor`: change a layer, e^slope of a line through the logarithms.

    Zeros, as of branches that begin at zero, are left out of the line but keep their places.
    """

    sizes: Sequence[float]

    @property
    def factor(self) -> float | None:
        points = [(k, math.log(v)) for k, v in enumerate(self.sizes) if 0 < v < math.inf]
        if len(points) < 2:
            return None
        n = len(points)
        x, y = sum(k for k, _ in points) / n, sum(v for _, v in points) / n
        return math.exp(sum((k - x) * (v - y) for k, v in points) / sum((k - x) ** 2 for k, _ in points))

    @property
    def course(self) -> str:
        """grows, shrinks or keeps: geometric, and by much in all, over at least three layers."""
        factor, steps = self.factor, len(self.sizes) - 1
        if factor is None or steps < 2 or abs(math.log(factor)) * steps < math.log(SMALL):
            return "keeps"
        return "shrinks" if factor < STEADY[0] else "grows" if factor > STEADY[1] else "keeps"

    @property
    def ends(self) -> tuple[float, float]:
        return self.sizes[0], self.sizes[-1]

    def as_json(self) -> dict[str, Any]:
        factor = self.factor
        return {
            "factor": factor if factor is not None and math.isfinite(factor) else None,
            "course": self.course,
        }


class Units(Protocol):
    """A layer, as far as its units are looked at."""

    name: str
    dead: float | None
    saturated: float | None
    mean: float
    sd: float


def verdict(forward: Course, backward: Course, layers: Sequence[Units]) -> str:
    """One sentence about both directions, and one about each kind of layer that hardly learns."""
    return " ".join(filter(None, [_sizes(forward, backward, layers), _units(layers)]))


def _sizes(forward: Course, backward: Course, layers: Sequence[Units]) -> str:
    bad = next((layer.name for layer in layers if not math.isfinite(layer.sd)), None)
    if bad is not None:
        return f"The output of {bad} is not finite: start with smaller weights, or scale the inputs."
    if layers and layers[-1].sd == 0:
        first = next(layer.name for layer in layers if layer.sd == 0)
        return f"The model's output is constant, first that of {first}: nothing of the input arrives."
    if len(forward.sizes) < 2:
        return "There are fewer than two layers with weights, so that nothing can grow or shrink with depth."
    back = bool(backward.sizes)
    if back and backward.sizes[-1] == 0:
        return "No gradient reaches the first layer: what lies between passes none on."
    if forward.course == "keeps" and (not back or backward.course == "keeps"):
        steady = all(c.factor is None or STEADY[0] <= c.factor <= STEADY[1] for c in (forward, backward))
        few = "Too few layers to tell a course" if len(forward.sizes) < 3 else "Little changes in all"
        what = "Signals keep their size" if steady else few
        said = f"{what}: {_numbers(forward, 'the standard deviation of outputs', 'first', 'last')}"
        return f"{said}{'; ' + _way_back(backward) if back else ''}."
    parts = []
    if forward.course != "keeps":
        parts.append(
            f"Signals {'grow' if forward.course == 'grows' else 'shrink'} geometrically: "
            f"{_numbers(forward, 'the standard deviation of outputs', 'first', 'last')}"
        )
    if back and backward.course != "keeps":
        word = "explode" if backward.course == "grows" else "vanish"
        parts.append(f"{'g' if parts else 'G'}radients {word} on their way back: {_way_back(backward)}")
    return f"{'; '.join(parts)}. {_remedy(forward, backward)}"


def _numbers(course: Course, what: str, begin: str, end: str) -> str:
    first, last = course.ends
    change = "" if course.factor is None else f" by a factor of {course.factor:.3g} a layer"
    of = f"{first:.3g} in the {begin} of {len(course.sizes)} layers, {last:.3g} in the {end}"
    return f"{what} changes{change} ({of})"


def _way_back(backward: Course) -> str:
    return _numbers(backward, "the gradient's length, from the output back,", "last", "first")


def _remedy(forward: Course, backward: Course) -> str:
    smaller = forward.course == "shrinks" or (forward.course == "keeps" and backward.course == "shrinks")
    word = "larger" if smaller else "smaller"
    schemes = "he before ReLU, xavier before tanh, or lsuv"
    return f"Start with {word} weights ({schemes}), or normalize between layers."


def _units(layers: Sequence[Units]) -> str:
    said = []
    for attribute, words, remedy in (
        ("dead", "units are zero for every sample", ""),
        (
            "saturated",
            "outputs are in the flat region",
            ", which passes hardly any gradient: start with smaller weights, or normalize between layers",
        ),
    ):
        found = [layer for layer in layers if (getattr(layer, attribute) or 0) > MOST]
        if found:
            names = ", ".join(layer.name for layer in found[:3]) + ", …" * (len(found) > 3)
            said.append(f"In {names} most {words}{remedy}.")
    return " ".join(said)
