"""The first thing one reads: the test result, its interval, and what it means in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stepwell.report import ensemble_words
from stepwell.report.predictions import confusion_counts, frequent_confusions, only_answer, regression_targets
from stepwell.report.run_folder import RunFolder, number, series
from stepwell.report.wording import (
    NARROW,
    Estimate,
    counted,
    duration,
    elide_middle,
    estimate,
    in_order,
    metric,
    percent,
    significant,
)

RISE = 1.05  # of the last validation loss over the lowest one, from which on it counts as risen
MUCH = 0.5  # by which it must have risen for overfitting to be spoken of where chance alone could do it
FLAT = 0.98  # of the lowest loss over the lowest of the first three quarters, above which it has levelled off
BY_HEART = 1 / 20  # training loss over validation loss below which the training rows are known by heart


@dataclass(frozen=True)
class Headline:
    """value: "98.1 %", label: "test accuracy", interval: "95 % interval 96.2 % to 99.1 %" or ""."""

    value: str
    label: str
    interval: str
    summary: str


def headline(run: RunFolder) -> Headline:
    """Chooses the task's most telling test metric; without a test result, the last validation row's."""
    test = _test_metrics(run)
    key = _chosen(run, list(test))
    if key:
        shown = metric(key)
        value, limits = shown.written(test[key])
        return Headline(
            value,
            f"test {shown.label}",
            f"95{NARROW}% interval {limits}" if limits else "",
            " ".join(filter(None, [*_told(run, key, test), _comparison(run), _course(run)])),
        )
    ended = run.result.get("status") == "finished"
    not_tested = (
        "There is no test result: the data has no test part (data.test)."
        if ended
        else f"There is no test result: the run has not come to its end{_progress(run)}."
    )
    for split, name in (("validation", "validation"), ("train", "training")):
        rows = run.rows.get(split, [])
        last = {k: v for k, raw in (rows[-1] if rows else {}).items() if (v := number(raw)) is not None}
        key = _chosen(run, [k for k in last if k not in ("update", "epoch", "grad_norm")])
        if key:
            at = f"at update {int(last['update']):,}" if "update" in last else "so far"
            shown = metric(key)
            return Headline(
                shown.text(last[key]),
                f"{name} {shown.label} {at}",
                "",
                f"{not_tested} {_course(run)}".strip(),
            )
    return Headline("–", "no result yet", "", not_tested)


def _told(run: RunFolder, key: str, test: dict[str, Estimate]) -> tuple[str, str]:
    """What the metric means, and, of an ensemble, what its members gain together."""
    return _meaning(run, key, test[key], test), ensemble_words.headline(run.result)


def _progress(run: RunFolder) -> str:
    """How far an unfinished run has come, in the unit of its recipe's limit."""
    training = run.recipe.get("training") or {}
    if run.last_update and (updates := number(training.get("updates"))):
        return f": it was at update {run.last_update:,.0f} of {updates:,.0f}"
    every = [epoch for rows in run.rows.values() for row in rows if (epoch := number(row.get("epoch")))]
    if every and (epochs := number(training.get("epochs"))):
        return f": it was at epoch {significant(max(every), 3)} of {epochs:,.0f}"
    return f": it was at update {run.last_update:,.0f}" if run.last_update else ""


def _chosen(run: RunFolder, keys: list[str]) -> str | None:
    several = run.task == "regression" and len(run.evaluation.get("targets") or []) > 1
    if several and "r2" in keys:  # one RMSE over targets of different units says nothing
        return "r2"
    ordered = in_order(run.task, keys)
    return ordered[0] if ordered else ("loss" if "loss" in keys else None)


def _samples(run: RunFolder) -> str:
    n = number((run.result.get("data") or {}).get("test"))
    return counted(n, "test sample") if n is not None else "test samples"


def _meaning(run: RunFolder, key: str, result: Estimate, test: dict[str, Estimate]) -> str:
    samples = _samples(run)
    if key == "accuracy" and run.task == "text":
        return f"The network names the next character correctly {percent(result.value)} of the time."
    if key == "accuracy":
        n = number((run.result.get("data") or {}).get("test"))
        right = (
            f"{round(result.value * n):,} of {samples}" if n else f"{percent(result.value)} of the {samples}"
        )
        text = f"The network answered {right} correctly, none of which it had seen in training."
        if limits := metric(key).written(result)[1]:
            text += f" On other data of the same kind, expect between {limits.replace(' to ', ' and ')}."
        return text
    if key == "rmse":
        text = f"On {samples} the predictions are off by "
        text += (
            f"{significant(test['mae'].value, 3)} on average"
            if "mae" in test
            else f"{significant(result.value, 3)} (root mean square)"
        )
        if "r2" in test:
            text += f" and explain {percent(test['r2'].value)} of the variance"
        return text + "."
    if key == "r2":
        return f"On {samples} the predictions explain {percent(result.value)} of the targets' variance."
    if key == "micro_f1":
        text = f"On {samples} that it had not seen, the network reaches a micro F1 of {percent(result.value)}"
        if "subset_accuracy" in test:
            text += f"; all labels were right for {percent(test['subset_accuracy'].value)}"
        return text + "."
    if key == "bits_per_character":
        candidates = significant(2**result.value, 2)
        return (
            f"On text it has not seen, the network needs {significant(result.value, 3)} bits for a "
            f"character: it is as unsure as if it chose among {candidates} equally likely ones."
        )
    return f"Measured on {samples} that the network had not seen in training."


