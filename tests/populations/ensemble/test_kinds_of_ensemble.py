"""Each kind's members and what is made of them: against single runs, NumPy, and slow obvious code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.data import sources
from stepwell.nn import losses, registry
from stepwell.nn.network import Network
from stepwell.populations.ensemble import average, folds, independent, snapshots, soup
from stepwell.populations.ensemble.job import Bench, Job
from stepwell.populations.train import Stopped
from stepwell.recipe import read_recipe, resolve
from stepwell.training import checkpoint
from stepwell.training.train import train

TINY = {"model.hidden": [8], "training.epochs": 3, "training.weights": "last", "optimizer.lr": 0.01}
CYCLES = {"schedule": "restarts", "schedule.growth": 1}


def job(folder: Path, count: int, changes, interrupted=lambda: False) -> Job:
    asked = read_recipe(None, {**TINY, **changes})
    data = sources.load(asked.data)
    return Job(resolve(asked, data), data, None, count, folder, interrupted)


def bench(order: Job) -> Bench:
    data = order.data
    body = registry.build(order.recipe.model, data.input_shape, data.outputs, data.kind)
    return Bench(Network.of(body, data).eval(), losses.build(order.recipe.loss, data.task), data.task)


def weights(folder: Path):
    return checkpoint.read(folder / "model.safetensors")[0]


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_member_is_the_run_of_its_seed(tmp_path):
    """Member k has the weights of `stepwell train` with seed + k."""
    changes = {"data": "iris", "seed": 4}
    made = independent.train(job(tmp_path / "state", 2, changes))
    for k, state in enumerate(made.states):
        train(None, {**TINY, **changes, "seed": 4 + k}, str(tmp_path / f"{k}"), quiet=True)
        single = weights(tmp_path / f"{k}")
        for name, value in single.items():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)
    assert [one["seed"] for one in made.each] == [4, 5]


def test_snapshots_lie_on_the_course_of_a_single_run(tmp_path):
    """Bit for bit: the last one is what `train` ends with, an earlier one what a shorter run would."""
    changes = {"data": "iris", **CYCLES, "schedule.cycles": 2, "training.batch_size": 30}
    made = snapshots.train(job(tmp_path / "state", 2, changes))
    result, _ = train(None, {**TINY, **changes}, str(tmp_path / "run"), quiet=True)
    assert [one["update"] for one in made.each] == [result["updates"] / 2, result["updates"]]
    assert same(made.states[1], weights(tmp_path / "run"))
    half = {**changes, "training.epochs": None, "training.updates": result["updates"] // 2}
    train(None, {**TINY, **half, "schedule.cycles": 1}, str(tmp_path / "half"), quiet=True)
    assert same(made.states[0], weights(tmp_path / "half"))


@pytest.mark.parametrize("at", [1, 4, 5])
def test_an_interrupted_course_ends_as_if_it_had_not_been(tmp_path, at):
    """Stopped after an update before, at and behind the first snapshot: weights and curve bit for bit."""
    changes = {"data": "iris", **CYCLES, "schedule.cycles": 3, "training.batch_size": 30}
    changes |= {"training.epochs": 3, "model.norm": "batch", "model.dropout": 0.2}
    whole = snapshots.train(job(tmp_path / "whole", 3, changes))
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked >= at

    with pytest.raises(Stopped):
        snapshots.train(job(tmp_path / "cut", 3, changes, stop))
    made = snapshots.train(job(tmp_path / "cut", 3, changes))
    assert all(same(a, b) for a, b in zip(made.states, whole.states, strict=True))
    assert made.curves == whole.curves


def test_the_last_cycles_are_taken(tmp_path):
    """With more cycles than members the snapshots are those of the last ones, as Huang et al. do."""
    changes = {"data": "iris", **CYCLES, "schedule.cycles": 4, "training.batch_size": 25}
    order = job(tmp_path, 2, changes)
    made = snapshots.train(order)
    assert [one["update"] for one in made.each] == snapshots.ends(order)[2:]


def test_an_average_is_the_mean_of_the_weights(tmp_path):
    """NumPy's mean, and what `training.average=swa` delivers of the same run."""
    changes = {"data": "iris", "schedule": "swa", "schedule.cycles": 3, "training.batch_size": 20}
    order = job(tmp_path / "state", 3, changes)
    made = average.train(order)
    (found,) = average.serve(order, made, bench(order)).states
    for name in ("body.0.weight", "body.2.bias"):
        mean = np.mean([state[name].double().numpy() for state in made.states], axis=0)
        np.testing.assert_allclose(found[name].numpy(), mean, rtol=1e-6)
    assert torch.equal(found["input_scale"], made.states[0]["input_scale"])
    swa = {**TINY, **changes, "training.average": "swa"}
    train(None, swa, str(tmp_path / "run"), quiet=True)
    for name, value in weights(tmp_path / "run").items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_an_average_measures_its_own_statistics(tmp_path):
    """Batch norm's variance is that of the averaged network (to 10 %: three batches), not a snapshot's."""
    changes = {"data": "iris", "model.norm": "batch", "schedule": "swa", "schedule.cycles": 2}
    order = job(tmp_path, 2, {**changes, "training.batch_size": 34, "optimizer.lr": 0.1})
    made, place = average.train(order), bench(order)
    state = average.serve(order, made, place).states[0]
    data = order.data
    assert data.input_shift is not None and data.input_scale is not None
    x = data.train.inputs.gather(torch.arange(len(data.train)))
    z = ((x - data.input_shift) * data.input_scale) @ state["body.0.weight"].T
    norm = next(name for name in state if name.endswith("running_var"))
    torch.testing.assert_close(state[norm], z.var(0), rtol=0.1, atol=0)
    assert not torch.allclose(state[norm], made.states[-1][norm], rtol=0.1, atol=0)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_the_greedy_soup_is_that_of_slow_code(seed, count):
    """Points in the plane, loss the squared distance of their mean from 0: the rule, written out again."""
    points = np.random.default_rng(seed).normal(1, 1, (count, 2))
    asked = []

    def loss(chosen):
        asked.append(tuple(chosen))
        return float(np.square(np.mean([points[k] for k in chosen], axis=0)).sum())

    found = soup.greedy(count, loss)
    queue = sorted(range(count), key=lambda k: np.square(points[k]).sum())
    pot = [queue.pop(0)]
    while queue:
        k = queue.pop(0)
        if np.square(points[[*pot, k]].mean(0)).sum() <= np.square(points[pot].mean(0)).sum():
            pot.append(k)
    assert found == pot and len(asked) == 2 * count - 1
    assert loss(found) <= min(np.square(points).sum(1)) + 1e-12


