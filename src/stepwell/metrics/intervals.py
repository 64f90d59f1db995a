"""95 % intervals for what is measured on a test set.

Every interval treats the test set's rows (text: its windows) as independent draws, and says what
another test set of this size would have shown. It does not contain the spread over training seeds.
Where the data cannot carry an interval, the functions return None, never a NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtr, ndtri, stdtrit

Array = NDArray[np.float64]
Limits = tuple[float, float]

TAIL = 0.025
Z = float(ndtri(1 - TAIL))
REPLICATES = 2000
MAX_UNITS = 10_000  # more rows than this are resampled in groups, so that the cost stays bounded
MIN_UNITS = 8  # a resample of fewer rows has too few distinct outcomes to have 2.5 % tails
CHUNK = 2**20  # weights held at a time: 8 MiB


def wilson(successes: ArrayLike, n: ArrayLike) -> tuple[Array, Array]:
    """Returns Wilson's score interval of shares, elementwise.

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n),  p = successes / n

    successes: 0 ≤ successes ≤ n, need not be whole; n > 0 (n = 0 gives (0, 1): nothing is known).
    Unlike p ± z·se it stays inside [0, 1] and has a width where p is 0 or 1.

    Source: Wilson (1927), JASA 22, 209; Brown, Cai & DasGupta (2001), Statistical Science 16, 101.
    """
    k, n = np.asarray(successes, np.float64), np.asarray(n, np.float64)
    center = k + Z * Z / 2
    half = Z * np.sqrt(k * (1 - k / np.maximum(n, 1e-300)) + Z * Z / 4)
    low, high = (center - half) / (n + Z * Z), (center + half) / (n + Z * Z)
    return np.where(k <= 0, 0.0, low), np.where(k >= n, 1.0, high)  # exact where rounding is not


def wilson_effective(value: float, variance: float, units: int, boundary_n: float) -> Limits | None:
    """Returns Wilson's interval of a statistic in [0, 1] whose variance was estimated.

    n_eff = value(1−value) / variance · (z / t_{units−1})²: the number of independent yes/no answers
    that would be known as well. For a plain share of rows it is the Wilson interval of that share.

    units: number of independent rows behind the variance. boundary_n: n_eff where value is 0 or 1,
    for there the estimated variance is 0 and says nothing.
    None for an inner value of a single unit.

    Source: Korn & Graubard (1998), Survey Methodology 24, 193 (n_eff and its t correction);
    Franco, Little, Louis & Slud (2019), J. Survey Statistics and Methodology 7, 334 (with Wilson).
    """
    spread = value * (1 - value)
    if spread <= 1e-12:
        n_eff = boundary_n
    elif units < 2 or not variance > 1e-14 * spread:
        return None
    else:
        n_eff = spread / variance * (Z / float(stdtrit(units - 1, 1 - TAIL))) ** 2
    low, high = wilson(value * n_eff, n_eff)
    return float(low), float(high)


def student_t(values: ArrayLike) -> Limits | None:
    """Returns Student's interval of the mean, m ± t_{n−1} s/√n, of values (n,); None for n < 2.

    Source: Student (1908), Biometrika 6, 1. Exact for normal values, else by the central limit
    theorem: for very skewed values it covers less than 95 % of the time.
    """
    x = np.asarray(values, np.float64)
    if x.size < 2:
        return None
    half = float(stdtrit(x.size - 1, 1 - TAIL)) * x.std(ddof=1) / np.sqrt(x.size)
    return float(x.mean() - half), float(x.mean() + half)


def mean_of_independent(values: ArrayLike, low: ArrayLike, high: ArrayLike) -> Limits:
    """Returns the interval of the mean of K independent quantities from the interval of each.

    m − √Σ(vₖ − lₖ)² / K,  m + √Σ(uₖ − vₖ)² / K

    Keeps the asymmetry of the single intervals, and their width where a share is 0 or 1.

    Source: MOVER, Zou & Donner (2008), Statistics in Medicine 27, 1693.
    """
    v, lower, upper = (np.asarray(x, np.float64) for x in (values, low, high))
    below = np.sqrt(np.square(v - lower).sum()) / v.size
    above = np.sqrt(np.square(upper - v).sum()) / v.size
    return float(v.mean() - below), float(v.mean() + above)


def median(values: Array) -> tuple[Array, Array] | None:
    """Returns the order-statistic interval of the median of each column of values (n, K).

    (x₍ₗ₎, x₍ₙ₋ₗ₊₁₎) with the largest l for which P(Binomial(n, ½) < l) ≤ 2.5 %; covers at least 95 %
    for every distribution. None for n < 6, where even the whole range covers less.

    Source: David & Nagaraja (2003), Order Statistics, §7.1.
    """
    n = len(values)
    start = max(0, int(n / 2 - 2 * np.sqrt(n)))  # P(Binomial < start) < Φ(−4)
    k = np.arange(start, n // 2 + 1)
    rank = start + int((bdtr(k, n, 0.5) <= TAIL).sum())
    if rank < 1 or start + len(k) <= rank:
        return None
    ordered = np.sort(values, axis=0)
    return ordered[rank - 1], ordered[n - rank]


def bootstrap(
    sums: Array,
    statistic: Callable[[Array], Array],
    seed: int,
    method: Literal["bca", "percentile"] = "bca",
) -> list[Limits | None]:
    """Returns bootstrap intervals of M statistics that are functions of sums over rows.

    A resample of the rows multiplies each row's terms by how often it was drawn, so R resamples are
    one product (R, n) @ (n, S) with multinomial weights, made in chunks.

    sums: (n, S) each row's terms; give a column of ones if the statistic needs the number of rows.
    statistic: (B, S) totals → (B, M), row by row; NaN where undefined.
    method: "bca", second-order correct, for smooth statistics; "percentile", the plain 2.5 % and
    97.5 % quantiles of the resampled statistic.
    Above MAX_UNITS rows, random groups of equal size are drawn instead of rows: a sum over rows is
    the sum over groups, and its variance is the same in expectation.
    None for fewer than MIN_UNITS rows, and for a statistic that no resample changes.

    Source: Efron & Tibshirani (1993), An Introduction to the Bootstrap, §13.3
    (percentile) and §14.3 (BCa).
    """
    rng = np.random.default_rng(seed)
    total = sums.sum(0, keepdims=True)
    value = statistic(total)[0]
    if len(sums) < MIN_UNITS:
        return [None] * len(value)
    if len(sums) > MAX_UNITS:
        starts = np.linspace(0, len(sums), MAX_UNITS, endpoint=False).astype(np.int64)
        sums = np.add.reduceat(sums[rng.permutation(len(sums))], starts, axis=0)

    n = len(sums)
    size = max(1, CHUNK // n)
    chunks = [min(size, REPLICATES - done) for done in range(0, REPLICATES, size)]
    replicates = np.concatenate([statistic(_multinomial(rng, rows, n) @ sums) for rows in chunks])  # (R, M)
    left_out = statistic(total - sums) if method == "bca" else None  # (n, M), the jackknife
    return [
        _quantiles(replicates[:, m], value[m], None if left_out is None else left_out[:, m])
        for m in range(len(value))
    ]


def _multinomial(rng: np.random.Generator, rows: int, n: int) -> Array:
    """Returns how often each of n units is in each of `rows` resamples of size n, (rows, n)."""
    drawn = rng.integers(n, size=(rows, n))
    drawn += n * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _quantiles(replicates: Array, value: float, left_out: Array | None) -> Limits | None:
    t = replicates[np.isfinite(replicates)]
    if not np.isfinite(value) or len(t) < 0.9 * len(replicates) or np.ptp(t) <= 1e-12 * abs(value):
        return None
    if left_out is None:
        low, high = np.quantile(t, [TAIL, 1 - TAIL])
        return float(low), float(high)

    share = ((t < value).sum() + 0.5 * (t == value).sum()) / len(t)
    z0 = ndtri(np.clip(share, 1 / (len(t) + 1), len(t) / (len(t) + 1)))
    d = left_out[np.isfinite(left_out)]
    d = d.mean() - d
    acceleration = np.power(d, 3).sum() / (6 * np.square(d).sum() ** 1.5 + 1e-300)
    shifted = z0 + np.array([-Z, Z])
    low, high = np.quantile(t, ndtr(z0 + shifted / (1 - acceleration * shifted)))
    return float(low), float(high)