def _comparison(run: RunFolder) -> str:
    """What one gets without any network, and where this one errs most."""
    counts = confusion_counts(run)
    if counts is not None and counts.sum() > 0 and run.task != "multi-label":
        text = (
            f"Always naming the most frequent class would give {percent(counts.sum(1).max() / counts.sum())}."
        )
        if (answer := only_answer(run)) is not None:
            return f"{text} This network gives one answer to every sample: “{answer}”."
        top, as_frequent = frequent_confusions(run, limit=1)
        if top and not as_frequent:
            true, predicted, count, _ = top[0]
            text += (
                f" The most frequent mistake is “{true}” taken for “{predicted}” ({counted(count, 'time')})."
            )
        return text
    targets = regression_targets(run)
    if len(targets) == 1:
        off = (
            f"{significant(targets[0].deviation, 3)} on average"
            if "mae" in _test_metrics(run)
            else f"{significant(targets[0].spread, 3)} (root mean square)"
        )
        return f"Always answering the mean would be off by {off}."
    return ""


def _course(run: RunFolder) -> str:
    """Whether the validation loss was still falling in the end, and what the training loss says of it."""
    x, y, _ = series(run.rows.get("validation", []), "loss")
    if len(y) < 3:
        return ""
    best = int(np.argmin(y))
    if y[best] > 0 and y[-1] > RISE * y[best]:
        return _turned(run, int(x[best]), y[-1] / y[best] - 1)
    _, train, _ = series(run.rows.get("train", []), "loss")
    flat = y[best] > FLAT * y[: max(1, 3 * len(y) // 4)].min()
    if flat and len(train) and 0 <= _in_the_end(train) < BY_HEART * y[-1]:
        return (
            f"Validation loss had levelled off by the end, at {significant(y[-1], 2)}, while the training "
            f"loss fell to {significant(_in_the_end(train), 2)}: the network has learnt the training rows "
            "by heart. More data, a smaller model or regularization may help; longer training will not."
        )
    if best == len(y) - 1:
        return "Validation loss was at its lowest in the end, so longer training may still help."
    return "Validation loss had levelled off by the end."


def _in_the_end(losses: np.ndarray) -> float:
    """Median of the last fifth, at most five: single losses of batches scatter."""
    return float(np.median(losses[-min(5, max(1, len(losses) // 5)) :]))


def _turned(run: RunFolder, best: int, rise: float) -> str:
    """The validation loss rose after update `best`: is that overfitting, and which weights were delivered?"""
    delivered = (run.result.get("weights") or {}).get("delivered")
    by_itself = (run.recipe.get("training") or {}).get("weights") == "auto"
    n = number((run.result.get("data") or {}).get("validation"))
    samples = "the validation part" if n is None else counted(n, "validation sample")
    text = (
        f"Validation loss was lowest at update {best:,} and rose by {percent(rise, 0 if rise > 0.1 else 1)} "
        "after it"
    )
    if rise < MUCH and by_itself and delivered == "last":
        return (
            f"{text}: on {samples} that is within chance (one standard error), so the last weights were "
            "kept; training.weights=best keeps the best ones."
        )
    x, train, _ = series(run.rows.get("train", []), "loss")
    if len(train) and _in_the_end(train) < np.interp(best, x, train):
        text += ", while the training loss went on falling: from there on the network overfits."
    else:
        text += "."
    if delivered == "best":
        return f"{text} The weights of update {best:,} were kept."
    if delivered != "last":
        return text
    advice = f"training.weights=best keeps the best ones, and training.updates={best} trains no further."
    if not by_itself:
        return f"{text} The last weights were kept; {advice}"
    return (
        f"{text} On {samples} the difference "
        "between the best and the last weights is within chance (one standard error), so the last ones were "
        f"kept; {advice}"
    )


def _of_class(run: RunFolder, key: str) -> str:
    """Two classes: precision, recall and F1 are those of the second, so it has to be named."""
    if run.task == "binary" and key in ("precision", "recall", "f1") and len(run.classes) == 2:
        return f" of “{elide_middle(run.classes[1], 16)}”"
    return ""


Fact = tuple[str, str, str]  # name, value, small print


def test_facts(run: RunFolder) -> list[Fact]:
    """The test metrics beside the headline's, each with its interval."""
    test = _test_metrics(run)
    main = _chosen(run, list(test))
    found = []
    for key in [*in_order(run.task, list(test)), "loss"]:
        if key in test and key != main:
            shown, result = metric(key), test[key]
            found.append((f"{shown.label}{_of_class(run, key)}", *shown.written(result)))
    return found


def run_facts(run: RunFolder) -> list[Fact]:
    """Size and cost of the run."""
    found: list[Fact] = []
    data = run.result.get("data") or {}
    for part in ("train", "validation", "test"):
        if (n := number(data.get(part))) is not None:
            found.append(("training samples" if part == "train" else f"{part} samples", f"{n:,.0f}", ""))
    if (parameters := number(run.result.get("parameters"))) is not None:
        found.append(("parameters", f"{parameters:,.0f}", ""))
    if (updates := number(run.result.get("updates"))) is not None:
        epochs = number(run.result.get("epochs"))
        found.append(("updates", f"{updates:,.0f}", f"{significant(epochs, 3)} epochs" if epochs else ""))
    if (seconds := number(run.result.get("seconds"))) is not None:
        device = (run.result.get("environment") or {}).get("device")
        found.append(("time", duration(seconds), f"on {device}" if device else ""))
    return found


def _test_metrics(run: RunFolder) -> dict[str, Estimate]:
    return {key: e for key, entry in (run.result.get("test") or {}).items() if (e := estimate(entry))}
