"""Paired gains: the metrics of `by_task`, and the interval of scipy's own paired bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stepwell.metrics import by_task, intervals, paired


def cases(task, n=120, seed=0):
    """Outputs of three models, targets and losses of a task."""
    draw = np.random.default_rng(seed)
    if task == "regression":
        targets = draw.normal(size=(n, 2))
        outputs = [targets + draw.normal(size=(n, 2)) * s for s in (0.5, 0.6, 0.7)]
    elif task == "multi-label":
        targets = (draw.random((n, 4)) < 0.4).astype(float)
        outputs = [np.clip(targets * 0.4 + draw.random((n, 4)) * 0.6, 0, 1) for _ in range(3)]
    elif task == "text":
        targets = draw.integers(0, 5, (n, 8))
        outputs = [np.where(draw.random((n, 8)) < s, targets, 0) for s in (0.8, 0.7, 0.6)]
    else:
        targets = draw.integers(0, 3, n)
        outputs = [draw.dirichlet(np.ones(3), n) + np.eye(3)[targets] * s for s in (0.6, 0.4, 0.3)]
        outputs = [p / p.sum(1, keepdims=True) for p in outputs]
    losses = [draw.gamma(2, 1 + k, (n, 8) if task == "text" else n) for k in range(3)]
    return outputs, targets, losses


@pytest.mark.parametrize("task", ["multi-class", "multi-label", "regression", "text"])
def test_values_are_the_tasks_own_metrics(task):
    """Sums of `terms` give what `by_task.full` gives, for each of the metrics that are compared."""
    outputs, targets, losses = cases(task)
    full = by_task.full(task, outputs[0], targets, losses[0], ["a", "b", "c", "d", "e"])
    terms = paired.terms(task, outputs[0], targets, losses[0])
    found = paired.values(task, terms.sum(0, keepdims=True))[0]
    assert found == pytest.approx([full[name]["value"] for name in paired.COMPARED[task]], rel=1e-12)


@pytest.mark.parametrize("task", ["multi-class", "regression"])
def test_the_interval_is_that_of_a_slow_paired_bootstrap(task):
    """scipy's BCa over whole samples: the limits agree to a tenth of the width (2,000 against 4,000 draws).

    A quantile of 2,000 draws at 2.5 % has a standard error of 0.06 standard deviations, 1.5 % of the width.
    """
    outputs, targets, losses = cases(task)
    first, *rest = [paired.terms(task, o, targets, e) for o, e in zip(outputs, losses, strict=True)]
    found = paired.gain(task, first, rest, seed=1)
    for place, name in enumerate(paired.COMPARED[task]):

        def slow(rows, place=place):
            def metric(k):
                out, loss, y = outputs[k][rows], losses[k][rows], targets[rows]
                if place == 1:
                    return loss.mean()
                if task == "regression":
                    return np.sqrt(np.square(out - y).mean(0)).mean()
                return (out.argmax(1) == y).mean()

            return metric(0) - (metric(1) + metric(2)) / 2

        entry = found[name]
        assert entry["value"] == pytest.approx(slow(np.arange(len(targets))), rel=1e-12)
        theirs = stats.bootstrap(
            (np.arange(len(targets)),), slow, n_resamples=4000, method="BCa", vectorized=False, rng=0
        ).confidence_interval
        width = theirs.high - theirs.low
        assert [entry["low"], entry["high"]] == pytest.approx([theirs.low, theirs.high], abs=0.1 * width)


def test_pairing_makes_the_interval_narrow():
    """Of two models that err on nearly the same samples the difference is known far better than each."""
    draw = np.random.default_rng(0)
    right = draw.random(500) < 0.8
    other = right ^ (draw.random(500) < 0.01)
    p = [np.stack([1.0 * ~r, 1.0 * r], 1) for r in (right, other)]
    terms = [paired.terms("binary", q, np.ones(500, int), np.zeros(500)) for q in p]
    found = paired.gain("binary", terms[0], terms[1:], 0)["accuracy"]
    low, high = intervals.wilson(right.sum(), 500)
    assert (found["high"] or 0.0) - (found["low"] or 0.0) < (high - low) / 2


def test_the_same_model_gains_nothing():
    """No resample changes the difference: it is 0, without limits."""
    outputs, targets, losses = cases("multi-class")
    terms = paired.terms("multi-class", outputs[0], targets, losses[0])
    assert paired.gain("multi-class", terms, [terms], 0) == {"accuracy": {"value": 0}, "loss": {"value": 0}}
