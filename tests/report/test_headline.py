"""The first sentences are true of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepwell.report.headline import headline
from stepwell.report.run_folder import RunFolder


def course(train: list[float], validation: list[float], wanted: str = "auto", delivered: str = "last") -> str:
    """The summary of a run that logged these losses every 100 updates."""
    curves = {"train": train, "validation": validation}
    rows: dict[str, list[dict[str, Any]]] = {
        split: [{"update": 100 * k, "loss": loss} for k, loss in enumerate(losses, 1)]
        for split, losses in curves.items()
    }
    result = {
        "status": "finished",
        "data": {"validation": 18},
        "weights": {"delivered": delivered},
        "test": {"accuracy": 0.9},
    }
    run = RunFolder(Path("r"), recipe={"training": {"weights": wanted}}, result=result, rows=rows)
    return headline(run).summary.replace("\u202f", " ")


def test_overfitting_is_said_and_why_the_last_weights_were_kept() -> None:
    """0.3 → 0.66 is a rise by 120 %; both the turn and the noise are told, and what to do."""
    text = course([1, 0.4, 0.2, 0.1, 0.01], [1, 0.3, 0.4, 0.5, 0.66])
    assert "lowest at update 200 and rose by 120 %" in text and "from there on the network overfits" in text
    assert "On 18 validation samples" in text and "within chance" in text
    assert "training.weights=best" in text and "training.updates=200" in text


def test_a_small_rise_within_chance_is_not_called_overfitting() -> None:
    """0.3 → 0.33 is a rise by 10 %, which on 18 samples says nothing."""
    text = course([1, 0.4, 0.2, 0.1, 0.01], [1, 0.3, 0.31, 0.32, 0.33])
    assert "rose by 10" in text and "on 18 validation samples that is within chance" in text
    assert "overfits" not in text and "training.weights=best" in text


@pytest.mark.parametrize(
    ("wanted", "delivered", "said"),
    [
        ("auto", "best", "The weights of update 200 were kept"),
        ("last", "last", "The last weights were kept; training.weights=best"),
    ],
)
def test_the_weights_that_were_kept_are_named(wanted: str, delivered: str, said: str) -> None:
    """Chance is spoken of only where it decided."""
    text = course([1, 0.4, 0.2, 0.1], [1, 0.3, 0.4, 0.66], wanted, delivered)
    assert said in text and "chance" not in text


def test_a_rise_of_both_losses_is_no_overfitting() -> None:
    """Training that comes apart raises the training loss too."""
    text = course([1, 0.4, 2, 3], [1, 0.3, 2, 3])
    assert "rose by 900 %" in text and "overfits" not in text


def test_rows_learnt_by_heart() -> None:
    """A flat validation loss 20 times above the training loss tells that more training is no use."""
    flat = [1, 0.1, 0.09, 0.09, 0.09, 0.09, 0.089, 0.09]
    for last in (0.089, 0.09):
        assert "by heart" in course([1, 0.1, *[1e-6] * 6], [*flat[:-1], last])
    assert course([1, 0.1, *[0.05] * 6], flat).endswith("Validation loss had levelled off by the end.")
    assert "longer training may still help" in course([1, 0.5, 0.3, 0.2], [1, 0.6, 0.5, 0.4])


def test_average_error_and_root_mean_square_are_not_confused() -> None:
    """Truth 0, 0, 0, 8: always answering 2 is off by (2+2+2+6)/4 = 3 on average, by √12 in RMS."""
    evaluation = {"targets": ["y"], "true": [[0, 0, 0, 8]], "predicted": [[1, 1, 1, 7]]}
    test = {"rmse": 1.5, "mae": 1.25, "r2": 0.7}
    run = RunFolder(Path("r"), result={"task": "regression", "test": test}, evaluation=evaluation)
    text = headline(run).summary
    assert (
        "off by 1.25 on average" in text and "Always answering the mean would be off by 3 on average" in text
    )
    del test["mae"]
    text = headline(run).summary
    assert "off by 1.5 (root mean square)" in text and "off by 3.46 (root mean square)" in text


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"updates": 200_000, "epochs": None}, "at update 531 of 200,000."),
        ({"updates": None, "epochs": 150}, "at epoch 2.66 of 150."),
        ({}, "at update 531."),
    ],
)
def test_an_unfinished_run_tells_how_far_it_is(training: dict[str, Any], said: str) -> None:
    """Before any evaluation the training loss is what is known."""
    rows = {"train": [{"update": 531, "epoch": 2.66, "split": "train", "loss": 0.5, "grad_norm": 1.0}]}
    top = headline(RunFolder(Path("r"), recipe={"training": training}, rows=rows))
    assert (top.value, top.label) == ("0.5", "training loss at update 531") and said in top.summary
