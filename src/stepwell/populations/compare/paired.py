"""The difference of two entries over seeds that both were trained with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit


def difference(first: Mapping[int, float], second: Mapping[int, float], step: float = 0.0) -> dict[str, Any]:
    """Compares {seed: value} of two entries by Student's paired t test.

    d_s = first_s − second_s,  s² = max(var(d), step²/6),  t = mean(d) / (s/√n),  p = 2 P(T_{n−1} ≥ |t|)

    step: values are multiples of it, as the accuracy on N rows is one of 1/N; 0 where they are not. Each
    rounding has a variance of step²/12, so that d cannot be known better, even if five runs are all alike.
    Returns {"mean", "low", "high", "p", "n"} over the n seeds that both have; low and high are the 95 %
    interval of this difference alone. None for p, low and high with n < 2.

    Where all d are 0, p is 1. Where all are the same other number and step is 0, t has no spread to measure
    by: p is that of the exact sign-flip test, 2^(1−n).

    Source: Student (1908), Biometrika 6, 1; Sheppard (1898), Proc. London Math. Soc. 29, 353 (step²/12);
    Fisher (1935), The Design of Experiments, §21 (sign flips).
    The trap: it takes d as normal, and n = 5 cannot show otherwise.
    """
    seeds = sorted(first.keys() & second.keys())
    d = np.array([first[seed] - second[seed] for seed in seeds])
    n = len(d)
    if n < 2:
        return {"mean": float(d[0]) if n else None, "low": None, "high": None, "p": None, "n": n}
    mean, size = float(d.mean()), float(np.abs(d).max())
    error = math.sqrt(max(float(d.var(ddof=1)), step * step / 6) / n)
    if size == 0:
        p, error = 1.0, 0.0
    elif error <= 1e-12 * size:
        p = 2.0 ** (1 - n)
    else:
        p = float(2 * stdtr(n - 1, -abs(mean) / error))
    half = float(stdtrit(n - 1, 0.975)) * error
    return {"mean": mean, "low": mean - half, "high": mean + half, "p": p, "n": n}
