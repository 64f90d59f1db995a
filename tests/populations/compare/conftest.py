"""A small comparison, done once, and outcomes without any training."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stepwell.populations.compare.compare import compare
from stepwell.populations.member import Outcome

ASKED = {
    "data": "iris",
    "model.hidden": [8],
    "training.epochs": 4,
    "optimizer": "sgd,adam",
    "optimizer.lr": "log(1e-3,10,5)",
    "seeds": 3,
}


class Done(NamedTuple):
    result: dict[str, Any]
    folder: Path
    rows: list[dict[str, str]]  # of compare.csv


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "compare.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Two rules, five rates, three seeds on iris."""
    result, folder = compare(None, ASKED, None, str(tmp_path_factory.mktemp("compare") / "done"), True)
    return Done(result, folder, rows_of(folder))


@pytest.fixture(scope="session")
def outcome() -> Callable[..., Outcome]:
    """Makes the end of a training; see `_outcome`."""
    return _outcome


def _outcome(validation: float, test: float, curve: tuple[float, ...] = (), **more: Any) -> Outcome:
    """The end of a training of a classifier: accuracies; the loss is what is missing of the accuracy."""
    rows = [
        {"update": 10 * (k + 1), "epoch": k + 1.0, "loss": 1.0, "validation": {"loss": 1 - v, "accuracy": v}}
        for k, v in enumerate(curve or (validation,))
    ]
    found = {"validation": {"loss": 1 - validation, "accuracy": validation}}
    return Outcome(
        10 * len(rows), 1.0, curve=rows, **{**found, "test": {"loss": 1 - test, "accuracy": test}, **more}
    )


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets `population.train` return what a function of the member's number and recipe says."""

    def replace(end: Callable[[int, Any], Outcome]) -> None:
        def train(members: Any, **_: Any) -> list[Outcome]:
            return [end(number, member.recipe) for number, member in enumerate(members)]

        monkeypatch.setattr("stepwell.populations.train.train", train)

    return replace
