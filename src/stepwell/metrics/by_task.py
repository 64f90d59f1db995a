"""The metrics that users expect of each task, quick ones while training and all with intervals at the end.

Outputs are always decoded: probabilities (multi-label: one for each label), or values in the
targets' own units. An undefined metric (R² of constant targets, the recall of a class without
rows) is absent from `quick` and has the value None in `full`; it is never NaN and never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepwell.metrics import intervals
from stepwell.metrics.intervals import Limits
from stepwell.metrics.ranking import average_precision, roc_auc

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Entry = dict[str, float | None]

CALIBRATION_BINS = 15  # Guo et al. (2017)
TINY = float(
    np.finfo(np.float32).tiny
)  # a probability that float32 rounded to 0 costs 126 bits, not infinity


def quick(
    task: str, outputs: ArrayLike, targets: ArrayLike, character_loss: ArrayLike | None = None
) -> dict[str, float]:
    """Returns the metrics shown at each evaluation.

    binary, multi-class: accuracy · multi-label: subset_accuracy, f1 (micro) · regression: rmse, mae,
    r2, each averaged over the targets · text: accuracy, bits_per_character.

    outputs, targets and character_loss as in `full`.
    """
    outputs, targets = np.asarray(outputs), np.asarray(targets)
    if not outputs.size or not np.isfinite(outputs).all():
        return {}
    with np.errstate(all="ignore"):
        if task == "regression":
            sums = _regression_sums(np.asarray(outputs, np.float64), np.asarray(targets, np.float64))
            errors = _rmse_and_r2(sums.sum(0, keepdims=True))[0]
            mae = float(np.abs(outputs - targets.astype(np.float64)).mean())
            found = {"rmse": errors[0], "mae": mae, "r2": errors[1]}
        elif task == "multi-label":
            hat, true = outputs > 0.5, targets > 0.5
            f1 = 2 * (hat & true).sum() / (hat.sum() + true.sum())
            found = {"subset_accuracy": (hat == true).all(1).mean(), "f1": f1}
        elif task == "text":
            right, nats = _characters(outputs, targets, character_loss)
            found = {"accuracy": right.mean(), "bits_per_character": nats.mean() / np.log(2)}
        else:
            found = {"accuracy": (outputs.argmax(1) == targets).mean()}
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def full(
    task: str,
    outputs: ArrayLike,
    targets: ArrayLike,
    per_sample_loss: ArrayLike,
    classes: Sequence[str],
    seed: int = 0,
) -> dict[str, Entry]:
    """Returns every metric of a test set as {"value", "low", "high"}, with 95 % intervals.

    multi-class: accuracy, balanced_accuracy, macro_f1, top_5_accuracy (more than 10 classes), loss, ece
    binary: those, and precision, recall, f1 of the second class, roc_auc, average_precision
    multi-label: subset_accuracy, micro_f1, macro_f1, hamming_loss, mean_average_precision, loss
    regression: rmse, mae, r2, median_absolute_error, loss; of several targets the mean over them, and
        each as "rmse/NAME", …
    text: loss (of a character), perplexity, bits_per_character, accuracy

    outputs: (N, C) probabilities · (N, L) labels' probabilities · (N, O) values in own units ·
        text: (N, T, V) probabilities, or (N, T) predicted characters to save the memory.
    targets: (N,) classes · (N, L) zeros and ones · (N, O) · (N, T) characters.
    per_sample_loss: (N,), text: (N, T) or a window's means (N,), then in nats where the
        probabilities are not given.
    classes: names of the classes or labels; of the targets for regression.
    Means over classes, labels or targets are over those for which the metric is defined, as
    scikit-learn's with zero_division=nan. An undefined metric is {"value": None}; low and high are
    left out where the rows cannot carry an interval. No row at all gives {}; outputs that are not
    finite make every value None.
    """
    outputs, targets = np.asarray(outputs), np.asarray(targets)
    loss = np.asarray(per_sample_loss, np.float64)
    if not outputs.size:
        return {}
    if not np.isfinite(outputs).all():
        names = full(task, np.nan_to_num(outputs, posinf=0.0, neginf=0.0), targets, loss, classes, seed)
        return {name: {"value": None} for name in names}
    with np.errstate(all="ignore"):
        if task == "text":
            return _text(outputs, targets, loss)
        outputs = outputs.astype(np.float64)
        if task == "regression":
            found = _regression(outputs, targets.astype(np.float64), classes, seed)
        elif task == "multi-label":
            found = _multi_label(outputs, targets > 0.5)
        else:
            found = _classification(outputs, targets.astype(np.int64), seed)
            if task == "binary":
                found |= _binary(outputs[:, 1], outputs.argmax(1) == 1, targets == 1)
        return found | {"loss": _mean(loss)}


def confusion_matrix(true: Ints, predicted: Ints, classes: int) -> Ints:
    """Returns the counts (classes, classes), a row for each true class."""
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def precision_recall_f1(hits: ArrayLike, chosen: ArrayLike, support: ArrayLike) -> tuple[Array, Array, Array]:
    """Returns hits/chosen, hits/support and 2·hits/(chosen + support), NaN where undefined."""
    hits, chosen, support = (np.asarray(x, np.float64) for x in (hits, chosen, support))
    with np.errstate(all="ignore"):
        return hits / chosen, hits / support, 2 * hits / (chosen + support)


def _entry(value: Any, limits: Limits | None = None) -> Entry:
    if not np.isfinite(value):
        return {"value": None}
    if limits is None or not np.isfinite(limits).all():
        return {"value": float(value)}
    return {"value": float(value), "low": float(limits[0]), "high": float(limits[1])}


def _share(hits: Any, n: int) -> Entry:
    low, high = intervals.wilson(hits, n)
    return _entry(np.float64(hits) / n, (float(low), float(high)))


def _mean(values: Array) -> Entry:
    """The mean of values that cannot be negative."""
    limits = intervals.student_t(values)
    return _entry(values.mean(), None if limits is None else (max(0.0, limits[0]), limits[1]))


def _entry_of(rising: Callable[[float], float], entry: Entry) -> Entry:
    """A rising function of a metric: the limits go through it as the value does."""
    found = {name: rising(np.nan if x is None else x) for name, x in entry.items()}
    return _entry(found["value"], (found["low"], found["high"]) if "low" in found else None)


def _from_derivative(value: float, derivative: Array, boundary_n: float) -> Entry:
    """A statistic in [0, 1] with its derivative by each row's weight: the infinitesimal jackknife."""
    n = len(derivative)
    variance = float(np.square(derivative).sum()) * n / max(n - 1, 1)
    return _entry(value, intervals.wilson_effective(float(value), variance, n, boundary_n))


