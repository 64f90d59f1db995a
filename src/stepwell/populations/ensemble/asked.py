"""What an ensemble is asked to be: the schedule that a kind needs, and the keys that it cannot obey."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepwell.errors import UserError
from stepwell.populations.ensemble.kinds import KINDS
from stepwell.recipe import Recipe
from stepwell.recipe.read import read_yaml
from stepwell.recipe.schema import default_schedule

MEMBERS = 5  # Lakshminarayanan et al. 2017
MOST = 1000
# The schedule of each kind that needs cycles, where the recipe names none: far apart, or in one basin.
SCHEDULE = {"snapshots": "restarts", "average": "swa", "soup": "swa"}


def require(kind: str, members: int | None) -> None:
    """UserError for a kind that there is not, and for a number that makes no ensemble."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"use {', '.join(KINDS)}"
        raise UserError(f"--kind {kind}: there is no such ensemble; {hint}")
    if members is not None and not 2 <= members <= MOST:
        one = "; stepwell train trains one" if members == 1 else ""
        raise UserError(f"--members {members}: an ensemble has 2 to {MOST:,} members{one}")


def named(recipe: str | Path | None, changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """What file and changes say of the schedule and the optimizer's name, unchecked."""
    found: dict[str, Any] = {}
    for tree in (read_yaml(recipe) if recipe is not None else {}, changes or {}):
        for key, value in tree.items() if isinstance(tree, Mapping) else ():
            if isinstance(value, Mapping):
                found |= {f"{key}.{inner}": v for inner, v in value.items()}
            else:
                found[key if "." in str(key) else f"{key}.name"] = value
    return found


def schedule(kind: str, members: int | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The schedule that a kind needs, where nobody has named one."""
    if kind not in SCHEDULE or "schedule.name" in given or (kind == "soup" and given.get("model.from")):
        return {}
    name = given.get("optimizer.name")
    if default_schedule(name) == "constant":
        raise UserError(
            f"--kind {kind} needs a rate that falls in cycles, and optimizer={name} chooses its steps "
            "itself: use another optimizer, or name a schedule"
        )
    found: dict[str, Any] = {"schedule.name": SCHEDULE[kind]}
    if "schedule.cycles" not in given:
        found["schedule.cycles"] = members or MEMBERS
    if kind == "snapshots" and "schedule.growth" not in given:
        found["schedule.growth"] = 1  # cycles of equal length, as Huang et al.
    return found


def has_cycles(kind: str, recipe: Recipe) -> bool:
    """Whether the members are snapshots at the ends of the rate's cycles."""
    return kind in SCHEDULE and not (kind == "soup" and getattr(recipe.model, "from") is not None)


def refuse_without_effect(kind: str, recipe: Recipe) -> None:
    """Keys that `train` obeys and this kind would not."""
    training, begun = recipe.training, getattr(recipe.model, "from") is not None
    if training.track:
        raise UserError("training.track has no effect on an ensemble: remove it")
    if kind == "folds" and begun:
        raise UserError("--kind folds does not go with model.from: use independent")
    if kind not in SCHEDULE and not begun:
        return
    why = f"--kind {kind}{' with model.from' * (kind not in SCHEDULE)} takes the weights of given updates"
    if training.seconds is not None:
        raise UserError(f"training.seconds has no last update, and {why}: set training.epochs")
    if training.early_stopping is not None:
        raise UserError(f"training.early_stopping would end the run before them, and {why}: remove it")
    if training.weights == "best":
        raise UserError(f"training.weights=best has no effect, since {why}: remove it")
    if training.average is not None:
        raise UserError(f"training.average averages weights by itself, and {why}: remove one")
