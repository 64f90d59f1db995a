"""A difference between models on the same test samples, with an interval that knows they are the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepwell.metrics import intervals

Array = NDArray[np.float64]

# What each task is compared by, the most telling first; of all but accuracy and F1 less is better.
COMPARED: dict[str, tuple[str, ...]] = {
    "binary": ("accuracy", "loss"),
    "multi-class": ("accuracy", "loss"),
    "multi-label": ("micro_f1", "loss"),
    "regression": ("rmse", "loss"),
    "text": ("accuracy", "loss"),
}
MORE_IS_BETTER = ("accuracy", "micro_f1")


def terms(task: str, outputs: ArrayLike, targets: ArrayLike, loss: ArrayLike) -> Array:
    """Each sample's terms (N, S), whose sums `values` makes metrics of; arguments as of `by_task.full`.

    Of text a sample is a window, since its characters depend on each other.
    """
    outputs, targets = np.asarray(outputs), np.asarray(targets)
    n = len(targets)
    loss = np.asarray(loss, np.float64).reshape(n, -1).mean(1)
    if task == "regression":
        own = np.square(outputs.astype(np.float64) - targets)
    elif task == "multi-label":
        hat, true = outputs > 0.5, targets > 0.5
        own = np.stack([2 * (hat & true).sum(1), hat.sum(1) + true.sum(1)], 1)
    elif task == "text":
        hat = outputs.argmax(-1) if outputs.ndim == 3 else outputs
        own = (hat == targets).mean(1)[:, None]
    else:
        own = (outputs.argmax(1) == targets)[:, None]
    return np.column_stack([np.ones(n), loss, own]).astype(np.float64)


def values(task: str, totals: Array) -> Array:
    """The metrics of COMPARED from sums over samples: (B, S) → (B, 2)."""
    n, loss, own = totals[:, :1], totals[:, 1:2], totals[:, 2:]
    if task == "regression":
        metric = np.sqrt(own / n).mean(1, keepdims=True)
    elif task == "multi-label":
        with np.errstate(all="ignore"):
            metric = own[:, :1] / own[:, 1:]
    else:
        metric = own / n
    return np.hstack([metric, loss / n])


def gain(task: str, ours: Array, others: Sequence[Array], seed: int) -> dict[str, dict[str, float | None]]:
    """By how much a metric of `ours` is above the mean of that metric over `others`, with a 95 % interval.

    Δ = m(ours) − 1/K Σ m(others_k)

    ours, others: (N, S) `terms` on the same N samples. Returns {metric: {"value", "low", "high"}} for each
    of COMPARED; the limits are left out where no resample changes Δ, and for fewer than eight samples.
    The interval is the BCa bootstrap over test samples, each drawn with all its predictions (paired): it is
    narrower than two separate ones, since what is hard for one model is hard for the others.
    Source: Efron & Tibshirani 1993, §14.3. The trap: it says what other test samples would show, not what
    other members, seeds or splits would.
    """
    width = ours.shape[1]

    def differences(totals: Array) -> Array:
        blocks = np.split(totals, totals.shape[1] // width, axis=1)
        each = np.stack([values(task, block) for block in blocks])
        return each[0] - each[1:].mean(0)

    rows = np.hstack([ours, *others])
    found = differences(rows.sum(0, keepdims=True))[0]
    limits = intervals.bootstrap(rows, differences, seed)
    entries: dict[str, dict[str, float | None]] = {}
    for name, value, limit in zip(COMPARED[task], found, limits, strict=True):
        entry: dict[str, float | None] = {"value": float(value) if np.isfinite(value) else None}
        if limit is not None:
            entry |= {"low": limit[0], "high": limit[1]}
        entries[name] = entry
    return entries
