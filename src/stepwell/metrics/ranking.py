"""How well scores rank the positives above the negatives, with what an interval needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


def roc_auc(scores: Array, positive: Bools) -> tuple[float, float]:
    """Returns the area under the ROC curve and its variance by DeLong.

    AUC = P(positive's score > negative's) + ½ P(equal)
        = (Σ_positives rank_all / m − (m+1)/2) / n
    v10ᵢ = (rank_all(xᵢ) − rank_positives(xᵢ)) / n,  v01ⱼ = 1 − (rank_all(yⱼ) − rank_negatives(yⱼ)) / m
    variance = var(v10)/m + var(v01)/n   (m positives x, n negatives y, mid-ranks for ties)

    scores: (N,); positive: (N,), both classes present. The variance is NaN where m or n is 1.

    Source: DeLong, DeLong & Clarke-Pearson (1988), Biometrics 44, 837; O(N log N) by Sun & Xu
    (2014), IEEE Signal Processing Letters 21, 1389, algorithm 2.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    rank = mid_ranks(scores)
    v10 = (rank[positive] - mid_ranks(scores[positive])) / n
    v01 = 1 - (rank[~positive] - mid_ranks(scores[~positive])) / m
    value = float((rank[positive].sum() / m - (m + 1) / 2) / n)
    if min(m, n) < 2:
        return value, np.nan
    return value, float(v10.var(ddof=1) / m + v01.var(ddof=1) / n)


def mid_ranks(x: Array) -> Array:
    """Returns ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def average_precision(scores: Array, positive: Bools) -> tuple[float, Array]:
    """Returns the average precision A and the derivative of A by each row's weight, (N,).

    A = (1/P) Σ_{i positive} Tᵢ / Mᵢ,  Mᵢ = #{k: sₖ ≥ sᵢ},  Tᵢ the positives among them
    ∂A/∂wⱼ = (1/P) [ yⱼ (Tⱼ/Mⱼ − A) + Σ_{i positive, sᵢ ≤ sⱼ} (yⱼ/Mᵢ − Tᵢ/Mᵢ²) ]

    The sum of the derivatives' squares is the variance that a bootstrap of infinitely many
    resamples approaches (infinitesimal jackknife, Efron & Tibshirani 1993, §21), at the cost of
    one sort. scores: (N,); positive: (N,), at least one.

    Source: scikit-learn's average_precision_score (no interpolation; ties are one threshold).
    """
    total = int(positive.sum())
    order = np.argsort(-scores, kind="stable")
    y = positive[order].astype(np.float64)
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each run of equal scores
    group = np.cumsum(np.append(False, np.diff(scores[order]) != 0))
    above, hits = last + 1.0, np.cumsum(y)[last]  # M, T
    gain = np.diff(hits, prepend=0.0)
    precision = hits / above
    value = float((gain * precision).sum() / total)

    own = np.cumsum((gain / above)[::-1])[::-1][group]
    dilution = np.cumsum((gain * hits / above**2)[::-1])[::-1][group]
    derivative = np.empty_like(y)
    derivative[order] = (y * (precision[group] - value + own) - dilution) / total
    return value, derivative
