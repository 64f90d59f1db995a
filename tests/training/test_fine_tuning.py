"""Frozen layers stay as they are to the bit, layers have their rates, and join when the recipe says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import digest, interrupt_at
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from stepwell.data import sources
from stepwell.errors import Interrupted, UserError
from stepwell.optim.configs import CHOICES
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.recipe import read_recipe, resolve
from stepwell.training import checkpoint, loop, source, train
from stepwell.training.run import Run

SMALL = {"training.updates": 24, "training.log_every": 5, "training.evaluate_every": 8}
NETS = {
    "mlp": {"data": "iris", "model.hidden": [6, 5], "model.dropout": 0.2},
    "cnn": {"data": "digits", "model": "cnn", "model.channels": [4, 6, 8], "training.batch_size": 16},
}
RULES = [name for name, choice in CHOICES.items() if issubclass(choice.kind, RuleOptimizer)]


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A folder with a trained run of each net."""
    folder = tmp_path_factory.mktemp("begun")
    for name, keys in NETS.items():
        train.train(None, {**keys, **SMALL}, str(folder / name), True)
    return folder


def run_of(begun: Path, net: str = "mlp", /, **keys: Any) -> Run:
    changes = {"data": NETS[net]["data"], "model.from": str(begun / net), **SMALL, **keys}
    recipe, found = source.settle(read_recipe(None, changes))
    data = sources.load(recipe.data)
    return Run(resolve(recipe, data), data, found)


def step(run: Run) -> None:
    loop.backward(run)
    loop.update(run)
    run.update += 1


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("freeze", [1, 2, "body"])
def test_what_is_frozen_stays_to_the_bit(net, freeze, begun, tmp_path):
    """Weights and batch norm's statistics of frozen layers are the source's after training, others not."""
    keys = {"data": NETS[net]["data"], "model.from": str(begun / net), "model.freeze": freeze, **SMALL}
    result, _ = train.train(None, {**keys, "regularize.decay": 0.1}, str(tmp_path / "run"), True)
    before, _ = checkpoint.read(begun / net / "model.safetensors")
    after, _ = checkpoint.read(tmp_path / "run" / "model.safetensors")
    numbers = sorted({name.split(".")[1] for name in before if name.startswith("body.")}, key=int)
    blocks = [numbers[i : i + 1 + (net == "cnn")] for i in range(0, len(numbers), 1 + (net == "cnn"))]
    kept = {number for block in blocks[: -1 if freeze == "body" else freeze] for number in block}
    frozen = 0
    for name, value in before.items():
        if name.startswith("body."):
            stays = name.split(".")[1] in kept
            assert torch.equal(value, after[name]) == stays, name
            frozen += value.numel() * (stays and name.endswith(("weight", "bias")))
    assert result["frozen_parameters"] == frozen


def test_no_gradient_is_computed_for_what_is_frozen(begun):
    """The frozen layers' output has no graph, so that backward ends at the first layer that learns."""
    run = run_of(begun, "cnn", **{"model.freeze": 2})
    run.network.train()
    x, _ = run.data.train.gather(torch.arange(4))
    body: Any = run.network.body
    assert not body[:8](x).requires_grad and body[:9](x).requires_grad
    loop.backward(run)
    assert [p.grad is None for p in body.parameters()] == [True] * 6 + [False] * 5


def test_rates_fall_by_a_factor_from_the_head(begun):
    """One step of SGD moves layer l by η q^(L − l) times its gradient, in float64 by autograd."""
    run = run_of(
        begun,
        **{
            "model.layer_rates": 0.4,
            "optimizer": "sgd",
            "optimizer.lr": 0.3,
            "schedule": "constant",
            "model.dropout": 0.0,
        },
    )
    ((x, y),) = run.batches.at(0)
    before = {name: p.detach().double().requires_grad_() for name, p in run.parameters.items()}
    h = torch.addcmul(run.network.input_offset.double(), x.double(), run.network.input_scale.double())
    weights = list(before.values())
    for i in (0, 2, 4):
        h = F.linear(torch.relu(h) if i else h, weights[i], weights[i + 1])
    F.cross_entropy(h, y).backward()
    step(run)
    rates = [0.3 * 0.4**2] * 2 + [0.3 * 0.4] * 2 + [0.3] * 2
    for rate, w, p in zip(rates, weights, run.parameters.values(), strict=True):
        assert w.grad is not None
        torch.testing.assert_close(p.double(), w - rate * w.grad, rtol=0, atol=1e-7)


def test_rates_follow_the_schedule(begun):
    """At every update each group's rate is the schedule's times its share."""
    run = run_of(begun, **{"model.layer_rates": 0.5, "schedule.warmup": 0.2})
    for _ in range(24):
        wanted = run.rate()
        step(run)
        assert [g["lr"] for g in run.optimizer.param_groups] == [wanted, wanted * 0.5, wanted * 0.25]