def _classification(p: Array, true: Ints, seed: int) -> dict[str, Entry]:
    n, count = p.shape
    predicted = p.argmax(1)
    right = predicted == true
    found = {"accuracy": _share(right.sum(), n)}

    confusion = confusion_matrix(true, predicted, count)
    hits, support, chosen = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    present = support > 0
    recall = hits[present] / support[present]
    limits = intervals.mean_of_independent(recall, *intervals.wilson(hits[present], support[present]))
    found["balanced_accuracy"] = _entry(recall.mean(), limits)

    # ∂/∂w of (1/K) Σ 2·hits/(support + chosen); Takahashi et al. (2022), Applied Intelligence 52, 4961
    size = support + chosen
    f1 = 2 * hits / np.maximum(size, 1)
    derivative = (2 * right / size[true] - (f1 / size)[true] - (f1 / size)[predicted]) / (size > 0).sum()
    boundary_n = present.sum() ** 2 / (1 / support[present]).sum()  # n, where classes are of equal size
    found["macro_f1"] = _from_derivative(f1[size > 0].mean(), derivative, boundary_n)

    if count > 10:
        own = p[np.arange(n), true][:, None]
        # ties go to the later class, as scikit-learn's top_k_accuracy_score has it
        before = (p > own).sum(1) + ((p == own) & (np.arange(count) > true[:, None])).sum(1)
        found["top_5_accuracy"] = _share((before < 5).sum(), n)
    found["ece"] = _expected_calibration_error(p.max(1), right, seed)
    return found


