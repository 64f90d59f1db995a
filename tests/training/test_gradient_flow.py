"""Lines of metrics.jsonl about layers: the run's numbers stay as they are, the lines also after a stop."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from stepwell.errors import Interrupted
from stepwell.nn.units import Units
from stepwell.training import checkpoint, train
from stepwell.training.conductor import Conductor
from stepwell.training.gradient_flow import GradientFlow

SMALL = {
    "training.updates": 130,
    "training.log_every": 10,
    "training.batch_size": 50,
    "training.weights": "last",
}
OWN = """
import torch
from torch import nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.one, self.two, self.drop = nn.Linear(inputs, 20), nn.Linear(20, outputs), nn.Dropout(0.3)

    def forward(self, x):
        return self.two(self.drop(F.relu(self.one(x))))


def plain(input_shape, outputs):
    return nn.Sequential(nn.Flatten(), Net(64, outputs))


def compiled(input_shape, outputs):
    return torch.compile(plain(input_shape, outputs), backend="eager")
"""
RUNS = {
    "mlp": {"model.dropout": 0.2},
    "tanh": {"model.activation": "tanh"},
    "accumulated": {"training.accumulate": 2},
    "resnet": {"model": "resnet", "model.depth": 8, "model.width": 4, "training.updates": 60},
    "lbfgs": {"optimizer": "lbfgs", "training.updates": 12, "training.batch_size": 400},
    "own": {"model": "flow_model:plain"},
    "own compiled": {"model": "flow_model:compiled"},
    "bfloat16": {"training.precision": "bf16"},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with a model of one's own in it."""
    (tmp_path / "flow_model.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return tmp_path


def lines(run):
    """Its lines of metrics, without what was found of the units."""
    rows = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    units = {row["update"]: row.pop("units") for row in rows if "units" in row}
    return rows, units


@pytest.mark.parametrize("name", RUNS)
def test_looking_changes_no_number(name, folder, monkeypatch):
    """Weights and all other lines are bit for bit those of a run that never looks."""
    recipe = {**SMALL, **RUNS[name]}
    train.train(None, recipe, "looks", quiet=True)
    monkeypatch.setattr(GradientFlow, "_is_due", lambda self, update: False)
    train.train(None, recipe, "blind", quiet=True)
    (rows, units), (others, none) = lines("looks"), lines("blind")
    assert rows == others and not none
    last = recipe["training.updates"]
    assert list(units) == sorted({u for u in (10, 50, 100, last) if u <= last})
    kind = "saturated" if name == "tanh" else "dead"
    assert all(shares and all(list(s) == [kind] for s in shares.values()) for shares in units.values())
    found = [checkpoint.read(Path(run, "model.safetensors"))[0] for run in ("looks", "blind")]
    assert all(torch.equal(v, found[1][k]) for k, v in found[0].items())


@pytest.mark.parametrize("stop", [49, 50, 77])
def test_an_interrupted_run_writes_the_same_lines(stop, tmp_path, monkeypatch):
    """The counts of silent samples are part of the checkpoint: the dead share is known in the same line."""
    recipe = {**SMALL, "training.batch_size": 350, "optimizer": "sgd", "optimizer.lr": 3.0}
    train.train(None, recipe, str(tmp_path / "whole"), quiet=True)

    def interrupted(self, original=Conductor.interrupted):
        if self.run.update >= stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Conductor, "interrupted", interrupted)
        train.train(None, recipe, str(tmp_path / "parts"), quiet=True)
    train.resume(tmp_path / "parts", quiet=True)
    whole, parts = ((tmp_path / run / "metrics.jsonl").read_bytes() for run in ("whole", "parts"))
    assert whole == parts
    _, units = lines(tmp_path / "whole")
    known = [{name: s["dead"] for name, s in shares.items()} for shares in units.values()]
    assert None in known[0].values() and max(known[-1].values()) > 0.1  # at this rate units die


def test_a_roll_back_forgets_the_update(tmp_path, monkeypatch):
    """What an update saw that is undone is neither written nor counted."""
    seen = []
    commit = Units.commit
    monkeypatch.setattr(Units, "commit", lambda self: seen.append(1) or commit(self))
    recipe = {**SMALL, "training.updates": 60, "optimizer": "sgd", "optimizer.lr": 1e4}
    train.train(None, recipe, str(tmp_path / "run"), quiet=True)
    rows, units = lines(tmp_path / "run")
    rolled = [row["update"] for row in rows if row.get("event") == "rolled back"]
    assert rolled and min(rolled) <= 10
    assert list(units) == [10, 50, 60] and len(seen) == 3
