"""Every optimizer of a recipe trains, and a run with it goes on bit for bit; found automatically."""

import json
import math

import pytest
from test_resume import digest, interrupt_at

from stepwell.errors import Interrupted
from stepwell.optim.configs import OPTIMIZERS
from stepwell.training import train


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_as_if_it_had_not_been_interrupted(name, tmp_path, monkeypatch):
    """Interrupted twice, it has the uninterrupted run's weights, metrics, state and checkpoint."""
    changes = {
        "data": "iris",
        "optimizer": name,
        "model.hidden": [6],
        "training.updates": 24,
        "training.log_every": 5,
        "training.evaluate_every": 8,
    }
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    result, _ = train.train(None, changes, str(whole), True)
    interrupt_at(monkeypatch, [7, 17])
    with pytest.raises(Interrupted):
        train.train(None, changes, str(cut), True)
    with pytest.raises(Interrupted):
        train.resume(cut, True)
    train.resume(cut, True)
    assert digest(cut) == digest(whole)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line.get("split") == "train"]
    assert all(math.isfinite(loss) for loss in losses) and result["status"] == "finished"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_key_has_help_and_a_range_that_its_default_is_in(name):
    """A config with all its keys at their defaults is valid, and each key says what it does."""
    kind = OPTIMIZERS[name]
    config = kind()
    assert kind.model_validate(config.model_dump()) == config
    assert all(field.description for key, field in kind.model_fields.items() if key != "name")
