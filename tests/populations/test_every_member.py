"""Member k of a stack is the same model trained alone: architecture × rule × technique, in float64.

A new optimizer or model without a case here fails. Single steps round differently by a few 1e-16, so that a
limit of 1e-10 after hundreds of updates sees anything else.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from stepwell.data import sources
from stepwell.data.dataset import DataSet
from stepwell.nn.configs import CONFIGS
from stepwell.optim.configs import CHOICES
from stepwell.populations.alone import Alone
from stepwell.populations.member import Member
from stepwell.populations.shape import reason_alone, shape
from stepwell.populations.stack import Stack
from stepwell.populations.updates import prototypes, signature
from stepwell.recipe import read_recipe, resolve

LIMIT = 1e-10
MLP = {"data": "iris", "model.hidden": [8], "training.batch_size": 16, "training.updates": 210}
IMAGES = {"data": "digits", "training.batch_size": 16, "training.updates": 24}
CNN = {**IMAGES, "model": "cnn", "model.channels": [4, 4]}
SMALL = {"model.width": 8, "model.layers": 1, "training.updates": 12, "training.batch_size": 4}

# Two members that differ in all that may differ.
RATES = [{"seed": 1, "optimizer.lr": 3e-3}, {"seed": 2, "optimizer.lr": 1e-2}]

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "linear": {**MLP, "model": "linear"} | {"model.hidden": None},
    "mlp": MLP,
    "cnn": CNN,
    "resnet": {**IMAGES, "model": "resnet", "model.depth": 8, "model.width": 4, "training.updates": 12},
    "rnn": {"data": "TEXT", "model": "rnn", **SMALL},
    "transformer": {"data": "TEXT", "model": "transformer", "model.heads": 2, **SMALL},
}

TECHNIQUES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "gru of images, two layers, dropout": (
        {**IMAGES, "model": "rnn", "model.cell": "gru", "model.layers": 2, "model.width": 6},
        [{"model.dropout": 0.2, **own} for own in RATES],
    ),
    "attention with dropout": ({**ARCHITECTURES["transformer"], "model.dropout": 0.2}, RATES),
    "dropout": ({**MLP, "model.dropout": 0.3}, RATES),
    "scaled dropout": ({**MLP, "model.dropout": {"p": 0.3, "kind": "scaled"}}, RATES),
    "spatial dropout, rotation, erasing": (
        {
            **CNN,
            "model.dropout": {"p": 0.3, "kind": "spatial"},
            "augment.rotation": 9,
            "augment.erasing": 0.5,
        },
        RATES,
    ),
    "stochastic depth": ({**ARCHITECTURES["resnet"], "model.stochastic_depth": 0.5}, RATES),
    "batch norm": ({**MLP, "model.norm": "batch"}, RATES),
    "layer norm": ({**CNN, "model.norm": "layer"}, RATES),
    "rms norm": ({**CNN, "model.norm": "rms"}, RATES),
    "instance norm": ({**CNN, "model.norm": "instance"}, RATES),
    "group norm": ({**CNN, "model.norm": {"kind": "group", "groups": 2}}, RATES),
    "weight norm": ({**CNN, "model.norm": "weight"}, RATES),
    "spectral norm": ({**CNN, "model.norm": "spectral"}, RATES),
    "crop and flip": ({**CNN, "augment.crop": 1, "augment.flip": 0.5}, RATES),
    "cutmix": ({**CNN, "augment.cutmix": 1.0}, RATES),
    "mixup, dropout, batch norm": (
        {**MLP, "model.dropout": 0.2, "augment.mixup": 0.3, "model.norm": "batch"},
        RATES,
    ),
    "noise": ({**MLP, "augment.noise": 0.1}, RATES),
    "views at test time": ({**CNN, "augment.test_time": "flip"}, RATES),
    "accumulation": ({**MLP, "training.accumulate": 3, "training.batch_size": 7}, RATES),
    "label smoothing": ({**MLP, "regularize.label_smoothing": 0.1}, RATES),
    "mean squared error of classes": ({**MLP, "loss": "mse"}, RATES),
    "regression, huber": ({**MLP, "data": "diabetes", "loss": "huber"}, RATES),
    "two classes": ({**MLP, "data": "breast_cancer"}, RATES),
    "penalties and clipping of their own": (
        MLP,
        [
            {"optimizer.clip_norm": 0.1, "regularize.l2": 1e-2, "regularize.l1": 1e-3},
            {"optimizer.clip_norm": 0.5, "regularize.l2": 1e-3, "seed": 4},
        ],
    ),
    "clipped by value or decayed": (
        MLP,
        [{"optimizer.clip_value": 0.01}, {"regularize.decay": 0.1, "seed": 4}],
    ),
    "adaptive clipping": (
        MLP,
        [{"optimizer.clip_adaptive": 0.01}, {"seed": 4, "optimizer.clip_adaptive": 0.1}],
    ),
    "max-norm with an average": (
        {**MLP, "training.average": "ema"},
        [{"regularize.max_norm": 0.5}, {"seed": 4, "regularize.max_norm": 1}],
    ),
    "average with batch norm": ({**MLP, "training.average": "polyak", "model.norm": "batch"}, RATES),
    "rules side by side": (
        MLP,
        [{"optimizer": name, "seed": seed} for seed, name in enumerate(("adam", "sgd", "muon", "prodigy"))],
    ),
    "schedules side by side": (
        {**MLP, "optimizer": "adam"},
        [
            {"schedule": "one-cycle", "schedule.low_momentum": 0.8},
            {"schedule": "plateau", "schedule.patience": 1, "optimizer.lr": 0.1},
            {"schedule": "constant", "seed": 3},
        ],
    ),
    "early stopping": ({**MLP, "training.early_stopping": 1, "training.evaluate_every": 5}, RATES),
    "those who end are taken out": (
        {**MLP, "model.norm": "batch", "training.weights": "best", "training.evaluate_every": 5},
        [
            {"optimizer.lr": 1e200},
            {"training.early_stopping": 1, "optimizer.lr": 3.0, "seed": 1},
            {"optimizer.lr": 3e-3, "seed": 2},
            {"optimizer.lr": 0.3, "seed": 3, "schedule": "constant"},
        ],
    ),
    "splits side by side": (
        MLP,
        [{"data.split_seed": 1}, {"data.split_seed": 2, "seed": 1}, {"data.split_seed": 1, "seed": 3}],
    ),
}

ALONE = {"lbfgs", "newton", "saddle-free-newton", "negative-curvature", "soap"}


@pytest.fixture
def exactly(monkeypatch):
    """Weights, random layers and data in float64, on one thread; rates are looked up anew now and then."""
    monkeypatch.setattr("stepwell.populations.rates.AHEAD", 16)
    kind, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    yield
    torch.set_default_dtype(kind)
    torch.set_num_threads(threads)


def in_float64(data: DataSet) -> DataSet:
    for part in (data.train, data.validation, data.test):
        values = getattr(part.inputs, "values", None)
        if values is not None and values.is_floating_point():
            part.inputs.values = values.double()  # pyright: ignore[reportAttributeAccessIssue]
    for name in ("input_shift", "input_scale"):
        if getattr(data, name) is not None:
            setattr(data, name, getattr(data, name).double())
    return data


def members_of(common: dict[str, Any], each: list[dict[str, Any]], tmp_path) -> list[Member]:
    loaded: dict[str, DataSet] = {}
    made = []
    for own in each:
        changes = {name: value for name, value in {**common, **own}.items() if value is not None}
        if changes["data"] == "TEXT":
            changes["data"] = str(tmp_path / "text.txt")
            (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
        asked = read_recipe(None, changes)
        key = asked.data.model_dump_json()
        if key not in loaded:
            loaded[key] = in_float64(sources.load(asked.data))
        made.append(Member(resolve(asked, loaded[key]), loaded[key]))
    return made


def never() -> bool:
    return False


def check(members: list[Member]) -> None:
    assert len({shape(member) for member in members}) == 1
    assert not any(map(reason_alone, members))
    stack = Stack(range(len(members)), members)
    stack.run_to(math.inf, never)
    found = stack.outcomes(weights=True)
    for number, member in enumerate(members):
        alone = Alone(number, member)
        alone.run_to(math.inf, never)
        ours, its = found[number], alone.outcomes(weights=True)[number]
        assert (ours.updates, ours.delivered, ours.ended_early) == (
            its.updates,
            its.delivered,
            its.ended_early,
        )
        assert ours.diverged == its.diverged
        if its.diverged:
            assert ours.weights is None
            continue
        assert ours.weights is not None and its.weights is not None
        assert ours.weights.keys() == its.weights.keys()
        for name, value in its.weights.items():
            error = (ours.weights[name].double() - value.double()).abs().max() if value.numel() else 0.0
            assert float(error) <= LIMIT * (1 + float(value.abs().max() if value.numel() else 0)), name
        assert len(ours.curve) == len(its.curve)
        for row, other in zip(ours.curve, its.curve, strict=True):
            assert row["loss"] == pytest.approx(other["loss"], rel=1e-6)
            assert row["validation"] == pytest.approx(other["validation"], rel=1e-5)
        assert ours.test == pytest.approx(its.test, rel=1e-5)


@pytest.mark.usefixtures("exactly")
@pytest.mark.parametrize("name", sorted(CHOICES.keys() - ALONE))
def test_rules(name, tmp_path):
    """Every optimizer that a stack takes, over 210 updates at a rate of each member's own."""
    default = read_recipe(None, {"optimizer": name}).optimizer.lr
    each = [{"seed": 1, "optimizer.lr": default}, {"seed": 2, "optimizer.lr": default / 3}]
    check(members_of({**MLP, "optimizer": name}, each, tmp_path))


