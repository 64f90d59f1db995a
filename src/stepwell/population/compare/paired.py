"""The difference of two entries over seeds that both were trained with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import stdtr

from stepwell.metrics.intervals import student_t


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> dict[str, Any]:
    """Compares {seed: value} of two entries by Student's paired t test.

    d_s = first_s − second_s,  t = mean(d) / (sd(d)/√n),  p = 2 P(T_{n−1} ≥ |t|)

    Returns {"mean", "low", "high", "p", "n"} over the n seeds that both have; low and high are the 95 %
    interval of this difference alone. None for p, low and high with n < 2.

    Where all d are 0, p is 1. Where all d are the same other number, which happens on a test part of few
    rows, t has no spread to measure by: p is that of the exact sign-flip test then, 2^(1−n).

    Source: Student (1908), Biometrika 6, 1; Fisher (1935), The Design of Experiments, §21 (sign flips).
    The trap: it takes d as normal, and n = 5 cannot show otherwise.
    """
    seeds = sorted(first.keys() & second.keys())
    d = np.array([first[seed] - second[seed] for seed in seeds])
    n = len(d)
    mean = float(d.mean()) if n else None
    if n < 2 or mean is None:
        return {"mean": mean, "low": None, "high": None, "p": None, "n": n}
    low, high = student_t(d) or (mean, mean)
    return {"mean": mean, "low": low, "high": high, "p": _p(d), "n": n}


def _p(d: np.ndarray) -> float:
    n, size = len(d), float(np.abs(d).max())
    if size == 0:
        return 1.0
    spread = float(d.std(ddof=1))
    if spread <= 1e-12 * size:
        return 2.0 ** (1 - n)
    return float(2 * stdtr(n - 1, -abs(float(d.mean())) / (spread / math.sqrt(n))))
