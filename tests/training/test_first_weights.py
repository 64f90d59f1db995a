"""`model.init` and `model.zero_init_residual` in a recipe: where weights start; only training asks."""

import sys

import pytest
import torch

import stepwell as sw
from stepwell.data import sources
from stepwell.errors import UserError
from stepwell.nn.init_key import NAMES
from stepwell.nn.inspection import signals
from stepwell.recipe import read_recipe, resolve, write_yaml
from stepwell.training import first_weights, train
from stepwell.training.predict import trained
from stepwell.training.run import Run

MODELS = {
    "linear": {},
    "mlp": {"model.hidden": [16, 16]},
    "cnn": {"model.channels": [4, 8]},
    "resnet": {"model.depth": 8, "model.width": 4},
    "rnn": {"model.width": 8},
}


def run_of(**keys):
    """A run before its first update, of a recipe on digits."""
    recipe = read_recipe(None, keys)
    data = sources.load(recipe.data)
    return Run(resolve(recipe, data), data)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_takes_every_scheme(model):
    """Two runs of a recipe start with the same bits, and no scheme with another's."""
    seen = []
    for name in ("auto", *NAMES):
        first, again = (run_of(model=model, **MODELS[model], **{"model.init": name}) for _ in range(2))
        weights = torch.cat([p.detach().reshape(-1) for p in first.parameters.values()])
        assert torch.equal(weights, torch.cat([p.detach().reshape(-1) for p in again.parameters.values()]))
        alike = any(torch.equal(weights, other) for other in seen)
        assert not alike or (name, model) == ("lsuv", "linear")  # orthogonal, already of variance 1
        assert first.notes == []
        seen.append(weights)


def test_auto_is_the_models_own_start(monkeypatch):
    """Bit for bit as without the key; another seed gives other weights."""
    auto = run_of(model="cnn").network.state_dict()
    own = run_of(model="cnn", seed=1, **{"model.init": "he"}).network.state_dict()
    monkeypatch.setattr(first_weights, "initialize", None)  # would raise
    assert all(torch.equal(v, auto[n]) for n, v in run_of(model="cnn").network.state_dict().items())
    assert not torch.equal(own["body.0.weight"], auto["body.0.weight"])


def test_an_alias_is_written_as_what_it_means():
    """recipe.yaml says he-normal for he; a wrong name gets the nearest."""
    assert "init: he-normal" in write_yaml(read_recipe(None, {"model.init": "he"}))
    with pytest.raises(
        UserError, match=r"model\.init: 'xaver' is no scheme of initialization; did you mean xavier"
    ):
        read_recipe(None, {"model.init": "xaver"})
    with pytest.raises(UserError, match="'None' is no scheme"):
        read_recipe(None, {"model.init": None})


def test_lsuv_in_a_run_gives_variance_one():
    """Measured on the samples it was fitted on, with batch norm and residual branches."""
    run = run_of(model="resnet", **MODELS["resnet"], **{"model.init": "lsuv"})
    x = first_weights._samples(run.network, run.recipe, run.data)
    assert len(x) == 64
    found = signals(run.network, x)
    products = [layer.sd for layer in found.layers if layer.product]
    assert len(products) == 8 and all(abs(sd**2 - 1) <= 0.1 for sd in products)


def test_zero_branches_after_any_scheme():
    """A resnet of random weights whose blocks are the identity: its last norms are zero."""
    run = run_of(model="resnet", **MODELS["resnet"], **{"model.init": "he", "model.zero_init_residual": True})
    ends = [v for n, v in run.network.state_dict().items() if "norm2.weight" in n]
    assert len(ends) == 3 and not torch.cat(ends).any()
    with pytest.raises(UserError, match="zero_init_residual has no effect with model=mlp"):
        read_recipe(None, {"model.zero_init_residual": True})


def test_loading_a_model_does_not_initialize_it(tmp_path, monkeypatch):
    """Predicting needs the weights of the file alone; for lsuv there would be no data."""
    _, folder = train.train(None, {"model.init": "lsuv", "training.updates": 3}, str(tmp_path / "run"), True)
    monkeypatch.setattr(first_weights, "start", None)
    trained(folder)


OWN = """
import torch
from torch import nn


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.scale


class Mean(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.own = nn.Parameter(torch.ones(64, outputs))

    def forward(self, x):
        return x.flatten(1) @ self.own


def some(input_shape, outputs):
    return nn.Sequential(nn.Flatten(), Scaled(), nn.Linear(64, outputs))


def none(input_shape, outputs):
    return Mean(outputs)
"""


def test_a_model_of_ones_own(tmp_path, monkeypatch):
    """Its layers start by the scheme; what is left alone is noted; if that is all, the key has no effect."""
    (tmp_path / "init_model.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    run = run_of(model="init_model:some", **{"model.init": "zeros"})
    assert not run.parameters["body.2.weight"].any() and run.parameters["body.1.scale"] == 1
    assert "left alone" in run.notes[0] and run.notes[0].endswith(": 1.scale")
    with pytest.raises(UserError, match=r"model\.init=he-normal has no effect: model init_model:none"):
        run_of(model="init_model:none", **{"model.init": "he"})


def test_a_diverged_run_goes_back_to_the_same_start(tmp_path):
    """A roll-back to the start builds the weights anew: those of the scheme."""
    recipe = {"model.init": "orthogonal", "training.updates": 30, "optimizer": "sgd", "optimizer.lr": 1e12}
    with pytest.raises(sw.Diverged):
        train.train(None, recipe, str(tmp_path / "run"), quiet=True)