def _expected_calibration_error(confidence: Array, right: Bools, seed: int) -> Entry:
    """ECE = Σ_bins |Σ (right − confidence)| / n over 15 bins of equal width; Guo et al. (2017), eq. 3.

    Chance alone makes it positive, and a bootstrap repeats that bias, so both limits err on the safe
    side (they cover more than 95 %). With g the vector of the bins' gaps and * a resample,
    low = ECE − q₉₇.₅ ‖g* − g‖₁, by the triangle inequality; high = q₉₇.₅ of ECE*, for E[ECE*] ≥ ECE.
    """
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.clip(
        np.searchsorted(edges, confidence, side="left") - 1, 0, CALIBRATION_BINS - 1
    )  # (low, high]
    n = len(bins)
    gaps = np.zeros((n, CALIBRATION_BINS))
    gaps[np.arange(n), bins] = right - confidence

    observed = gaps.sum(0)

    def error_and_distance(totals: Array) -> Array:
        return np.stack([np.abs(totals).sum(1), np.abs(totals - observed).sum(1)], axis=1) / n

    value = np.abs(observed).sum() / n
    error, distance = intervals.bootstrap(gaps, error_and_distance, seed, method="percentile")
    if error is None or distance is None:
        return _entry(value)
    return _entry(value, (max(0.0, value - distance[1]), max(value, error[1])))


def _binary(score: Array, predicted: Bools, true: Bools) -> dict[str, Entry]:
    hits, chosen, support = int((predicted & true).sum()), int(predicted.sum()), int(true.sum())
    union = chosen + support - hits
    found = {"precision": _share(hits, chosen), "recall": _share(hits, support)}
    # F1 = 2J/(1+J) rises with J = hits/union, a plain share of the rows that are true or predicted
    found["f1"] = _entry_of(lambda j: 2 * j / (1 + j), _share(hits, union))

    smaller = min(support, len(true) - support)
    found["roc_auc"] = found["average_precision"] = _entry(np.nan)
    if smaller > 0:
        value, variance = roc_auc(score, true)
        # at 0 and 1 the greatest variance an AUC can have, Birnbaum & Klotz (1957)
        found["roc_auc"] = _entry(value, intervals.wilson_effective(value, variance, smaller, smaller))
    if support > 0:
        found["average_precision"] = _from_derivative(*average_precision(score, true), support)
    return found


def _multi_label(p: Array, true: Bools) -> dict[str, Entry]:
    n = len(p)
    predicted = p > 0.5
    hits = (predicted & true).astype(np.float64)  # (N, L)
    size = predicted.astype(np.float64) + true
    found = {"subset_accuracy": _share((predicted == true).all(1).sum(), n)}

    micro = 2 * hits.sum() / size.sum()
    found["micro_f1"] = _from_derivative(micro, (2 * hits - micro * size).sum(1) / size.sum(), n)
    used = size.sum(0) > 0
    f1 = 2 * hits.sum(0) / size.sum(0)
    derivative = ((2 * hits - f1 * size) / size.sum(0))[:, used]
    found["macro_f1"] = (
        _from_derivative(f1[used].mean(), derivative.mean(1), n) if used.any() else _entry(np.nan)
    )
    wrong = (predicted != true).mean(1)
    found["hamming_loss"] = _from_derivative(wrong.mean(), (wrong - wrong.mean()) / n, n)

    support = true.sum(0)
    single = [average_precision(p[:, label], true[:, label]) for label in np.flatnonzero(support)]
    found["mean_average_precision"] = _entry(np.nan)
    if single:
        value = float(np.mean([s[0] for s in single]))
        derivative = np.mean([s[1] for s in single], axis=0)
        found["mean_average_precision"] = _from_derivative(value, derivative, support[support > 0].min())
    return found


