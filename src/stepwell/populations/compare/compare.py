"""`compare`: from lists of values to a folder with the table."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepwell.errors import Diverged, Interrupted, UserError
from stepwell.populations import train as population
from stepwell.populations.compare.folder import CompareFolder
from stepwell.populations.compare.grid import OPTIONS, as_text, canonical, flatten, parts, values_of
from stepwell.populations.compare.halving import Halving, rungs
from stepwell.populations.compare.plan import Plan, make_plan
from stepwell.populations.compare.result import criterion, status, summarize
from stepwell.populations.compare.table_file import write_table
from stepwell.progress import quietly
from stepwell.recipe import choose_device
from stepwell.recipe.read import read_yaml
from stepwell.training import files
from stepwell.training.environment import environment
from stepwell.training.finish import is_command
from stepwell.training.reproducible import undisturbed
from stepwell.training.signals import stop_on_signals


@undisturbed()
def compare(
    path: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    out: str | None = None,
    quiet: bool = False,
) -> tuple[dict[str, Any], Path]:
    """Trains every entry with every value and seed, and writes the folder; returns the result and the folder.

    path: a YAML file with lists and ranges in it. changes: keys over it, with one value or several (see
    `grid`). options: seeds, tune, halving, target, over those among the keys. out: the folder (default: a new
    one below runs/).

    Raises UserError before anything is written if something is wrong; Diverged if every run diverged;
    Interrupted when a signal asked to stop.
    """
    asked, chosen = _asked(path, changes or {}, options or {})
    with quietly(quiet):
        plan = _plan(asked, chosen)
    folder = CompareFolder.create(out, plan.entries[0].candidates[0].recipe)
    try:
        try:
            folder.save_asked(_listed(plan.asked), {**chosen, "tune": list(plan.tuned)})
        except BaseException:
            folder.discard()
            raise
        return _conduct(plan, chosen, folder, quiet), folder.path
    finally:
        folder.close()


@undisturbed()
def resume(path: str | Path, quiet: bool = False) -> tuple[dict[str, Any], bool]:
    """Goes on with an interrupted comparison; returns the result, and whether it was finished before."""
    folder = CompareFolder.open(path)
    try:
        result = folder.result()
        if result is not None:
            return result, True
        asked, chosen = _asked(folder.recipe_file, {}, {})
        with quietly(quiet):
            plan = _plan(asked, chosen)
        return _conduct(plan, chosen, folder, quiet), False
    finally:
        folder.close()


def _asked(
    path: str | Path | None, changes: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The file's keys and options, and over them those that are given."""
    tree = read_yaml(path) if path is not None else {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a recipe has sections such as 'optimizer:', with keys below them")
    over = {name: value for name, value in options.items() if value is not None}
    asked = {**flatten(tree), **flatten(changes), **over}
    chosen = {name: asked.pop(name, default) for name, default in OPTIONS.items()}
    chosen["tune"] = _keys(chosen["tune"])
    if not isinstance(chosen["halving"], bool):
        raise UserError(f"halving={as_text(chosen['halving'])} must be true or false")
    target = chosen["target"]
    if target is not None and (
        isinstance(target, bool) or not isinstance(target, (int, float)) or not math.isfinite(target)
    ):
        raise UserError(f"target={as_text(target)} must be a finite number, a value of the validation metric")
    return asked, chosen


def _keys(tune: Any) -> list[str] | None:
    """Keys that are tuned: a list, or a text with commas; "none" is none."""
    if tune is None or tune == "none":
        return None if tune is None else []
    keys = parts(tune) if isinstance(tune, str) else tune
    if not isinstance(keys, (list, tuple)) or not all(isinstance(key, str) and key for key in keys):
        raise UserError(f"tune={as_text(tune)} must be keys with commas between them, or none")
    return [canonical(key) for key in keys]


def _plan(asked: Mapping[str, Any], chosen: Mapping[str, Any]) -> Plan:
    plan = make_plan(asked, chosen["seeds"], chosen["tune"])
    if chosen["halving"]:
        _rungs(plan)
    return plan


def _rungs(plan: Plan) -> list[int]:
    """When values are given up. UserError where that has no effect, or no one meaning."""
    candidates = [candidate for _, candidate in plan.candidates()]
    if len(candidates) == len(plan.entries):
        raise UserError("--halving has no effect where nothing is tuned: give a range, such as log(1e-4,1,9)")
    if criterion(plan) != "loss":
        raise UserError("--halving cannot tune a key of the loss, whose values differ in kind: remove one")
    if len({plan.updates(candidate) for candidate in candidates}) > 1:
        raise UserError("--halving needs the same number of updates in every entry: give training.updates")
    every = candidates[0].recipe.training.evaluate_every
    return rungs(plan.updates(candidates[0]), every or plan.updates(candidates[0]))


def _listed(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {key: values_of(key, value) or value for key, value in asked.items()}


def _conduct(plan: Plan, chosen: Mapping[str, Any], folder: CompareFolder, quiet: bool) -> dict[str, Any]:
    """Trains the members and writes what a finished comparison has, result.json last."""
    started = time.monotonic()
    places = _rungs(plan) if chosen["halving"] else []
    members = plan.members()
    with quietly(quiet), stop_on_signals() as stop:
        try:
            outcomes = population.train(
                members,
                folder=folder.checkpoints,
                rungs=places,
                keep=Halving(_numbers(plan)) if places else None,
                interrupted=lambda: stop.signal is not None,
            )
        except population.Stopped:
            again = f"stepwell compare --resume {shlex.quote(str(folder.path))}"
            raise Interrupted(f"stopped and saved; go on with: {again}", stop.signal or 0) from None
    training = plan.entries[0].candidates[0].recipe.training
    found = summarize(plan, outcomes, chosen["target"], places)
    write_table(folder.table_file, plan, outcomes, found)
    if all(status(outcome) == "diverged" for outcome in outcomes):
        raise Diverged(
            f"all {len(members):,} runs diverged: lower optimizer.lr ({folder.table_file} says when)",
            folder.path,
        )
    result = {
        "status": "finished",
        "task": plan.data.task,
        "data": {
            "name": plan.data.name,
            **{part: len(getattr(plan.data, part)) for part in ("train", "validation", "test")},
        },
        "members": len(members),
        "seeds": plan.seeds,
        "budget": {
            "epochs": training.epochs,
            "updates": sorted({plan.updates(candidate) for _, candidate in plan.candidates()}),
        },
        "compared": {key: values.text for key, values in plan.compared.items()},
        "tuned": {key: values.text for key, values in plan.tuned.items()},
        "halving": {"rungs": places} if places else None,
        **found,
        "how": {way: sum(outcome.how == way for outcome in outcomes) for way in ("stacked", "alone")},
        "seconds": time.monotonic() - started,
        "command": shlex.join(["stepwell", *sys.argv[1:]]) if is_command() else "sw.compare(…)",
        "environment": environment(choose_device(training.device)),
    }
    files.write_json(folder.result_file, result)
    folder.forget_state()
    return result


def _numbers(plan: Plan) -> Sequence[Sequence[Sequence[int]]]:
    """The members' numbers by entry, candidate and seed."""
    count, size = iter(range(10**9)), len(plan.seeds)
    return [[[next(count) for _ in range(size)] for _ in entry.candidates] for entry in plan.entries]
