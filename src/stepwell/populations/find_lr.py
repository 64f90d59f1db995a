"""The learning rate of a recipe by a range test: `stepwell find-lr`, `optimizer.lr=auto`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stepwell.data import sources
from stepwell.data.dataset import DataSet
from stepwell.errors import UserError
from stepwell.optim.configs import OWN_RATE
from stepwell.populations.member import Member
from stepwell.populations.range_test import RangeTest, judge, rising
from stepwell.populations.sweep import sweep
from stepwell.recipe import Recipe, default_rate, is_open, read_recipe, resolve, with_rate
from stepwell.training import source

UPDATES, SEEDS = 200, 5
# The range is around the rule's own rate, since rules differ in its size by 10⁴: four decades below it, where
# hardly anything moves in 200 updates, to three above it, where nearly everything has blown up.
BELOW, ABOVE = 1e4, 1e3

MOST_SEEDS, MOST_UPDATES = 1000, 100_000  # far more than tell anything


def find_lr(
    recipe: Recipe,
    data: DataSet,
    *,
    low: float | None = None,
    high: float | None = None,
    updates: int = UPDATES,
    seeds: int = SEEDS,
    interrupted: Callable[[], bool] = lambda: False,
) -> RangeTest:
    """The range test of what a recipe says, `optimizer.lr` and `schedule` left out of account.

    recipe: as it was read, or resolved. low, high: ends of the range (default: 10⁻⁴ and 10³ times the rule's
    own rate). seeds: how many trainings, of the recipe's seed and those that follow it. What it finds is in
    `range_test.judge`. UserError where the optimizer chooses its steps itself, or the range is none.
    """
    rates = _rates(recipe, low, high, updates, seeds)
    whole = resolve(with_rate(recipe, default_rate(recipe)), data)
    members = [
        Member(whole.model_copy(update={"seed": (whole.seed + k) % 2**63}), data) for k in range(seeds)
    ]
    return judge(rates, sweep(members, rates, interrupted=interrupted))


def _rates(recipe: Recipe, low: float | None, high: float | None, updates: int, seeds: int) -> list[float]:
    name, own = recipe.optimizer.name, default_rate(recipe)
    if name in OWN_RATE:
        raise UserError(f"no learning rate is to be found for optimizer={name}, {OWN_RATE[name]}")
    if seeds > MOST_SEEDS or updates > MOST_UPDATES:
        raise UserError(
            f"seeds={seeds}, updates={updates}: a range test has at most {MOST_SEEDS:,} seeds and "
            f"{MOST_UPDATES:,} updates; 5 and 200 do"
        )
    if seeds < 1:
        raise UserError(f"seeds={seeds}: give 1 at least, and 3 or more to see how much is chance")
    return rising(own / BELOW if low is None else low, own * ABOVE if high is None else high, updates)


def of_recipe(
    recipe: str | os.PathLike[str] | None,
    changes: Mapping[str, Any],
    low: float | None = None,
    high: float | None = None,
    updates: int = UPDATES,
    seeds: int = SEEDS,
) -> tuple[Recipe, DataSet, RangeTest]:
    """The same of a recipe file, None for the default, and keys over it; with what was read."""
    asked, _ = source.settle(read_recipe(None if recipe is None else Path(recipe), changes))
    _rates(asked, low, high, updates, seeds)  # what is wrong with them is said before data is read
    data = sources.load(asked.data)
    return asked, data, find_lr(asked, data, low=low, high=high, updates=updates, seeds=seeds)


def no_rate(found: RangeTest) -> str:
    """What is wrong where a range test found no rate, and what to do."""
    low, high = (f"{rate:.2g}" for rate in found.rates[[0, -1]])
    made = int(np.median(np.isfinite(found.losses).sum(1)))
    if made == 0:
        return "the loss is not finite before the first update: look at the data and the loss"
    if made < len(found.rates) // 10:
        return f"the loss blows up from the lowest rate on, {low}: begin lower (low)"
    return (
        f"no rate between {low} and {high} lowers the loss: look at whether gradients reach the weights "
        "(stepwell inspect) and at the data, or give another range (low, high)"
    )


def said(found: RangeTest) -> str:
    """What a range test found, in a sentence."""
    seeds, updates = found.losses.shape
    return (
        f"optimizer.lr=auto is {found.rate:g}, by a range test of {seeds} seeds × {updates} updates; "
        f"usable are {found.low:g} to {found.high:g}"
    )


def settle(recipe: Recipe, data: DataSet) -> tuple[Recipe, dict[str, Any] | None]:
    """The recipe with the rate in the place of optimizer.lr=auto, and what is kept of how it was found.

    None where the recipe has a rate. UserError where there is none to be found.
    """
    if not is_open(recipe):
        return recipe, None
    found = find_lr(recipe, data)
    if found.rate is None:
        raise UserError(f"optimizer.lr=auto: {no_rate(found)}")
    seeds, updates = found.losses.shape
    kept = {"rate": found.rate, "low": found.low, "high": found.high, "spread": found.spread}
    kept |= {"seeds": seeds, "updates": updates, "from": found.rates[0], "to": found.rates[-1]}
    return with_rate(recipe, found.rate), {**kept, "notes": [said(found), *found.notes]}
