"""The whole update: the rule with everything that is folded into its pass. Every engine runs this text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepwell.rules import Rule
from stepwell.rules.words import clip, moment, shrink


@dataclass(frozen=True)
class Folded:
    """What an update does besides its rule; numbers, tensors that broadcast, or symbols of a trace.

    scale: what gradients are multiplied with: a clipped norm, a GradScaler's factor, −1 to maximize.
    clip_value: their largest absolute value then. l2: g ← g + l2 · w (coupled). decay: w ← w − η · decay
    · w before the rule (decoupled, Loshchilov & Hutter 2019). l1: the proximal step of η · l1 · |w| after
    the rule, which makes zeros exact. ema: share that the average of the weights keeps, None without one.
    """

    scale: Any = 1.0
    clip_value: Any = math.inf
    l2: Any = 0.0
    decay: Any = 0.0
    l1: Any = 0.0
    ema: Any = None


# Most updates have neither of these, and the fused engine a kernel for them that need not compute it.
PLAIN = {"clip_value": math.inf, "l1": 0.0}


def is_plain(values: Mapping[str, Any]) -> bool:
    """Whether an update with these values of `Folded`'s parts is one of those."""
    return all(_is(values[name], neutral) for name, neutral in PLAIN.items())


def whole_update(
    rule: Rule, w: Any, g: Any, state: Sequence[Any], average: Any, t: Any, h: dict[str, Any], folded: Folded
) -> tuple[Any, list[Any], Any]:
    """Returns the new weight, state and average; `h` holds the hyperparameters (and a rule's `sums`).

    g ← clip(scale · g) + l2 · w;  w ← (1 − η · decay) w;  w ← rule(w, g);  w ← shrink(w, η · l1);
    average ← moment(average, w, ema)
    """
    g = gradient(w, g, folded)
    if not _is(folded.decay, 0):
        w = w - h["lr"] * folded.decay * w
    w, *state = rule.update(w, g, *state, t=t, **h)
    if not _is(folded.l1, 0):
        w = shrink(w, h["lr"] * folded.l1)
    if average is not None:
        average = moment(average, w, folded.ema)
    return w, state, average


def gradient(w: Any, g: Any, folded: Folded) -> Any:
    """The gradient that the rule sees."""
    if not _is(folded.scale, 1):
        g = folded.scale * g
    if not _is(folded.clip_value, math.inf):
        g = clip(g, -folded.clip_value, folded.clip_value)
    if not _is(folded.l2, 0):
        g = g + folded.l2 * w
    return g


def _is(value: Any, neutral: float) -> bool:
    """Whether a part does nothing and can be left out: known only of numbers."""
    return isinstance(value, (int, float)) and value == neutral
