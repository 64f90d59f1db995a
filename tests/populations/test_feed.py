"""Batches of a stack: bit for bit those of each member's own `Batches`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stepwell.data import counter, sources
from stepwell.data.augment.partners import Mixed
from stepwell.data.augment.pipeline import Augment
from stepwell.data.batches import Batches
from stepwell.nn.network import Network
from stepwell.populations.feed import Feed
from stepwell.populations.member import Member
from stepwell.recipe import read_recipe, resolve, updates_per_epoch

CPU = torch.device("cpu")
CASES = {
    "gathered": {"data": "iris"},
    "gathered, two splits": {"data": "iris", "split": True},
    "whole batches alone": {"data": "iris", "training.batch_size": 17},
    "images": {"data": "digits"},
    "accumulated": {"data": "iris", "training.accumulate": 3},
    "augmented": {"data": "digits", "augment.crop": 1},
    "mixed": {"data": "iris", "augment.mixup": 0.3},
}


def members(name):
    changes = {"training.batch_size": 16, "training.epochs": 3, **CASES[name]}
    split = changes.pop("split", False)
    made = []
    for seed in range(3):
        own = {**changes, "seed": seed} | ({"data.split_seed": seed % 2} if split else {})
        asked = read_recipe(None, own)
        same = [m.data for m in made if m.recipe.data == asked.data]
        data = same[0] if same else sources.load(asked.data)
        made.append(Member(resolve(asked, data), data))
    return made


@pytest.mark.parametrize("name", CASES)
def test_they_are_each_members_own(name):
    """Every batch of three epochs, and after one member has left."""
    every = members(name)
    feed, alone = Feed(every, CPU), [batches(member) for member in every]
    assert feed.standardized == (not feed.each)
    alike = [Network.of(nn.Identity(), member.data) for member in every]
    rows = [0, 1, 2]
    for update in range(3 * feed.updates_per_epoch):
        if update == feed.updates_per_epoch + 1:
            rows = [0, 2]
            feed.keep(rows)
        own = [alone[row].at(update) for row in rows]
        found = feed.at(update)
        assert len(found) == len(own[0])
        for place, (x, targets) in enumerate(found):
            wanted = [batch[place][0] for batch in own]
            if feed.standardized:
                wanted = [alike[row].standardize(x) for row, x in zip(rows, wanted, strict=True)]
            assert torch.equal(x, torch.stack(wanted))
            for part, target in enumerate(targets):
                assert torch.equal(target, torch.stack([parts(batch[place][1])[part] for batch in own]))
    feed.close()


def batches(member):
    recipe, data = member.recipe, member.data
    size, accumulate = recipe.training.batch_size, recipe.training.accumulate
    augment = Augment.of(recipe.augment, data, CPU).apply if recipe.augment.settings() else None
    epoch = updates_per_epoch(len(data.train), size, accumulate)
    return Batches(data.train, size, accumulate, epoch, counter.key(recipe.seed, 2), CPU, augment)


def parts(y):
    return (y.own, y.partner, y.lam) if isinstance(y, Mixed) else (y,)
