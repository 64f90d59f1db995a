"""evaluation.json: what the report shows of a test set, and the mistakes worth looking at."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from stepwell.metrics import intervals
from stepwell.metrics.by_task import confusion_matrix, precision_recall_f1

Array = NDArray[np.float64]
Show = Callable[[int], dict[str, Any]]

MISTAKES = 24
POINTS = 5000
BINS = 10


def evaluation_record(
    task: str,
    outputs: ArrayLike,
    targets: ArrayLike,
    per_sample_loss: ArrayLike,
    classes: Sequence[str],
    targets_names: Sequence[str],
    rows: ArrayLike,
    show: Show,
) -> dict[str, Any]:
    """Returns the JSON values of evaluation.json.

    binary, multi-class: "classes", "confusion" (rows true), "per_class", "calibration" (binary: of
    the second class's probability; else of the predicted class's), "mistakes".
    multi-label: "classes", "per_class", "calibration" (of all labels together), "mistakes".
    regression: "targets" (names), "rows", "predicted" and "true": a list for each target of the same
    at most 5,000 rows in the file's order, "mistakes".
    text: "mistakes".

    "per_class": {"precision", "recall", "f1", "support"}, a list over the classes each, null where
    undefined. "calibration": {"of", "predicted", "observed", "count", "low", "high"}, a list over
    the bins each; low and high are Wilson's for observed (absent for labels, since those of one row
    depend on each other).
    "mistakes": the 24 wrong rows of greatest loss; for regression the rows whose residual is the
    greatest multiple of its target's root mean square residual; for text the windows of greatest
    mean loss. Each {"row", "loss", …, **show(position)}, the worst first.

    outputs, targets, per_sample_loss: as for `metrics.full`. rows: (N,) numbers in the source.
    show: position in the test part (0 … N−1) → {"image": data URL} | {"values": {…}} | {"text": …}.
    """
    outputs, targets, rows = np.asarray(outputs), np.asarray(targets), np.asarray(rows)
    loss = np.asarray(per_sample_loss, np.float64)
    with np.errstate(all="ignore"):
        loss = loss.mean(1) if loss.ndim == 2 else loss
        if task == "text":
            record, found = {}, [(position, {}) for position in _worst(loss)]
        elif task == "regression":
            record, found = _regression(outputs, targets, targets_names, rows)
        elif task == "multi-label":
            record, found = _multi_label(outputs, targets > 0.5, classes, loss)
        else:
            record, found = _classification(task, outputs, targets.astype(np.int64), classes, loss)
    mistakes = [
        {"row": int(rows[k]), **about, "loss": _number(loss[k]), **show(int(k))} for k, about in found
    ]
    return {"task": task, **record, "mistakes": mistakes}


def image_data_url(image: NDArray) -> str:
    """Returns an image (C, H, W) as "data:image/png;base64,…".

    uint8 is shown as it is. Other numbers: 0 … 1 as black to white if all are in there, else the
    image's own least to greatest value. 1, 3 and 4 channels are grey, RGB and RGBA; of another
    number the first is shown. Values that are not finite are black.
    """
    if image.dtype != np.uint8:
        values = image.astype(np.float64)
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        values = np.where(np.isfinite(values), values, low)
        image = np.rint((values - low) * (255 / max(high - low, 1e-300))).astype(np.uint8)
    shown = image[0] if image.shape[0] not in (3, 4) else image.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(shown)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _numbers(values: Array) -> list[float | None]:
    return [_number(value) for value in values.tolist()]


def _worst(badness: Array, candidates: NDArray | None = None) -> NDArray:
    """Returns the positions of the greatest values; those that are not finite are the worst of all."""
    if candidates is None:
        candidates = np.arange(len(badness))
    key = np.where(np.isfinite(badness), badness, np.inf)[candidates]
    return candidates[np.argsort(-key, kind="stable")[:MISTAKES]]


def _per_class(hits: NDArray, chosen: NDArray, support: NDArray) -> dict[str, list[Any]]:
    precision, recall, f1 = precision_recall_f1(hits, chosen, support)
    return {
        "precision": _numbers(precision),
        "recall": _numbers(recall),
        "f1": _numbers(f1),
        "support": support.tolist(),
    }


def _calibration(of: str, probability: Array, occurred: NDArray, independent: bool) -> dict[str, Any]:
    """Mean probability against observed share in at most 10 bins of equal count."""
    bins = min(BINS, len(probability))
    if not bins or not np.isfinite(probability).all():
        return {"of": of, "predicted": [], "observed": [], "count": []}
    order = np.argsort(probability, kind="stable")
    starts = np.linspace(0, len(order), bins, endpoint=False).astype(np.int64)
    count = np.diff(np.append(starts, len(order)))
    hits = np.add.reduceat(occurred[order].astype(np.float64), starts)
    record = {
        "of": of,
        "predicted": (np.add.reduceat(probability[order], starts) / count).tolist(),
        "observed": (hits / count).tolist(),
        "count": count.tolist(),
    }
    if independent:
        low, high = intervals.wilson(hits, count)
        record |= {"low": low.tolist(), "high": high.tolist()}
    return record


def _classification(
    task: str, p: NDArray, true: NDArray, classes: Sequence[str], loss: Array
) -> tuple[dict[str, Any], list[tuple[int, dict[str, Any]]]]:
    predicted = p.argmax(1)
    confusion = confusion_matrix(true, predicted, p.shape[1])
    top = p.max(1).astype(np.float64)
    if task == "binary":
        calibration = _calibration(str(classes[1]), p[:, 1].astype(np.float64), true == 1, True)
    else:
        calibration = _calibration("the predicted class", top, predicted == true, True)
    record = {
        "classes": list(classes),
        "confusion": confusion.tolist(),
        "per_class": _per_class(np.diag(confusion), confusion.sum(0), confusion.sum(1)),
        "calibration": calibration,
    }
    return record, [
        (
            k,
            {
                "true": classes[int(true[k])],
                "predicted": classes[int(predicted[k])],
                "probability": _number(top[k]),
            },
        )
        for k in _worst(loss, np.flatnonzero(predicted != true))
    ]


def _multi_label(
    p: NDArray, true: NDArray, classes: Sequence[str], loss: Array
) -> tuple[dict[str, Any], list[tuple[int, dict[str, Any]]]]:
    predicted = p > 0.5
    record = {
        "classes": list(classes),
        "per_class": _per_class((predicted & true).sum(0), predicted.sum(0), true.sum(0)),
        "calibration": _calibration("any label", p.astype(np.float64).ravel(), true.ravel(), False),
    }

    def names(labels: NDArray) -> str:
        return ", ".join(classes[label] for label in np.flatnonzero(labels).tolist()) or "none"

    wrong = np.flatnonzero((predicted != true).any(1))
    return record, [
        (k, {"true": names(true[k]), "predicted": names(predicted[k])}) for k in _worst(loss, wrong)
    ]


def _regression(
    values: NDArray, targets: NDArray, names: Sequence[str], rows: NDArray
) -> tuple[dict[str, Any], list[tuple[int, dict[str, Any]]]]:
    shown = np.arange(len(rows))
    if len(rows) > POINTS:
        shown = np.sort(np.random.default_rng(0).choice(len(rows), POINTS, replace=False))
    record = {
        "targets": list(names),
        "rows": rows[shown].tolist(),
        "predicted": [_numbers(column) for column in values[shown].T],
        "true": [_numbers(column) for column in targets[shown].T],
    }
    residual = targets.astype(np.float64) - values  # (N, O)
    rms = np.sqrt(np.square(residual).sum(0) / max(len(rows), 1))
    standardized = np.abs(residual) / np.where(rms > 0, rms, 1.0)
    standardized = np.where(np.isfinite(residual), standardized, np.inf)
    which = standardized.argmax(1).tolist()
    badness = standardized.max(1, initial=0.0)
    found = []
    for k in _worst(badness, np.flatnonzero(badness > 0)):
        o = which[k]
        about = {
            "target": names[o],
            "true": _number(targets[k, o]),
            "predicted": _number(values[k, o]),
            "residual": _number(residual[k, o]),
        }
        found.append((k, about))
    return record, found
