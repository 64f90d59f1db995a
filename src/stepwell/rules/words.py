"""The words that rules are written with.

Each takes numbers, tensors, or the symbols of a trace, so that one text runs on every engine. Besides
them a rule may use arithmetic, comparisons, `abs`, and torch's functions that `engine.program` lists.
"""

from __future__ import annotations

import math
from typing import Any

import torch

Value = Any  # a float, a Tensor, or a symbol


def moment(average: Value, value: Value, beta: Value) -> Value:
    """Moves an exponential average: β a + (1 − β) x, as a + (1 − β)(x − a)."""
    weight = 1 - beta
    kinds = {getattr(x, "dtype", None) for x in (average, value, weight) if not isinstance(x, (int, float))}
    if isinstance(average, (int, float)) or isinstance(value, (int, float)) or len(kinds) > 1:
        return average + weight * (value - average)  # lerp wants tensors of one type
    return torch.lerp(average, value, weight)


def mean_square(average: Value, g: Value, beta: Value) -> Value:
    """Moves an exponential average of squares: β a + ((1 − β) g) g.

    The factor comes first, as in torch, so that a gradient whose square is too large for float32 by less
    than it takes away does no harm; and an average that has become infinite stays so, instead of NaN.
    """
    return beta * average + (1 - beta) * g * g


def debias(average: Value, beta: Value, t: Value) -> Value:
    """Corrects an average that started at 0: a / (1 − βᵗ). Kingma & Ba 2015, §3."""
    return average / (1 - beta**t)


def select(condition: Value, a: Value, b: Value) -> Value:
    """a where the condition holds, else b. Both are computed."""
    if isinstance(condition, bool):
        return a if condition else b
    if isinstance(condition, torch.Tensor) and _numbers(a, b):  # torch would round them to float32
        a = torch.tensor(a, dtype=torch.float64, device=condition.device)
    return torch.where(condition, a, b)


def sqrt(x: Value) -> Value:
    """√x; NaN below 0."""
    if _numbers(x):
        return math.sqrt(x) if x >= 0 else math.nan
    return torch.sqrt(x)


def exp(x: Value) -> Value:
    """eˣ."""
    return math.exp(x) if _numbers(x) else torch.exp(x)


def log(x: Value) -> Value:
    """The natural logarithm, of x above 0."""
    return math.log(x) if _numbers(x) else torch.log(x)


def maximum(a: Value, b: Value) -> Value:
    """The larger of the two; NaN if either is NaN."""
    if _numbers(a, b):
        return a if a >= b or a != a else b
    if _numbers(b):
        return torch.clamp(a, min=b)
    return torch.clamp(b, min=a) if _numbers(a) else torch.maximum(a, b)


def minimum(a: Value, b: Value) -> Value:
    """The smaller of the two; NaN if either is NaN."""
    if _numbers(a, b):
        return a if a <= b or a != a else b
    if _numbers(b):
        return torch.clamp(a, max=b)
    return torch.clamp(b, max=a) if _numbers(a) else torch.minimum(a, b)


def clip(x: Value, low: Value, high: Value) -> Value:
    """x, at least `low` and at most `high`."""
    return minimum(maximum(x, low), high)


def sign(x: Value) -> Value:
    """−1, 0 or 1."""
    return torch.sign(x)


def shrink(x: Value, by: Value) -> Value:
    """sign(x) · max(|x| − by, 0): the proximal step of the L1 norm (soft threshold)."""
    return sign(x) * maximum(abs(x) - by, 0.0)


def norm(x: Value) -> Value:
    """The Euclidean norm of a whole tensor, 0-d: for rules that are not elementwise."""
    return torch.linalg.vector_norm(x)


def _numbers(*values: Value) -> bool:
    return all(isinstance(v, (int, float)) for v in values)
