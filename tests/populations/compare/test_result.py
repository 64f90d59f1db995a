"""Statistics of a comparison: tuned on validation, compared on test, and honest about chance."""

from __future__ import annotations

import numpy as np
import pytest

from stepwell.populations.compare.plan import Plan, make_plan
from stepwell.populations.compare.result import _difference, summarize
from stepwell.populations.member import Outcome

SMALL = {"data.name": "iris", "model.hidden": [4], "training.epochs": 1}


@pytest.fixture(scope="module")
def two() -> Plan:
    return make_plan({**SMALL, "optimizer.name": "sgd,adam", "optimizer.lr": "log(0.01,1,3)"}, 2)


def plan_of(entries: int, seeds: int) -> Plan:
    return make_plan({**SMALL, "optimizer.lr": [0.1 * (k + 1) for k in range(entries)]}, seeds)


def entry(result: dict, name: str) -> dict:
    return next(entry for entry in result["entries"] if entry["name"] == name)


def test_a_value_is_chosen_by_validation_alone(two: Plan, outcome):
    """sgd is best on the test part at its last rate, and on the validation part at its first."""
    ends = [
        outcome(v, t) for v, t in [(0.9, 0.1), (0.9, 0.1), (0.8, 0.5), (0.8, 0.5), (0.7, 0.99), (0.7, 0.99)]
    ]
    result = summarize(two, [*ends, *[outcome(0.85, 0.3)] * 6])
    sgd = entry(result, "sgd")
    assert sgd["tuned"] == {"optimizer.lr": 0.01} and sgd["test"]["accuracy"]["mean"] == pytest.approx(0.1)
    assert any("smallest tried for sgd" in note or "smallest tried for" in note for note in result["notes"])


def test_the_reference_is_chosen_by_validation(two: Plan, outcome):
    """adam is worse on the test part, where it stands second; yet it is what others are compared with."""
    ends = [outcome(0.8, 0.9)] * 6 + [outcome(0.9, 0.7), outcome(0.9, 0.72)] * 3
    result = summarize(two, ends)
    assert result["reference"] == "adam"
    assert [e["name"] for e in result["entries"]] == ["sgd", "adam"]
    assert entry(result, "sgd")["difference"]["mean"] == pytest.approx(0.19)
    assert entry(result, "adam")["difference"] is None


def test_a_failed_run_counts_as_the_worst(two: Plan, outcome):
    """Of three rates the one with the best mean has a diverged run, so another one is chosen."""
    failed = outcome(0.0, 0.0, diverged=3)
    sgd = [
        outcome(0.99, 0.9),
        failed,
        outcome(0.6, 0.6),
        outcome(0.6, 0.6),
        outcome(0.5, 0.5),
        outcome(0.5, 0.5),
    ]
    result = summarize(two, [*sgd, *[failed] * 6])
    assert entry(result, "sgd")["tuned"]["optimizer.lr"] == pytest.approx(0.1)
    assert (entry(result, "sgd")["diverged"], entry(result, "adam")["diverged"]) == (1, 6)
    assert result["reference"] == "sgd" and "Of adam every run diverged." in result["verdict"]


def test_outputs_that_are_not_finite_are_a_failed_run(two: Plan, outcome):
    """Weights may be finite and their outputs not: then nothing was measured."""
    ends = [outcome(0.5, 0.5)] * 6 + [Outcome(10, 1.0)] * 6
    assert entry(summarize(two, ends), "adam")["diverged"] == 6


def test_time_to_the_target(two: Plan, outcome):
    """The default target is what the worst entry reaches at its best; a given one may never be reached."""
    fast, slow = outcome(0.9, 0.9, curve=(0.5, 0.8, 0.9)), outcome(0.8, 0.8, curve=(0.1, 0.8, 0.7))
    result = summarize(two, [slow] * 6 + [fast] * 6)
    assert result["target"] == {"value": pytest.approx(0.8), "given": False}
    assert {e["name"]: e["updates_to_target"] for e in result["entries"]} == {"sgd": 20, "adam": 20}
    result = summarize(two, [slow] * 6 + [fast] * 6, target=0.85)
    assert {e["name"]: e["updates_to_target"] for e in result["entries"]} == {"sgd": None, "adam": 30}


