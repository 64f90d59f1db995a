"""A population as a whole: who diverges, who is given up, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch

from stepwell.data import sources
from stepwell.errors import UserError
from stepwell.populations.groups import divide, notes
from stepwell.populations.member import Member
from stepwell.populations.train import Stopped, train
from stepwell.recipe import read_recipe, resolve

COMMON = {"data": "iris", "model.hidden": [8], "training.batch_size": 16, "training.updates": 60}
COMMON |= {"training.evaluate_every": 10, "training.log_every": 7, "model.dropout": 0.1}


@pytest.fixture(scope="module")
def data():
    return sources.load(read_recipe(None, COMMON).data)


def members(data, *each):
    return [Member(resolve(read_recipe(None, {**COMMON, **own}), data), data) for own in each]


def same(found, wanted):
    for ours, its in zip(found, wanted, strict=True):
        assert ours.as_json() == its.as_json()
        if its.weights is not None:
            assert all(torch.equal(ours.weights[name], value) for name, value in its.weights.items())


def test_one_that_diverges_leaves_the_others_alone(data):
    """Bit for bit: three members beside two that diverge, and the same three beside two that do not."""
    good = [{"seed": seed} for seed in range(3)]
    wild = [{"seed": 3, "optimizer": "sgd", "optimizer.lr": 1e30}, {"seed": 4, "optimizer.lr": 1e37}]
    mild = [{"seed": 3, "optimizer": "sgd", "optimizer.lr": 1e-3}, {"seed": 4, "optimizer.lr": 1e-4}]
    with_wild, with_mild = (train(members(data, *good, *own), weights=True) for own in (wild, mild))
    same(with_wild[:3], with_mild[:3])
    assert [outcome.diverged is not None for outcome in with_wild] == [False] * 3 + [True] * 2
    assert with_wild[3].updates == with_wild[3].diverged != 60 and with_wild[3].test == {}


def test_who_has_ended_is_taken_out(data):
    """Two of three diverge or stop early: the third goes on as if they were there."""
    third = {"seed": 2}
    ending = [{"optimizer.lr": 1e30}, {"training.early_stopping": 1, "optimizer.lr": 3.0}]
    beside = train(members(data, *ending, third), weights=True)
    assert beside[0].diverged and beside[1].ended_early
    alone = train(members(data, third), weights=True)[0]
    assert beside[2].test == pytest.approx(alone.test, rel=1e-4)
    assert beside[2].updates == 60 and len(beside[2].curve) == 6


@pytest.mark.parametrize("updates", [None, 37])
def test_who_has_ended_keeps_its_weights(data, tmp_path, updates):
    """Taken out of the stack, also before an interruption: its weights are those of it alone."""
    ending = [{"training.early_stopping": 1, "optimizer.lr": 0.5, "seed": seed} for seed in (0, 5)]
    every = members(data, *ending, {"seed": 2})
    if updates is not None:
        asked = iter(range(10_000))
        with pytest.raises(Stopped):
            train(every, folder=tmp_path, weights=True, interrupted=lambda: next(asked) >= updates)
    found = train(every, folder=tmp_path, weights=True)
    assert [outcome.ended_early for outcome in found] == [True, True, False]
    for ours, member in zip(found, every, strict=True):
        its = train([member], weights=True)[0].weights
        assert ours.weights is not None and its is not None
        assert all(torch.allclose(ours.weights[name], its[name], atol=1e-4) for name in its)


def test_the_worse_are_given_up_at_rungs(data):
    """`keep` sees everyone's newest loss and decides; those who stay end as without rungs."""
    every = members(data, *({"seed": seed, "optimizer.lr": rate} for seed in (0, 1) for rate in (1e-2, 1e-4)))
    seen = []

    def keep(rung, losses):
        seen.append((rung, dict(losses)))
        return sorted(losses, key=losses.__getitem__)[:2]

    found, whole = train(every, rungs=[20, 40], keep=keep), train(every)
    assert [rung for rung, _ in seen] == [20, 40]
    assert seen[0][1] == {
        number: outcome.curve[1]["validation"]["loss"] for number, outcome in enumerate(whole)
    }
    assert seen[1][1].keys() == {0, 2}  # the higher rate, of either seed
    assert [outcome.stopped_at for outcome in found] == [None, 20, None, 20]
    assert [outcome.updates for outcome in found] == [60, 20, 60, 20]
    assert found[0].curve[-1]["validation"] == pytest.approx(whole[0].curve[-1]["validation"], rel=1e-4)


@pytest.mark.parametrize("updates", [1, 9, 10, 37, 59])
def test_it_goes_on_where_it_was_interrupted(data, tmp_path, updates):
    """Interrupted after so many updates, once or again and again: the same end bit for bit."""
    every = members(
        data,
        {"seed": 0, "training.average": "ema"},
        {"seed": 1, "optimizer": "momentum"},
        {"seed": 2, "schedule": "plateau"},
        {"seed": 3, "optimizer.lr": 1e30},
        {"seed": 4, "optimizer": "lbfgs"},
    )
    whole = train(every, weights=True)
    asked = 0

    def interrupted():
        nonlocal asked
        asked += 1
        return asked % updates == 0 and asked < 8 * updates

    while True:
        try:
            found = train(every, folder=tmp_path, weights=True, interrupted=interrupted)
            break
        except Stopped:
            continue
    same(found, whole)
    assert not list(tmp_path.glob("group-*"))
    same(train(every, folder=tmp_path, weights=True), whole)  # all there is to do is to read