@pytest.mark.usefixtures("exactly")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name, tmp_path):
    """Every model of ours."""
    check(members_of(ARCHITECTURES[name], RATES, tmp_path))


@pytest.mark.usefixtures("exactly")
@pytest.mark.parametrize("name", TECHNIQUES)
def test_techniques(name, tmp_path):
    """Everything else that a recipe can say, and members that differ in it."""
    check(members_of(*TECHNIQUES[name], tmp_path))


@pytest.mark.usefixtures("exactly")
def test_a_users_module(tmp_path, monkeypatch):
    """With torch's own batch norm, whose buffers change in place.

    Without a bias before it, whose gradient is rounding alone: Adam makes steps of that.
    """
    (tmp_path / "own_net.py").write_text(
        "from torch import nn\n"
        "def net(shape, outputs):\n"
        "    first = nn.Linear(4, 6, bias=False)\n"
        "    return nn.Sequential(first, nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, outputs))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    check(members_of({**MLP, "model": "own_net:net", "model.hidden": None}, RATES, tmp_path))


@pytest.mark.usefixtures("exactly")
def test_tied_weights(tmp_path, monkeypatch):
    """The delivered state has a tied weight under each of its names, as `state_dict` has."""
    (tmp_path / "tied_net.py").write_text(
        "from torch import nn\n"
        "def net(shape, outputs):\n"
        "    made = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, outputs))\n"
        "    made[2].weight = made[0].weight\n"
        "    return made\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    check(members_of({**MLP, "model": "tied_net:net", "model.hidden": None}, RATES, tmp_path))


def test_nothing_is_forgotten(tmp_path):
    """Every model has a case, and the optimizers without one are those that train alone."""
    assert CONFIGS.keys() <= ARCHITECTURES.keys()
    for name in CHOICES:
        member = members_of(MLP, [{"optimizer": name}], tmp_path)[0]
        assert (reason_alone(member) is not None) == (name in ALONE)


def test_one_rule_is_one_pass(tmp_path):
    """Members with one rule and other values share a pass; those with another rule have another."""
    members = members_of(MLP, [*RATES, {"optimizer": "sgd"}, {"optimizer.clip_norm": 1.0}], tmp_path)
    weights = [torch.zeros(3, 4), torch.zeros(3)]
    found = [signature(p) for p in prototypes([member.recipe for member in members], weights)]
    assert found[0] == found[1] and len(set(found)) == 3