def test_a_given_up_value_is_never_chosen(two: Plan, outcome):
    """A value that led when it was given up is not the tuned one, and nothing is said of tunability."""
    stopped = outcome(0.99, 0.99, stopped_at=5)
    result = summarize(two, ([outcome(0.6, 0.6)] * 2 + [stopped] * 4) * 2, rungs=[5])
    assert {e["tuned"]["optimizer.lr"] for e in result["entries"]} == {0.01}
    assert all(e["given_up"] == 4 and e["tunability"] == {} for e in result["entries"])


def false_alarms(plan: Plan, outcome, shared: float, repetitions: int, steps: int = 0) -> float:
    """The share of repetitions in which entries that are all alike are said to differ from the reference.

    shared: how much of a run's luck on the validation part is also its luck on the test part.
    steps: the test accuracy is a multiple of 1/steps; 0: any number.
    """
    draw, found = np.random.default_rng(1), 0
    for _ in range(repetitions):
        luck = draw.normal(size=(len(plan.entries) * len(plan.seeds), 2))
        test = 0.6 + 0.05 * luck[:, 0]
        validation = 0.6 + 0.05 * (np.sqrt(shared) * luck[:, 0] + np.sqrt(1 - shared) * luck[:, 1])
        test = np.round(test * steps) / steps if steps else test
        result = summarize(plan, [outcome(v, t) for v, t in zip(validation, test, strict=True)])
        tests = [e["difference"]["p_holm"] for e in result["entries"] if e["difference"]]
        found += min(tests) < 0.05
    return found / repetitions


@pytest.mark.parametrize("steps", [0, 30, 270])
def test_a_rule_does_not_differ_from_itself(outcome, steps: int):
    """The same rule under two names, five seeds each of its own: at most 6 false alarms in 100.

    Also where accuracy has steps of a row, 1/30, so that differences repeat. Over 1,500 repetitions the
    share is 5 % with a standard error of 0.6 %, so that 7 % would be seen.
    """
    plan = plan_of(2, 5)
    assert false_alarms(plan, outcome, 0.5, 100, steps) <= 0.06
    assert false_alarms(plan, outcome, 0.5, 1500, steps) <= 0.067


def test_choosing_the_reference_makes_no_false_alarms(outcome):
    """Eight equal entries of ten seeds, whose luck on validation is that on test: still at most 5 %.

    Corrected for the seven comparisons with the reference alone it would be 12 %. 400 repetitions: the
    standard error is 1.1 %.
    """
    assert false_alarms(plan_of(8, 10), outcome, 1.0, 400) <= 0.05 + 3 * 0.011


def test_a_real_difference_is_found(outcome):
    """Ten points better with a spread of two points: all but always significant with five seeds."""
    plan, draw, found = plan_of(2, 5), np.random.default_rng(2), 0
    for _ in range(100):
        values = np.repeat([0.80, 0.90], 5) + 0.02 * draw.normal(size=10)
        result = summarize(plan, [outcome(v, v) for v in values])
        assert result["reference"] == "lr 0.2"
        found += "significantly better than the other" in result["verdict"]
    assert found >= 95


def test_the_verdict_names_who_is_worse(outcome):
    """Three entries: one clearly worse, one alike."""
    ends = [outcome(v + d, v + d) for v in (0.9, 0.899, 0.7) for d in (0.001, 0.0, -0.0015, 0.002, 0.0)]
    ends[5] = ends[7] = outcome(0.9, 0.9)
    result = summarize(plan_of(3, 5), ends)
    assert "On the test part lr 0.3 is significantly worse." in result["verdict"]
    assert "The difference to lr 0.2 is not significant with 5 seeds." in result["verdict"]
    one = summarize(plan_of(3, 1), [outcome(v, v) for v in (0.9, 0.8, 0.7)])
    assert "one seed says nothing of chance" in one["verdict"]


def test_a_difference_is_the_same_from_both_sides():
    """name − reference is the negative of reference − name, with its limits in order."""
    pair = {
        "first": "a",
        "second": "b",
        "mean": 0.1,
        "low": -0.1,
        "high": 0.3,
        "p": 0.2,
        "p_holm": 0.4,
        "n": 5,
    }
    ours, turned = _difference([pair], "a", "b"), _difference([pair], "b", "a")
    assert (ours["low"], ours["mean"], ours["high"]) == (-0.1, 0.1, 0.3)
    assert (turned["low"], turned["mean"], turned["high"]) == (-0.3, -0.1, 0.1)
    assert turned["p_holm"] == 0.4
