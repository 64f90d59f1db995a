"""What is said and drawn of an ensemble: gains in words, the table, the figures of the page."""

from __future__ import annotations

import json

import pytest

import stepwell as sw
from stepwell.report import ensemble_view, ensemble_words
from stepwell.report.page import page
from stepwell.report.run_folder import read_run

TINY = {"model.hidden": [8], "training.epochs": 4, "optimizer.lr": 0.02}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three of classes, and three folds of numbers."""
    folder = tmp_path_factory.mktemp("pages")
    sw.ensemble({"data": "iris", **TINY}, members=3, out=str(folder / "iris"), quiet=True)
    sw.ensemble({"data": "diabetes", **TINY}, kind="folds", members=3, out=str(folder / "d"), quiet=True)
    return folder


@pytest.mark.parametrize(
    ("name", "entry", "said"),
    [
        ("accuracy", {"value": 0.0123, "low": 0.002, "high": 0.02}, "1.23 points higher [+0.20, +2.00]"),
        (
            "accuracy",
            {"value": -0.01, "low": -0.03, "high": 0.01},
            "1.00 points lower [−3.00, +1.00], which may be chance",
        ),
        ("loss", {"value": -0.0123, "low": -0.02, "high": -0.01}, "0.0123 lower [−0.02, −0.01]"),
        ("loss", {"value": 0.0}, "the same"),
        ("micro_f1", {"value": None}, "undefined here"),
    ],
)
def test_a_difference_is_said_with_its_interval(name, entry, said):
    """Higher or lower, in points or in the metric's unit, and that it may be chance where 0 is inside."""
    assert ensemble_words.difference(name, entry) == said


def result(gain, task="multi-class", **limits):
    name = "rmse" if task == "regression" else "accuracy"
    each = [{"name": f"seed {k}", "test": {name: {"value": 0.5}, "loss": {"value": 1.0}}} for k in range(2)]
    return {
        "task": task,
        "test": {name: {"value": 0.5 + gain}, "loss": {"value": 1.0}},
        "data": {"test": 100},
        "ensemble": {"means": "M", "each": each, "over_mean": {name: {"value": gain, **limits}}},
    }


def test_the_headline_calls_a_lower_error_a_gain():
    """Accuracy gains upwards, RMSE downwards; the interval turns with it; a loss is called one."""
    assert "a gain of 2.00 points" in ensemble_words.headline(result(0.02))
    assert "a loss of 2.00 points" in ensemble_words.headline(result(-0.02))
    assert "no gain" in ensemble_words.headline(result(0.0))
    down = ensemble_words.headline(result(-0.1, "regression", low=-0.2, high=-0.05))
    assert "a gain of 0.1 (95\u202f% interval 0.05 to 0.2)" in down and "chance" not in down
    assert "may be chance" in ensemble_words.headline(result(0.02, low=-0.01, high=0.05))
    assert ensemble_words.headline({"task": "multi-class", "test": {}}) == ""


def test_the_table_has_members_mean_and_together():
    """The mean of the members is that of their values; more than LISTED members are counted."""
    names, rows = ensemble_words.cells(result(0.25))
    assert names == ["accuracy", "loss"]
    assert [name for name, _ in rows] == ["seed 0", "seed 1", "mean of the members", "together"]
    assert rows[-2][1][0] == "50.00%" and rows[-1][1][0] == "75.00%"
    many = result(0.0)
    many["ensemble"]["each"] *= 15
    assert any(name == "… 10 more" for name, _ in ensemble_words.cells(many)[1])


def test_the_page_has_the_section_and_its_figures(folder):
    """Classes: by members, reliability, courses; numbers: the spread in the place of reliability."""
    run, numbers = read_run(folder / "iris"), read_run(folder / "d")
    assert [f.id for f in ensemble_view.figures(run)] == ["by-members", "reliability", "courses"]
    assert [f.id for f in ensemble_view.figures(numbers)] == ["by-members", "spread", "courses"]
    text = page(run)
    assert 'id="ensemble"' in text and "Members, and together" in text and not run.missing
    assert "The model is the mean prediction of 3 members" in text


def test_reliability_draws_what_the_result_has(folder):
    """Dots and bars of one member and of the ensemble are the result's numbers."""
    run = read_run(folder / "iris")
    figure = ensemble_view.reliability(run)
    assert figure is not None
    told = json.loads((folder / "iris" / "result.json").read_text())["ensemble"]["calibration"]
    dots = [trace for trace in figure.data if trace.get("error_y")]
    bars = [trace for trace in figure.data if trace["type"] == "bar"]
    for key, dot, bar in zip(("member", "ensemble"), dots, bars, strict=True):
        assert dot["y"] == pytest.approx(told[key]["accuracy"], abs=1e-3)
        assert dot["x"] == pytest.approx(told[key]["confidence"], abs=1e-3)
        assert bar["y"] == dot["customdata"] == told[key]["count"]


def test_a_single_run_has_no_such_section(tmp_path):
    """Nothing of it on the page of `stepwell train`."""
    sw.train({"data": "iris", **TINY}, out=str(tmp_path / "run"), quiet=True)
    run = read_run(tmp_path / "run")
    assert 'id="ensemble"' not in page(run) and not ensemble_view.figures(run)
