"""Schedules within a run: what the metrics say that the optimizer had."""

import json
import math

import pytest
import torch

from stepwell import schedules
from stepwell.errors import UserError
from stepwell.training import loop as loop_module
from stepwell.training import train

SMALL = {"data": "iris", "model.hidden": [6], "training.log_every": 1, "training.weights": "last"}


def rows(folder, split):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row.get("split") == split]


@pytest.mark.parametrize("optimizer", ["nesterov", "adam", "muon", "adan"])
def test_one_cycle_moves_the_momentum_against_the_rate(optimizer, tmp_path):
    """Down from the optimizer's own to the lowest, where the rate is highest, and back; or it stays."""
    changes = {**SMALL, "optimizer": optimizer, "training.updates": 30, "schedule": "one-cycle"}
    train.train(None, changes, str(tmp_path / "stays"), True)
    train.train(None, {**changes, "schedule.low_momentum": 0.5}, str(tmp_path / "moves"), True)
    for name in ("stays", "moves"):
        found = [row["hyperparameters"] for row in rows(tmp_path / name, "train")]
        key = "momentum" if "momentum" in found[0] else "beta1"
        own = json.loads((tmp_path / "stays" / "metrics.jsonl").read_text().splitlines()[0])
        high = own["hyperparameters"][key]
        wanted = schedules.one_cycle_momentum(30, 0.3, high, 0.5)
        expected = [wanted(k) if name == "moves" else high for k in range(30)]
        assert [h[key] for h in found] == pytest.approx(expected, rel=1e-12)
        rates = schedules.one_cycle(max(h["lr"] for h in found), 30, 0.3)
        assert [h["lr"] for h in found] == pytest.approx([rates(k) for k in range(30)], rel=1e-12)


def test_plateau_goes_by_the_validation_loss(tmp_path):
    """The rate of each update is what torch's scheduler makes of the losses that the run wrote down."""
    changes = {
        **SMALL,
        "training.updates": 60,
        "training.evaluate_every": 2,
        "optimizer.lr": 0.1,
        "schedule": "plateau",
        "schedule.patience": 1,
        "schedule.factor": 0.5,
        "schedule.threshold": 0.05,
        "schedule.end": 0.1,
    }
    train.train(None, changes, str(tmp_path / "run"), True)
    torchs = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        torchs, factor=0.5, patience=1, threshold=0.05, min_lr=0.01, eps=0
    )
    losses = {row["update"]: row["loss"] for row in rows(tmp_path / "run", "validation")}
    expected = []
    for update in range(60):
        if update in losses:
            plateau.step(losses[update])
        expected.append(torchs.param_groups[0]["lr"])
    found = [row["hyperparameters"]["lr"] for row in rows(tmp_path / "run", "train")]
    assert found == pytest.approx(expected, rel=1e-9) and min(found) < 0.1


def test_a_roll_back_takes_the_plateau_along(tmp_path, monkeypatch):
    """What was counted after the state that the run goes back to is forgotten."""
    counts, original, failed = [], loop_module.backward, []

    def backward(run):
        loss = original(run)
        counts.append((run.update, dict(run.pace.plateau.state_dict())))
        if run.update == 7 and not failed:
            failed.append(True)
            return loss * math.nan
        return loss

    monkeypatch.setattr(loop_module, "backward", backward)
    changes = {**SMALL, "training.updates": 12, "training.evaluate_every": 2, "training.log_every": 2}
    changes |= {"schedule": "plateau", "schedule.patience": 9}
    train.train(None, changes, str(tmp_path / "run"), True)
    assert [update for update, _ in counts] == [*range(8), *range(6, 12)]
    assert counts[6] == counts[8]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"schedule": "plateau", "data.validation": 0},
            "schedule=plateau has no effect without a validation",
        ),
        (
            {"schedule": "one-cycle", "schedule.low_momentum": 0.8, "optimizer": "adagrad"},
            "schedule.low_momentum has no effect with optimizer=adagrad",
        ),
        (
            {"schedule": "one-cycle", "schedule.low_momentum": 0.8, "optimizer": "schedule-free-sgd"},
            "schedule.low_momentum has no effect with optimizer=schedule-free-sgd",
        ),
        (
            {"schedule": "one-cycle", "schedule.low_momentum": 0.95, "optimizer": "momentum"},
            "low_momentum=0.95 is not below the optimizer's own momentum, 0.9",
        ),
    ],
)
def test_what_has_no_effect_is_refused(changes, said, tmp_path):
    """Before anything is written."""
    with pytest.raises(UserError, match=said):
        train.train(None, {"data": "iris", **changes}, str(tmp_path / "run"), True)
    assert not (tmp_path / "run").exists()