def test_layers_join_one_by_one(begun):
    """unfreeze=s: by hand, the head alone for s/2 of the run, then one more, then all from s on."""
    run = run_of(begun, **{"model.unfreeze": 0.5})
    learning = []
    for _ in range(24):
        before = [p.detach().clone() for p in run.parameters.values()]
        step(run)
        moved = [not torch.equal(b, p) for b, p in zip(before, run.parameters.values(), strict=True)]
        assert moved[::2] == moved[1::2]
        learning.append(sum(moved[::2]))
    assert learning == [1] * 6 + [2] * 6 + [3] * 12


def test_batch_norm_is_fixed_while_its_layer_is_frozen(begun):
    """The statistics of a layer stay to the bit until it joins, also after evaluations, and then move."""
    run = run_of(begun, "cnn", **{"model.unfreeze": 0.5})
    norms: list[Any] = [m for m in run.network.modules() if isinstance(m, _BatchNorm)]
    first: list[int | None] = [None] * 3
    for update in range(24):
        before = [m.running_mean.clone() for m in norms]
        run.network.eval()
        run.network.train()
        step(run)
        for k, m in enumerate(norms):
            if first[k] is None and not torch.equal(before[k], m.running_mean):
                first[k] = update
            assert m.training == (first[k] is not None)
    assert first == [12, 8, 4]


def test_a_layer_that_joins_begins_its_moments_then(begun):
    """Adam's count of updates is that of the updates that a layer has had: its bias correction is right."""
    run = run_of(begun, **{"model.unfreeze": 0.5, "model.layer_rates": 0.9})
    for _ in range(20):
        step(run)
    assert [engine.steps for engine in run.optimizer.engines()] == [[20, 20], [14, 14], [8, 8]]


@pytest.mark.parametrize("name", RULES)
def test_every_optimizer_goes_on_bit_for_bit(name, begun, tmp_path, monkeypatch):
    """With layers that join and have rates of their own, an interrupted run ends as a whole one."""
    changes = {
        "data": "iris",
        "model.from": str(begun / "mlp"),
        "model.layer_rates": 0.5,
        "model.unfreeze": 0.6,
    }
    changes |= {**SMALL, "optimizer": name}
    if name in ("prodigy", "adam-then-sgd"):  # which have one rate for all
        del changes["model.layer_rates"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train.train(None, changes, str(whole), True)
    interrupt_at(monkeypatch, [5, 17])
    with pytest.raises(Interrupted):
        train.train(None, changes, str(cut), True)
    with pytest.raises(Interrupted):
        train.resume(cut, True)
    train.resume(cut, True)
    assert digest(cut) == digest(whole)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert not any("event" in line for line in lines)


def test_a_roll_back_freezes_again(begun):
    """Put back to an earlier update, the layers that had not joined there are frozen again."""
    run = run_of(begun, **{"model.unfreeze": 0.5})
    for _ in range(12):
        step(run)
    run.update = 3
    loop.backward(run)
    assert [p.requires_grad for p in run.parameters.values()] == [False] * 4 + [True] * 2


def test_a_rate_for_all_is_no_group(begun):
    """Without layer_rates nothing of an optimizer changes: one group, with a rate that is the schedule's."""
    run = run_of(begun)
    assert run.tuning is None and len(run.optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"model.freeze": 3}, "all 3 layers of this mlp, so nothing is left to train: freeze at most 2"),
        ({"model.freeze": 2, "model.unfreeze": 0.5}, "model.unfreeze has no effect"),
        ({"model.freeze": "body", "model.layer_rates": 0.5}, "model.layer_rates has no effect"),
        ({"model.layer_rates": 0.5, "optimizer": "lbfgs"}, "optimizer=lbfgs"),
        ({"model.layer_rates": 0.5, "optimizer": "prodigy"}, "optimizer=prodigy"),
        ({"model.layer_rates": 0.5, "optimizer": "adam-then-sgd"}, "optimizer=adam-then-sgd"),
        ({"model.unfreeze": 0.5, "optimizer": "newton"}, "optimizer=newton"),
    ],
)
def test_what_has_no_effect_is_refused(keys, part, begun):
    """Nothing left to train, or only one layer for keys that are about several."""
    with pytest.raises(UserError, match=part):
        run_of(begun, **keys)


def test_closure_optimizers_leave_the_body_alone(begun):
    """L-BFGS and Newton's method train the head of a frozen body."""
    for name in ("lbfgs", "newton"):
        # Without dropout, whose fresh draws L-BFGS's line search would take for the loss.
        run = run_of(begun, **{"model.freeze": "body", "optimizer": name, "model.dropout": 0})
        before = [p.detach().clone() for p in run.network.body.parameters()]
        step(run)
        moved = [not torch.equal(b, p) for b, p in zip(before, run.network.body.parameters(), strict=True)]
        assert moved == [False] * 4 + [True] * 2