def _regression_sums(values: Array, targets: Array) -> Array:
    """Returns a row's terms (N, 1 + 3·O): 1, squared errors, centered targets and their squares."""
    centered = targets - targets.mean(0)
    constant = np.ptp(targets, axis=0) == 0
    centered[:, constant] = 0.0  # so that a mean's rounding does not make them vary
    return np.hstack([np.ones((len(values), 1)), np.square(values - targets), centered, np.square(centered)])


def _rmse_and_r2(totals: Array) -> Array:
    """Returns mean rmse, mean r2, each rmse, each r2 from totals (B, 1 + 3·O), as (B, 2 + 2·O)."""
    n = totals[:, :1]
    squares, linear, quadratic = np.split(totals[:, 1:], 3, axis=1)
    rmse = np.sqrt(squares / n)
    spread = quadratic - np.square(linear) / n
    r2 = np.where(spread > 1e-12 * quadratic, 1 - squares / spread, np.nan)  # below it is rounding
    defined = np.isfinite(r2)
    mean_r2 = np.where(defined, r2, 0.0).sum(1, keepdims=True) / defined.sum(1, keepdims=True)
    return np.hstack([rmse.mean(1, keepdims=True), mean_r2, rmse, r2])


def _regression(values: Array, targets: Array, names: Sequence[str], seed: int) -> dict[str, Entry]:
    outputs = targets.shape[1]
    sums = _regression_sums(values, targets)
    value = _rmse_and_r2(sums.sum(0, keepdims=True))[0]
    entries = [
        _entry(v, limits)
        for v, limits in zip(value, intervals.bootstrap(sums, _rmse_and_r2, seed), strict=True)
    ]
    errors = np.abs(values - targets)
    medians = np.median(errors, axis=0)
    limits = intervals.median(errors)
    # the mean of limits allows for the strongest dependence between the targets
    overall = None if limits is None else (float(limits[0].mean()), float(limits[1].mean()))
    found = {
        "rmse": entries[0],
        "mae": _mean(errors.mean(1)),
        "r2": entries[1],
        "median_absolute_error": _entry(medians.mean(), overall),
    }
    for k in range(outputs if outputs > 1 else 0):
        name = names[k] if k < len(names) else str(k)
        own = None if limits is None else (float(limits[0][k]), float(limits[1][k]))
        found[f"rmse/{name}"] = entries[2 + k]
        found[f"mae/{name}"] = _mean(errors[:, k])
        found[f"r2/{name}"] = entries[2 + outputs + k]
        found[f"median_absolute_error/{name}"] = _entry(medians[k], own)
    return found


def _characters(outputs: NDArray, targets: NDArray, loss: ArrayLike | None) -> tuple[Bools, Array]:
    """Returns which characters (N, T) were foreseen, and −log p of the true ones in nats."""
    if outputs.ndim == 3:
        own = np.take_along_axis(outputs, targets[..., None].astype(np.int64), axis=2)[..., 0]
        return outputs.argmax(2) == targets, -np.log(np.maximum(own.astype(np.float64), TINY))
    if loss is None:
        raise ValueError("without probabilities (N, T, V) the characters' losses must be given")
    return outputs == targets, np.asarray(loss, np.float64)


def _text(outputs: NDArray, targets: NDArray, loss: Array) -> dict[str, Entry]:
    """Neighbouring characters depend on each other: the windows' means are the independent units."""
    right, nats = _characters(outputs, targets, loss)
    n = len(right)
    losses, nats, accuracy = (x.reshape(n, -1).mean(1) for x in (loss, nats, right))
    nats_entry = _mean(nats)
    return {
        "loss": _mean(losses),
        "perplexity": _entry_of(np.exp, nats_entry),
        "bits_per_character": _entry_of(lambda x: x / np.log(2), nats_entry),
        "accuracy": _from_derivative(accuracy.mean(), (accuracy - accuracy.mean()) / n, n),
    }
