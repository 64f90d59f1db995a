"""The losses of members whose rate rises: the same as of a loop that is written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stepwell.data import sources
from stepwell.populations.member import Member
from stepwell.populations.range_test import rising
from stepwell.populations.sweep import sweep
from stepwell.populations.train import Stopped, train
from stepwell.recipe import read_recipe, resolve
from stepwell.training.run import Run

IRIS = {"data": "iris", "model.hidden": [8], "training.epochs": 2}


def member(**keys: object) -> Member:
    asked = read_recipe(None, {**IRIS, **{key.replace("__", "."): value for key, value in keys.items()}})
    data = sources.load(asked.data)
    return Member(resolve(asked, data), data)


def test_it_is_plain_gradient_descent_at_these_rates():
    """With optimizer=sgd the losses are those of w ← w − η_u ∂L, written out."""
    one, rates = member(optimizer="sgd", training__batch_size=16), rising(1e-3, 1.0, 30)
    run = Run(one.recipe, one.data)
    run.network.train()
    expected = []
    for u, rate in enumerate(rates):
        ((x, y),) = run.batches.at(u)
        loss = run.loss(run.network(x), run.encode(y))
        weights = list(run.network.parameters())
        with torch.no_grad():
            for p, g in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                p -= rate * g
        expected.append(loss.item())
    np.testing.assert_allclose(sweep([one], rates), [expected], rtol=1e-4)


@pytest.mark.parametrize("keys", [{"optimizer": "adam"}, {"optimizer": "momentum", "model__dropout": 0.2}])
def test_a_constant_rate_is_training(keys: dict[str, object]):
    """At one rate throughout the losses are, bit for bit, those of a training with schedule=constant.

    Whatever the schedule of the swept member, and its momentum's.
    """
    one = member(**keys, schedule="constant", optimizer__lr=0.01, training__evaluate_every=1)
    curve = [row["loss"] for row in train([one])[0].curve]
    for schedule in ({}, {"schedule": "one-cycle", "schedule__low_momentum": 0.5}, {"schedule": "plateau"}):
        swept = sweep([member(**keys, **schedule)], [0.01] * len(curve))
        assert swept[0].tolist() == curve


@pytest.mark.parametrize("keys", [{}, {"training__seconds": 0.001, "training__epochs": None}])
def test_members_go_their_own_ways(keys: dict[str, object]):
    """A member's losses depend neither on the others, but for rounding, nor on the length of its recipe."""
    rates = rising(1e-4, 1e-1, 40)  # more updates than the recipe's
    members = [member(seed=0), member(seed=1), member(seed=0, **keys)]
    losses = sweep(members, rates)
    assert (losses[0] == losses[2]).all() and (losses[0] != losses[1]).all()
    assert (sweep(members, rates) == losses).all()
    np.testing.assert_allclose(sweep(members[1:2], rates)[0], losses[1], rtol=1e-4)


def test_one_that_blows_up_ends_there():
    """NaN from there to the end, and the others go on."""
    members = [member(optimizer="sgd"), member(data="diabetes", optimizer="sgd")]
    losses = sweep(members, rising(1e-3, 1e6, 60))
    finite = np.isfinite(losses)
    assert (np.sort(finite, axis=1)[:, ::-1] == finite).all()  # finite first, then NaN
    assert 10 < finite[1].sum() < 60


def test_nothing_outside_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No file is written, and torch's random numbers go on as if nothing had been."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    sweep([member(model__dropout=0.5)], rising(1e-4, 1e-1, 20))
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    assert not list(tmp_path.iterdir())


def test_it_can_be_stopped():
    """Once `interrupted` is true, the sweep ends with `Stopped` at that update."""
    asked = []
    with pytest.raises(Stopped):
        sweep([member()], [0.01] * 50, interrupted=lambda: asked.append(1) or len(asked) == 7)
    assert len(asked) == 7