def test_what_is_not_finite_is_never_in_the_soup():
    """A member whose loss is NaN is tried last and left out."""
    assert soup.greedy(3, lambda chosen: float("nan") if 0 in chosen else 1.0 / len(chosen)) == [1, 2]


def test_a_soup_of_independent_members_is_one_member(tmp_path):
    """From other initial weights each: their mean is far worse, and the greedy rule takes one alone."""
    changes = {"model.hidden": [32], "training.epochs": 8, "training.batch_size": 32}
    order = job(tmp_path, 3, changes)
    made, place = independent.train(order), bench(order)
    chosen = soup.serve(order, made, place).chosen
    assert len(chosen) == 1

    def accuracy(state) -> float:
        place.network.load_state_dict(state)
        x, y = order.data.test.gather(torch.arange(len(order.data.test)))
        with torch.no_grad():
            return float((place.network.predict(x).argmax(1) == y).float().mean())

    alone = [accuracy(state) for state in made.states]
    assert min(alone) > 0.9 > 0.8 > accuracy(average.averaged(order, made.states, place))


def inputs_of(part):
    return part.inputs.gather(torch.arange(len(part)))


@pytest.mark.parametrize("data", ["iris", "diabetes"])
def test_folds_leave_out_each_sample_once(data):
    """The validation parts are a partition of training and validation part; the test part stays as it is."""
    loaded = sources.load(read_recipe(None, {"data": data}).data)
    found = folds.of(loaded, 4, seed=1)
    every = torch.cat([loaded.train.rows, loaded.validation.rows])
    left_out = torch.cat([fold.validation.rows for fold in found])
    assert sorted(left_out.tolist()) == sorted(every.tolist())
    sizes = [len(fold.validation) for fold in found]
    assert max(sizes) - min(sizes) <= 1
    source = {int(row): x for row, x in zip(loaded.train.rows, inputs_of(loaded.train), strict=True)}
    for fold in found:
        assert fold.test is loaded.test
        assert not set(fold.train.rows.tolist()) & set(fold.validation.rows.tolist())
        assert len(fold.train) + len(fold.validation) == len(every)
        for row, x in zip(fold.validation.rows.tolist(), inputs_of(fold.validation), strict=True):
            assert row not in source or torch.equal(source[row], x)
        if data == "iris":
            counts = [torch.bincount(f.validation.targets, minlength=3) for f in found]
            assert (torch.stack(counts).amax(0) - torch.stack(counts).amin(0)).max() <= 1
