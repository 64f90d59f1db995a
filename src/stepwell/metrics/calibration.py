"""Whether probabilities keep their word: reliability by bins of confidence, and its summary."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepwell.metrics import intervals
from stepwell.metrics.intervals import Limits

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

BINS = 15  # Guo et al. (2017)


def bins_of(confidence: Array) -> NDArray[np.int64]:
    """The bin of each confidence in [0, 1] (N,): BINS of equal width, each (low, high], the first with 0."""
    edges = np.linspace(0, 1, BINS + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)


def reliability(confidence: Array, right: Bools) -> dict[str, list[Any]]:
    """The reliability diagram's numbers: for each bin that has samples, in order, lists of

    confidence: their mean · accuracy: the share that is right · low, high: Wilson's 95 % limits of it ·
    count: of samples · edges: (low, high) of the bin.

    confidence (N,): the probability given to the answer. right (N,): whether it was true. A calibrated
    model has accuracy = confidence in every bin, but for chance.
    Source: Guo et al. 2017, §2, eq. 1 and 2; DeGroot & Fienberg 1983.
    """
    place, edges = bins_of(confidence), np.linspace(0, 1, BINS + 1)
    count = np.bincount(place, minlength=BINS)
    used = np.flatnonzero(count)
    hits, n = np.bincount(place, right, BINS)[used], count[used]
    low, high = intervals.wilson(hits, n)
    return {
        "confidence": (np.bincount(place, confidence, BINS)[used] / n).tolist(),
        "accuracy": (hits / n).tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "count": n.tolist(),
        "edges": [[float(edges[k]), float(edges[k + 1])] for k in used],
    }


def expected_calibration_error(confidence: Array, right: Bools, seed: int) -> tuple[float, Limits | None]:
    """ECE = Σ_bins |Σ (right − confidence)| / n and its interval; Guo et al. (2017), eq. 3.

    Chance alone makes it positive, and a bootstrap repeats that bias, so both limits err on the safe
    side (they cover more than 95 %). With g the vector of the bins' gaps and * a resample,
    low = ECE − q₉₇.₅ ‖g* − g‖₁, by the triangle inequality; high = q₉₇.₅ of ECE*, for E[ECE*] ≥ ECE.
    """
    n = len(confidence)
    gaps = np.zeros((n, BINS))
    gaps[np.arange(n), bins_of(confidence)] = right - confidence
    observed = gaps.sum(0)

    def error_and_distance(totals: Array) -> Array:
        return np.stack([np.abs(totals).sum(1), np.abs(totals - observed).sum(1)], axis=1) / n

    value = float(np.abs(observed).sum() / n)
    error, distance = intervals.bootstrap(gaps, error_and_distance, seed, method="percentile")
    if error is None or distance is None:
        return value, None
    return value, (max(0.0, value - distance[1]), max(value, error[1]))