def test_rungs_go_on_too(data, tmp_path):
    """Interrupted between and in rungs: the same are given up, with the same end."""
    every = members(data, *({"seed": seed, "optimizer.lr": 10.0**-seed} for seed in range(4)))
    every += members(data, {"model.hidden": [4], "optimizer.lr": 1e-5})  # it trains alone, and is given up

    def keep(rung, losses):
        return sorted(losses, key=losses.__getitem__)[: len(losses) - 1]

    whole = train(every, rungs=[20, 40], keep=keep)
    for stop in (15, 30, 31, 50):
        asked = iter(range(10_000))
        folder = tmp_path / str(stop)
        with pytest.raises(Stopped):
            train(every, rungs=[20, 40], keep=keep, folder=folder, interrupted=lambda: next(asked) >= stop)  # noqa: B023
        same(train(every, rungs=[20, 40], keep=keep, folder=folder), whole)


KILLED = """
import sys
from pathlib import Path
from stepwell.data import sources
from stepwell.populations import train as module
from stepwell.populations.member import Member
from stepwell.recipe import read_recipe, resolve
module.SAVE_SECONDS = 0.0
asked = read_recipe(None, {common})
data = sources.load(asked.data)
one = resolve(asked, data)
every = [Member(one.model_copy(update={{"seed": seed}}), data) for seed in range(3)]
found = module.train(every, folder=Path(sys.argv[1]))
print([outcome.as_json() for outcome in found])
"""


def test_a_kill_loses_nothing(tmp_path):
    """Killed while it writes: what is there is whole, and the same call ends as without the kill."""
    common = {**COMMON, "training.updates": 30}
    code, environment = KILLED.format(common=common), {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(folder):
        command = [sys.executable, "-c", code, str(folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)

    killed = start(tmp_path / "killed")
    while not list((tmp_path / "killed").glob("group-*")) and killed.poll() is None:
        pass
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert list((tmp_path / "killed").glob("group-*"))
    both = [start(tmp_path / name).communicate()[0] for name in ("killed", "whole")]
    assert both[0] == both[1] != ""


def test_the_folder_of_others_is_refused(data, tmp_path):
    """Another rate, or other data, is another population."""
    train(members(data, {"training.updates": 2}), folder=tmp_path)
    with pytest.raises(UserError, match="other models"):
        train(members(data, {"training.updates": 2, "optimizer.lr": 0.5}), folder=tmp_path)
    changed = (tmp_path / "ended.json").read_text().replace('"updates": 2', '"updates": 3')
    (tmp_path / "ended.json").write_text(changed)
    with pytest.raises(UserError, match="damaged"):
        train(members(data, {"training.updates": 2}), folder=tmp_path)
    (tmp_path / "ended.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        train(members(data, {"training.updates": 2}), folder=tmp_path)


def test_what_cannot_be_stacked_trains_alone_and_says_so(data):
    """Other shapes are other stacks; an optimizer that asks for the loss again is alone, with the reason."""
    every = members(
        data,
        *({"seed": seed} for seed in range(3)),
        *({"seed": seed, "model.hidden": [4]} for seed in range(2)),
        {"optimizer": "lbfgs"},
        {"optimizer": "newton"},
    )
    groups = divide(every)
    said = notes(groups)
    assert sorted(len(group.numbers) for group in groups) == [1, 1, 2, 3]
    assert [group.stacked for group in groups] == [len(group.numbers) > 1 for group in groups]
    assert len(said) == 2 and "asks for the loss several times" in said[0]


def test_one_that_cannot_be_stacked_may_be_the_only_one(data, tmp_path, monkeypatch):
    """A module that looks at a value trains alone, also where no other has its shape."""
    (tmp_path / "look_net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        z = super().forward(x)\n"
        "        return 2 * z if z.mean() > 0 else z\n"
        "def net(shape, outputs):\n"
        "    return Net(4, outputs)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    common = {name: value for name, value in COMMON.items() if not name.startswith("model")}
    recipe = resolve(read_recipe(None, {**common, "model": "look_net:net"}), data)
    assert [outcome.how for outcome in train([Member(recipe, data)])] == ["alone"]


def test_a_stack_has_room_in_memory(data, monkeypatch):
    """Half of the free memory is the limit: with little of it, a population is cut into more stacks."""
    every = members(data, *({"seed": seed} for seed in range(16)))
    whole = divide(every)
    monkeypatch.setattr("stepwell.populations.groups._free_bytes", lambda device: 60_000)
    cut = divide(every)
    assert len(whole) == 1 < len(cut)
    assert sorted(number for group in cut for number in group.numbers) == list(range(16))
    assert max(len(group.numbers) for group in cut) - min(len(group.numbers) for group in cut) <= 1
