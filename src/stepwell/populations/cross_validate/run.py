"""Cross-validates: from a question to a folder with its answer."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from stepwell.errors import Interrupted, UserError
from stepwell.populations.cross_validate.folder import Folder
from stepwell.populations.cross_validate.plan import Plan, plan
from stepwell.populations.cross_validate.question import Question
from stepwell.populations.cross_validate.result import summarize
from stepwell.populations.cross_validate.values import settled, word
from stepwell.populations.train import Stopped, train
from stepwell.progress import quietly
from stepwell.training import files
from stepwell.training.reproducible import undisturbed
from stepwell.training.signals import stop_on_signals
from stepwell.training.write_table import write_table


@undisturbed()
def cross_validate(
    question: Question, splitter: Any = None, out: str | None = None, quiet: bool = False
) -> tuple[dict[str, Any], Path]:
    """Trains every fold by one call of the population's `train`; returns the result and its folder.

    Raises UserError before anything is written if something is wrong; Interrupted when a signal asked to
    stop, and then `resume` goes on.
    """
    with quietly(quiet):
        planned = plan(question, splitter)
    folder = Folder.create(out, planned.recipe)
    try:
        question.file = None if question.recipe is None else str(question.recipe)
        question.changes = settled(question.changes, planned.recipe.data.name)
        folder.save(question, planned.folds[0].data.fingerprint)
        return _answer(planned, folder, quiet), folder.path
    except UserError:
        folder.discard()
        raise
    finally:
        folder.close()


@undisturbed()
def resume(path: str | Path, quiet: bool = False) -> tuple[dict[str, Any], bool]:
    """Goes on with an interrupted one; returns the result, and whether it was finished before."""
    folder = Folder.open(path)
    try:
        result = folder.result()
        if result is not None:
            return result, True
        question, fingerprint = folder.question()
        with quietly(quiet):
            planned = plan(question)
        if planned.folds[0].data.fingerprint != fingerprint:
            raise UserError(
                f"{planned.recipe.data.name} has changed since this cross-validation began: put the data "
                "back, or ask anew with another --out"
            )
        return _answer(planned, folder, quiet), False
    finally:
        folder.close()


def _answer(planned: Plan, folder: Folder, quiet: bool) -> dict[str, Any]:
    """Trains, and writes the tables and last of all the result."""
    with quietly(quiet), stop_on_signals() as stop:
        try:
            outcomes = train(
                planned.members,
                folder=folder.members,
                weights=True,
                interrupted=lambda: stop.signal is not None,
            )
        except Stopped:
            raise Interrupted(
                f"stopped and saved; go on with: {folder.resume_command()}", stop.signal or 0
            ) from None
        found = summarize(planned, outcomes)
        result = {**found.result, "name": folder.path.resolve().name}
        for fold in result["results"]:
            fold["command"] = command(planned, fold)
        write_table([found.predictions], folder.predictions_file)
        write_table([_lines(result)], folder.folds_file)
        files.write_json(folder.result_file, result)
        shutil.rmtree(folder.members, ignore_errors=True)  # no one goes on with it
        return result


def command(planned: Plan, fold: dict[str, Any]) -> str | None:
    """What trains this fold alone, with a report of its own; None where `data.fold` cannot name it."""
    question = planned.question
    if fold["name"] is None:
        return None
    keys = {**question.changes, **fold["chosen"], "data.fold": fold["name"]}
    file = [] if question.file is None else [question.file]
    return shlex.join(["stepwell", "train", *file, *(word(key, value) for key, value in keys.items())])


def _lines(result: dict[str, Any]) -> pl.DataFrame:
    """folds.csv: a line a fold."""
    lines = []
    for fold in result["results"]:
        about = {key: fold[key] for key in ("fold", "name", "train", "validation", "test")}
        chosen = {key: str(value) for key, value in fold["chosen"].items()}
        rest = {key: fold[key] for key in ("updates", "delivered", "diverged", "command")}
        lines.append({**about, **chosen, **fold["metrics"], **rest, "rows": _ranges(fold["rows"])})
    # The first fold may lack what the others have, where it diverged.
    names = dict.fromkeys(name for line in lines for name in line)
    return pl.DataFrame({name: [line.get(name) for line in lines] for name in names}, strict=False)


def _ranges(rows: list[int]) -> str:
    """[0, 1, 2, 5] → "0-2 5"."""
    pieces: list[list[int]] = []
    for row in rows:
        if pieces and row == pieces[-1][1] + 1:
            pieces[-1][1] = row
        else:
            pieces.append([row, row])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in pieces)
