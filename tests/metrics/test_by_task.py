"""Metrics against scikit-learn; their intervals against simulated coverage."""

import json
import time
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.metrics import by_task as metrics

SIZES = st.integers(1, 60)
SEEDS = st.integers(0, 2**32 - 1)
NAN: Any = np.nan  # scikit-learn's annotations take zero_division for a text only


def multi_class(seed, n, classes=4, signal=1.5):
    r = np.random.default_rng(seed)
    true = r.integers(classes, size=n)
    z = r.normal(size=(n, classes)) + signal * np.eye(classes)[true]
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return p, true, -np.log(p[np.arange(n), true])


def binary(seed, n):
    r = np.random.default_rng(seed)
    true = (r.random(n) < 0.3).astype(np.int64)
    q = np.round(1 / (1 + np.exp(0.7 - 1.5 * true + r.normal(size=n))), 3)  # rounded, for ties
    p = np.stack([1 - q, q], 1)
    return p, true, -np.log(p[np.arange(n), true])


def multi_label(seed, n, labels=3):
    r = np.random.default_rng(seed)
    common = r.normal(size=(n, 1))  # makes the labels of a row depend on each other
    z = r.normal(size=(n, labels)) + common - 0.6
    p = 1 / (1 + np.exp(-2 * z - 1.2 * r.normal(size=(n, labels))))
    true = (z > 0).astype(np.float64)
    return p, true, -np.log(np.where(true > 0, p, 1 - p)).mean(1)


def regression(seed, n):
    r = np.random.default_rng(seed)
    x = r.normal(size=(n, 2))
    true = 50 + x + r.normal(size=(n, 2)) * [0.5, 1.0] + 0.3 * r.normal(size=(n, 1))
    return 50 + x, true, np.square(50 + x - true).mean(1)


def text(seed, n, length=12):
    r = np.random.default_rng(seed)
    true = r.integers(3, size=(n, length))
    ease = 1 + r.normal(size=(n, 1, 1))  # makes the characters of a window depend on each other
    z = r.normal(size=(n, length, 3)) + ease * np.eye(3)[true]
    p = np.exp(z) / np.exp(z).sum(2, keepdims=True)
    return p, true, -np.log(np.take_along_axis(p, true[..., None], 2)[..., 0])


TASKS = {
    "multi-class": multi_class,
    "binary": binary,
    "multi-label": multi_label,
    "regression": regression,
    "text": text,
}


def values(found) -> dict[str, Any]:
    return {name: entry["value"] for name, entry in found.items()}


def assert_equal(found, truth):
    """Every value of the truth, to 1e-12; NaN in the truth is None here."""
    for name, value in truth.items():
        if np.isnan(value):
            assert found[name] is None, name
        else:
            assert found[name] == pytest.approx(value, abs=1e-12, rel=1e-12), name


@given(SEEDS, SIZES)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_multi_class_is_scikit_learns(seed, n):
    """Values equal scikit-learn's, also where classes are absent."""
    p, true, loss = multi_class(seed, n)
    y = p.argmax(1)
    truth = {
        "accuracy": sk.accuracy_score(true, y),
        "balanced_accuracy": sk.recall_score(true, y, labels=np.unique(true), average="macro"),
        "macro_f1": sk.f1_score(true, y, average="macro"),
        "loss": sk.log_loss(true, p, labels=range(4)),
    }
    assert_equal(values(metrics.full("multi-class", p, true, loss, list("abcd"))), truth)
    assert_equal(metrics.quick("multi-class", p, true), {"accuracy": truth["accuracy"]})


@given(SEEDS, st.booleans())
@settings(max_examples=20)
def test_top_5_is_scikit_learns(seed, ties):
    """More than ten classes: the top five, ties included, equal scikit-learn's."""
    p, true, loss = multi_class(seed, 50, classes=12)
    p = np.round(p, 1) if ties else p
    found = values(metrics.full("multi-class", p, true, loss, [str(c) for c in range(12)]))
    truth = sk.top_k_accuracy_score(true, p, k=5, labels=range(12))
    assert found["top_5_accuracy"] == pytest.approx(truth, abs=1e-12)


