"""What a comparison trains."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from stepwell.data import sources
from stepwell.errors import UserError
from stepwell.populations.compare.command import command
from stepwell.populations.compare.grid import flatten
from stepwell.populations.compare.plan import make_plan
from stepwell.recipe import parse_changes, read_recipe, resolve

SMALL = {"data.name": "iris", "model.hidden": [4], "training.epochs": 1}


def plan(seeds: int = 2, tune: Any = None, **keys: Any):
    return make_plan({**SMALL, **{k.replace("__", "."): v for k, v in keys.items()}}, seeds, tune)


def test_members_are_the_product_with_paired_seeds():
    """Every entry has every tuned value with the recipe's seed and those behind it, on one data object."""
    found = plan(3, seed=7, optimizer__name="sgd,adam", optimizer__lr="log(0.01,1,3)")
    said = [(m.recipe.optimizer.name, m.recipe.optimizer.lr, m.recipe.seed) for m in found.members()]
    assert said == [
        (n, lr, s) for n in ("sgd", "adam") for lr in (0.01, pytest.approx(0.1), 1.0) for s in (7, 8, 9)
    ]
    assert all(member.data is found.data for member in found.members())


def test_every_command_gives_the_members_recipe():
    """What is printed, read by `stepwell train`, is the very recipe of the member."""
    data = sources.load(read_recipe(None, SMALL).data)
    found = plan(
        2,
        optimizer__name=["sgd", {"name": "nesterov", "momentum": 0.5}],
        optimizer__lr="log(0.01,1,3)",
        model__hidden="[4],[3,3]",
        augment__noise=None,
        regularize__l2=1e-5,
        model__norm="none,layer",
    )
    commands = [command(c.changes, seed) for _, c in found.candidates() for seed in found.seeds]
    assert len(set(commands)) == len(found.members()) == 2 * 3 * 2 * 2 * 2
    for line, member in zip(commands, found.members(), strict=True):
        program, verb, *words = shlex.split(line)
        assert (program, verb) == ("stepwell", "train")
        assert resolve(read_recipe(None, parse_changes(words)), data) == member.recipe


RATE, RULES = "optimizer.lr", {"optimizer.name": "sgd,adam"}


@pytest.mark.parametrize(
    ("keys", "tune", "compared", "tuned"),
    [
        ({**RULES, RATE: "log(1e-3,1,3)"}, None, ["optimizer.name"], [RATE]),
        ({RATE: "log(1e-3,1,3)"}, None, [RATE], []),
        ({**RULES, RATE: "0.1,0.2"}, None, ["optimizer.name", RATE], []),
        ({**RULES, RATE: "0.1,0.2"}, [RATE], ["optimizer.name"], [RATE]),
        ({**RULES, RATE: "range(0.1,0.2,2)"}, [], ["optimizer.name", RATE], []),
        ({"model.dropout": "range(0,0.5,3)", RATE: "log(1e-3,1,3)"}, [RATE], ["model.dropout"], [RATE]),
    ],
)
def test_ranges_are_tuned_where_something_else_is_compared(
    keys: dict[str, Any], tune: Any, compared: list[str], tuned: list[str]
):
    """A range alone is compared; `tune` says it otherwise."""
    found = make_plan({**SMALL, **keys}, 1, tune)
    assert list(found.compared) == compared and list(found.tuned) == tuned
    for entry in found.entries:
        assert list(entry.values) == compared
        assert all(list(candidate.values) == tuned for candidate in entry.candidates)


def test_a_value_may_bring_keys_and_ranges_of_its_own():
    """Momentum belongs to one rule alone, and each has rates of its own."""
    rules = [
        {"name": "momentum", "momentum": 0.5, "lr": "log(0.01,0.1,2)"},
        {"name": "sgd", "lr": "log(0.1,10,3)"},
    ]
    found = plan(1, optimizer__name=rules)
    assert [len(entry.candidates) for entry in found.entries] == [2, 3]
    assert [m.recipe.optimizer.lr for m in found.members()] == pytest.approx([0.01, 0.1, 0.1, 1, 10])
    assert [m.recipe.optimizer.name for m in found.members()] == ["momentum"] * 2 + ["sgd"] * 3
    assert found.members()[0].recipe.optimizer.momentum == 0.5


def test_every_entry_has_the_same_epochs():
    """A default length depends on the batch size; compared entries have the first one's."""
    keys = {"data.name": "iris", "model.hidden": [4], "training.batch_size": "16,64"}
    found = make_plan(keys, 1)
    alone = [resolve(read_recipe(None, {**keys, "training.batch_size": b}), found.data) for b in (16, 64)]
    assert alone[0].training.epochs != alone[1].training.epochs
    assert {m.recipe.training.epochs for m in found.members()} == {alone[0].training.epochs}


def test_names_tell_entries_apart():
    """Short where that is enough, whole where two would be the same."""
    names = [entry.name for entry in plan(1, optimizer__lr="0.1,0.2", optimizer__name="sgd,adam").entries]
    assert names == ["lr 0.1, sgd", "lr 0.1, adam", "lr 0.2, sgd", "lr 0.2, adam"]
    close = plan(1, optimizer__lr=[0.100001, 0.100002])
    assert [entry.name for entry in close.entries] == ["optimizer.lr 0.100001", "optimizer.lr 0.100002"]


WRONG = {
    "names the entry": (
        {"optimizer": "momentum,adam", "optimizer.momentum": 0.5},
        "^adam: optimizer.momentum",
    ),
    "is no entry's own": ({"optimizer": "sgd,adam", "optimizer.lrr": 1}, "^there is no key optimizer.lrr"),
    "names the tuned value": (
        {"optimizer": "sgd,adam", "training.batch_size": "range(1,2,3)"},
        "training.batch_size=1.5 must be",
    ),
    "does not go together": ({"optimizer": "adam,adamw", "regularize.l2": 0.1}, "^adamw: regularize.l2"),
    "is given twice": (
        {"optimizer": [{"name": "sgd", "lr": 1}, "adam"], "optimizer.lr": 2},
        "optimizer.lr is given",
    ),
    "has seconds": (
        {"optimizer": "sgd,adam", "training.epochs": None, "training.seconds": 3},
        "no equal budget",
    ),
    "has other lengths": ({"training.epochs": "1,2"}, "same budget"),
    "has other data": ({"data.name": "iris,wine"}, "same data"),
    "has other splits": ({"data.validation": [0.1, 0.2]}, "data.validation"),
    "is logged": ({"optimizer": "sgd,adam", "training.track": ["tensorboard"]}, "training.track"),
    "has no validation": ({"optimizer": "sgd,adam", "data.validation": 0}, "data.validation"),
    "has no test": ({"optimizer": "sgd,adam", "data.test": 0}, "data.test"),
    "has one value": ({"optimizer": ["adam"]}, "one value, adam"),
    "has no list": ({}, "nothing to compare"),
    "is one entry": ({"optimizer": ["adam", "adam"]}, "twice"),
    "is too large": ({"optimizer": "sgd,adam", "optimizer.lr": "log(1e-3,1,5001)"}, "20,004 trainings"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_before_anything_is_trained(case: str):
    """One sentence; it names an entry where that alone is wrong."""
    keys, said = WRONG[case]
    with pytest.raises(UserError, match=said):
        make_plan(flatten({**SMALL, **keys}), 2)


@pytest.mark.parametrize("seeds", [0, -1, 2.5, True, "5"])
def test_seeds_are_counted(seeds: Any):
    """A whole number from 1 on."""
    with pytest.raises(UserError, match="seeds="):
        plan(seeds, optimizer__name="sgd,adam")
