"""Every model × every normalization trains, is resumed with the same bits, predicts and is exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_resume import digest, train_with_interruptions

from stepwell.data import sources
from stepwell.errors import UserError
from stepwell.recipe import read_recipe, resolve
from stepwell.training.export import export
from stepwell.training.predict import trained
from stepwell.training.run import Run
from stepwell.training.snapshot import Snapshot
from stepwell.training.train import train

NORMS = ("batch", "layer", "rms", "instance", "group", "weight", "spectral", "none")
SHORT = {"training.updates": 3, "training.batch_size": 32, "training.evaluate_every": 3}
TEXT = "The quick brown fox jumps over the lazy dog. " * 60
MODELS = {
    "linear": {"data": "digits"},
    "mlp": {"data": "iris", "model.hidden": [8]},
    "cnn": {"model.channels": [8, 16]},
    "resnet": {"model.depth": 8, "model.width": 8},
    "rnn": {"model.width": 16, "model.layers": 2},
    "transformer": {"data": "text.txt", "model.layers": 1, "model.width": 16, "data.length": 12},
}
# What makes no sense, and the word that the sentence about it must hold.
REFUSED = {
    ("linear", "group"): "does not go with 1 channels",
    ("mlp", "instance"): "features have none: use layer",
    ("rnn", "weight"): "use layer",
    ("rnn", "spectral"): "use layer",
    ("transformer", "instance"): "use layer",
}


def recipe(model: str, norm: str, folder: Path) -> dict:
    (folder / "text.txt").write_text(TEXT)
    keys = {"model": model, "model.norm": norm, **MODELS[model], **SHORT}
    if keys.get("data") == "text.txt":
        keys["data"] = str(folder / "text.txt")
    if (model, norm) == ("mlp", "group"):
        keys["model.norm.groups"] = 4
    return keys


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("model", MODELS)
def test_trains_or_is_refused_in_one_sentence(model, norm, tmp_path):
    """Three updates change every weight and end with a finite loss; the file is loaded as a model again."""
    if (model, norm) in REFUSED:
        with pytest.raises(UserError, match=REFUSED[model, norm]) as refused:
            train(None, recipe(model, norm, tmp_path), str(tmp_path / "run"), quiet=True)
        assert "model" in str(refused.value) and not (tmp_path / "run").exists()
        return
    train(None, recipe(model, norm, tmp_path), str(tmp_path / "run"), quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    layers = next(row["layers"] for row in rows if "layers" in row)
    still = [name for name, values in layers.items() if not values["update"]]
    assert not still and all(row["loss"] < 20 for row in rows)
    weights = trained(tmp_path / "run").network.state_dict()
    expected = {"weight": ".original1", "spectral": "._u"}.get(
        norm, "running_mean" if norm == "batch" else ""
    )
    assert any(key.endswith(expected) for key in weights)


STATEFUL = {
    "batch norm of a table": {"data": "iris", "model": "mlp", "model.hidden": [8], "model.norm": "batch"},
    "cumulative": {"model": "cnn", "model.channels": [4, 8], "model.norm.momentum": None},
    "spectral and spatial dropout": {
        "model": "cnn",
        "model.channels": [4, 8],
        "model.norm": "spectral",
        "model.dropout": 0.3,
        "model.dropout.kind": "spatial",
    },
    "depth by batch": {
        "model": "resnet",
        "model.depth": 8,
        "model.width": 4,
        "model.stochastic_depth": 0.5,
        "model.stochastic_depth.by": "batch",
        "model.dropout": 0.2,
    },
    "rows of states": {
        "model": "rnn",
        "model.width": 4,
        "model.layers": 2,
        "model.norm": "batch",
        "model.dropout": 0.2,
    },
}


@pytest.mark.parametrize("name", STATEFUL)
def test_resumed_equals_uninterrupted(name, tmp_path, monkeypatch):
    """Rebound buffers, u and v, and draws are part of a checkpoint: stopped twice, the same bits."""
    keys = {**STATEFUL[name], "training.updates": 9, "training.batch_size": 16, "training.log_every": 4}
    train(None, keys, str(tmp_path / "whole"), quiet=True)
    train_with_interruptions(keys, tmp_path / "parts", monkeypatch, [3, 6])
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


@pytest.mark.parametrize("norm", ["batch", "weight", "spectral", "instance"])
def test_is_exported(norm, tmp_path):
    """As a program that gives the same numbers, and as safetensors with the names of the state."""
    keys = {"model": "cnn", "model.channels": [4, 8], "model.norm": norm, **SHORT}
    train(None, keys, str(tmp_path / "run"), quiet=True)
    assert export(tmp_path / "run", tmp_path / "net.pt2")["largest_difference"] < 1e-5
    found = export(tmp_path / "run", tmp_path / "net.safetensors")
    assert found["tensors"] == len(trained(tmp_path / "run").network.state_dict())


def test_a_roll_back_restores_rebound_buffers():
    """A snapshot is not changed by later updates, and puts statistics, u and v back bit for bit."""
    for keys in ({"model": "cnn"}, {"model": "cnn", "model.norm": "spectral"}):
        given = read_recipe(None, {**keys, "model.channels": [4], **SHORT})
        data = sources.load(given.data)
        run = Run(resolve(given, data), data)
        next(run.losses())
        snapshot = Snapshot.of(run)
        before = {name: value.clone() for name, value in run.live.items()}
        next(run.losses())
        changed = [name for name, value in run.live.items() if not torch.equal(value, before[name])]
        assert len(changed) in (2, 3)
        snapshot.restore(run)
        assert all(torch.equal(value, before[name]) for name, value in run.live.items())
        run.batches.close()


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"model.norm": "bach"}, "model.norm=bach must be one of batch, layer"),
        ({"model.norm": "layer", "model.norm.momentum": 0.2}, "momentum=0.2 has no effect with norm=layer"),
        ({"model": "cnn", "model.norm.groups": 4}, "groups=4 has no effect with norm=batch"),
        ({"model.hidden": [], "model.norm": "layer"}, "norm has no effect without hidden layers"),
        ({"model.dropout": 1}, r"model\.dropout=1 must be below 1"),
        ({"model.dropout.kind": "spatial"}, r"model\.dropout is missing"),
        ({"model.dropout": 0.5, "model.dropout.kind": "spatial"}, "an mlp has features: use inverted"),
        ({"model": "cnn", "model.batch_norm": False}, r"there is no key model\.batch_norm"),
        ({"model.stochastic_depth": 0.2}, "it belongs to resnet, transformer"),
        (
            {"model": "resnet", "model.stochastic_depth": 0.2, "model.stochastic_depth.by": "row"},
            "sample, batch",
        ),
    ],
)
def test_mistakes_in_keys(keys, sentence):
    """Unknown, out of range, or without effect: one sentence with the key."""
    with pytest.raises(UserError, match=sentence) as refused:
        read_recipe(None, keys)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {"model": "cnn", "model.channels": [6], "model.norm": "group"},
            r"groups=8 does not go with 6 channels",
        ),
        ({"data": "iris", "model": "linear", "model.norm": "instance"}, "features have none: use layer"),
        ({"model": "rnn", "model.dropout": 0.5, "model.dropout.kind": "spatial"}, "last state: use inverted"),
    ],
)
def test_mistakes_that_the_data_shows(keys, sentence, tmp_path):
    """Told before anything is written."""
    with pytest.raises(UserError, match=sentence):
        train(None, {**keys, **SHORT}, str(tmp_path / "run"), quiet=True)
    assert not (tmp_path / "run").exists()


def test_momentum_alone_is_that_of_the_default():
    """`model.norm.momentum=` is the cumulative mean of the cnn's batch norm; it is written as it is read."""
    config = read_recipe(None, {"model": "cnn", "model.norm.momentum": None}).model
    assert (config.norm.kind, config.norm.momentum) == ("batch", None)
    assert read_recipe(None, {"model": config.model_dump()}).model == config