@given(SEEDS, SIZES)
def test_binary_is_scikit_learns(seed, n):
    """Values of the second class equal scikit-learn's; undefined ones are None."""
    p, true, loss = binary(seed, n)
    y = p.argmax(1)
    both = 0 < true.sum() < n
    truth = {
        "precision": sk.precision_score(true, y, zero_division=NAN),
        "recall": sk.recall_score(true, y, zero_division=NAN),
        "f1": sk.f1_score(true, y, zero_division=NAN),
        "roc_auc": sk.roc_auc_score(true, p[:, 1]) if both else np.nan,
        "average_precision": sk.average_precision_score(true, p[:, 1]) if true.any() else np.nan,
    }
    assert_equal(values(metrics.full("binary", p, true, loss, ["no", "yes"])), truth)


@given(SEEDS, SIZES)
def test_multi_label_is_scikit_learns(seed, n):
    """Values equal scikit-learn's with zero_division=nan."""
    p, true, loss = multi_label(seed, n)
    y = p > 0.5
    used = true.any(0)
    truth = {
        "subset_accuracy": sk.accuracy_score(true, y),
        "micro_f1": sk.f1_score(true, y, average="micro", zero_division=NAN),
        "macro_f1": sk.f1_score(true, y, average="macro", zero_division=NAN),
        "hamming_loss": sk.hamming_loss(true, y),
        "mean_average_precision": sk.average_precision_score(true[:, used], p[:, used])
        if used.any()
        else np.nan,
    }
    assert_equal(values(metrics.full("multi-label", p, true, loss, list("abc"))), truth)
    quick = metrics.quick("multi-label", p, true)
    assert_equal({"f1": None} | quick, {"subset_accuracy": truth["subset_accuracy"], "f1": truth["micro_f1"]})


@given(SEEDS, st.integers(2, 60))
def test_regression_is_scikit_learns(seed, n):
    """Overall values and each target's equal scikit-learn's."""
    guess, true, loss = regression(seed, n)
    truth = {
        "rmse": sk.root_mean_squared_error(true, guess),
        "mae": sk.mean_absolute_error(true, guess),
        "r2": sk.r2_score(true, guess),
    }
    assert metrics.quick("regression", guess, true) == pytest.approx(truth, rel=1e-10)
    truth["median_absolute_error"] = sk.median_absolute_error(true, guess)
    truth["rmse/u"] = sk.root_mean_squared_error(true[:, 0], guess[:, 0])
    truth["mae/u"] = sk.mean_absolute_error(true[:, 0], guess[:, 0])
    truth["r2/v"] = sk.r2_score(true[:, 1], guess[:, 1])
    truth["median_absolute_error/v"] = sk.median_absolute_error(true[:, 1], guess[:, 1])
    found = values(metrics.full("regression", guess, true, loss, ["u", "v"]))
    for name, value in truth.items():  # R² of two near targets is ill-conditioned: relative, not 1e-12
        assert found[name] == pytest.approx(value, rel=1e-12 if n > 10 else 1e-8), name


def test_text_by_definition():
    """Loss, perplexity, bits and accuracy follow from −log p; predicted characters do, with the losses."""
    p, true, loss = text(0, 20)
    truth = {"loss": loss.mean(), "perplexity": np.exp(loss.mean())}
    truth["bits_per_character"] = -np.log2(np.take_along_axis(p, true[..., None], 2)).mean()
    truth["accuracy"] = sk.accuracy_score(true.ravel(), p.argmax(2).ravel())
    assert_equal(values(metrics.full("text", p, true, loss, [])), truth)
    assert_equal(values(metrics.full("text", p.argmax(2), true, loss, [])), truth)
    for quick in (metrics.quick("text", p, true), metrics.quick("text", p.argmax(2), true, loss)):
        assert_equal(quick, {name: truth[name] for name in ("accuracy", "bits_per_character")})


def test_calibration_error_by_loop():
    """The expected calibration error equals a loop over fifteen bins (low, high]."""
    p, true, loss = multi_class(3, 500)
    confidence, right = p.max(1), p.argmax(1) == true
    truth = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            truth += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    found = metrics.full("multi-class", p, true, loss, list("abcd"))["ece"]
    assert found["value"] == pytest.approx(truth, abs=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("task", TASKS)
@given(SEEDS, st.integers(0, 12), st.sampled_from(["", "nan", "constant", "perfect"]))
@settings(max_examples=40)
def test_undefined_is_none_and_json_holds(task, seed, n, fault):
    """A few rows, constant targets, perfect and non-finite outputs: JSON, no warning, value within limits."""
    outputs, targets, loss = TASKS[task](seed, n)
    if fault == "nan" and n:
        outputs.flat[0] = np.nan
    if fault == "constant":
        targets = targets * 0 + (0.1 if task == "regression" else 0)
    if fault == "perfect":
        same = task in ("regression", "multi-label")
        outputs = targets.astype(float) if same else np.eye(outputs.shape[-1])[targets]
    found = metrics.full(task, outputs, targets, loss, list("abcd"))
    json.dumps([found, metrics.quick(task, outputs, targets)], allow_nan=False)
    assert bool(found) == (n > 0)
    for entry in found.values():
        assert set(entry) in ({"value"}, {"value", "low", "high"})
        if "low" in entry:
            low, value, high = (entry[key] or 0.0 for key in ("low", "value", "high"))
            assert low - 1e-9 <= value <= high + 1e-9
        if fault == "nan":
            assert entry == {"value": None}


def test_constant_targets_have_no_r2():
    """R² of a constant target is None, also where their mean is rounded; the other one's stays."""
    guess, true, loss = regression(0, 30)
    true[:, 0] = 0.1
    found = metrics.full("regression", guess, true, loss, ["u", "v"])
    assert found["r2/u"] == {"value": None}
    assert found["r2"]["value"] == found["r2/v"]["value"]
    assert "r2" not in metrics.quick("regression", guess[:, :1], true[:, :1])


def test_a_perfect_test_set_is_not_certain():
    """Thirty rows without a mistake leave every share in doubt: low is below 0.95."""
    true = np.arange(30) % 2
    found = metrics.full("binary", np.eye(2)[true] * 0.98 + 0.01, true, np.zeros(30), ["no", "yes"])
    for name in (
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "precision",
        "f1",
        "roc_auc",
        "average_precision",
    ):
        assert found[name]["value"] == 1 and (found[name]["low"] or 1) < 0.95, name


@pytest.mark.parametrize(
    "task, n, repetitions",
    [("multi-class", 150, 300), ("binary", 150, 300), ("multi-label", 100, 400), ("regression", 80, 300),
     ("text", 60, 400)],
)  # fmt: skip
def test_intervals_cover(task, n, repetitions):
    """In simulated test sets the interval holds the large-sample value about 95 % of the time.

    The band is that of 3.3 standard errors of the simulation, and two points for small samples;
    conservative intervals (calibration error, the mean of several medians) may cover more.
    """
    outputs, targets, loss = TASKS[task](10**6, 100_000 if task != "text" else 30_000)
    truth = values(metrics.full(task, outputs, targets, loss, []))
    covered = dict.fromkeys(truth, 0)
    for seed in range(repetitions):
        outputs, targets, loss = TASKS[task](seed, n)
        for name, entry in metrics.full(task, outputs, targets, loss, [], seed).items():
            covered[name] += "low" in entry and entry["low"] <= truth[name] <= entry["high"]
    error = 3.3 * np.sqrt(0.95 * 0.05 / repetitions)
    for name, count in covered.items():
        highest = 1.0 if name in ("ece", "median_absolute_error") else 0.95 + error
        assert 0.93 - error <= count / repetitions <= highest, (name, count / repetitions)


def test_ten_thousand_rows_take_no_python_loop():
    """10,000 rows of ten outputs: all metrics and intervals in a second of processor time (with room)."""
    p, true, loss = multi_class(0, 10_000, classes=10)
    start = time.process_time()
    metrics.full("multi-class", p, true, loss, [str(c) for c in range(10)])
    metrics.full("regression", p, p[::-1], loss, [str(c) for c in range(10)])
    metrics.full("multi-label", p, p[::-1] > 0.3, loss, [str(c) for c in range(10)])
    assert time.process_time() - start < 5
