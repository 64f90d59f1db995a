"""`train`: from a recipe to a finished run folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepwell.data import sources
from stepwell.data.augment import label_changes
from stepwell.data.dataset import DataSet
from stepwell.errors import UserError
from stepwell.nn.configs import UserModel
from stepwell.progress import Progress, quietly
from stepwell.recipe import Recipe, choose_device, read_recipe, resolve
from stepwell.training import checkpoint, source, trackers
from stepwell.training.conductor import Conductor
from stepwell.training.environment import environment
from stepwell.training.finish import finish
from stepwell.training.loop import fit
from stepwell.training.reproducible import own_randomness, products_repeat, same_arithmetic, undisturbed
from stepwell.training.run import Run
from stepwell.training.run_folder import RunFolder
from stepwell.training.signals import stop_on_signals

# Recipe as read, data → recipe with its optimizer.lr, and what result.json tells of how it was found.
Settle = Callable[[Recipe, DataSet], tuple[Recipe, dict[str, Any] | None]]


@undisturbed()
def train(
    recipe: str | Path | Recipe | None = None,
    changes: Mapping[str, Any] | None = None,
    out: str | None = None,
    quiet: bool = False,
    settle: Settle = lambda recipe, data: (recipe, None),
) -> tuple[dict[str, Any], Path]:
    """Trains what the recipe says, with `changes` over it; returns the result and the run folder.

    recipe: a YAML file, a Recipe, or None for the default (an MLP on digits). changes: keys as on the
    command line, {"optimizer.lr": 0.01}. out: the run folder (default: a new one below runs/). settle: finds
    the number for optimizer.lr=auto once the data is there, which takes trainings of its own; without it,
    auto is refused.

    Raises UserError before anything is written if something is wrong; Diverged if losses or gradients
    stay non-finite; Interrupted when a signal asked to stop.
    """
    if isinstance(recipe, Recipe) and changes:
        raise TypeError("changes go over a recipe file; a Recipe is whole")
    asked = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, changes)
    trackers.require_installed(asked.training.track)
    asked, begun = source.settle(asked)
    with quietly(quiet):
        data = sources.load(asked.data)
        with _memory_in_words():
            asked, found = settle(asked, data)
    whole = resolve(asked, data)
    with _alone(whole):
        run = Run(whole, data, begun)
        run.notes += found["notes"] if found else []
        folder = RunFolder.create(out, whole)
        try:
            folder.save_rate(found)
            folder.save_recipe(whole)
            source.keep(begun, folder)
            tracking = trackers.start(whole.training.track, folder.path, whole.model_dump())
        except BaseException:
            folder.discard()
            raise
        try:
            return _conduct(run, folder, None, tracking, quiet), folder.path
        finally:
            folder.close()


@undisturbed()
def resume(path: str | Path, quiet: bool = False) -> tuple[dict[str, Any], bool]:
    """Goes on with an interrupted run to its end; returns the result, and whether it was finished before.

    The end is bit for bit that of an uninterrupted run, on the same machine with the same versions.
    """
    folder = RunFolder.open(path)
    try:
        result = folder.result()
        if result is not None and _is_whole(folder.model_file, result):
            return result, True
        recipe = folder.recipe()
        _require_device(recipe, folder)
        with quietly(quiet):
            data = sources.load(recipe.data)
        with _alone(recipe):
            run = Run(recipe, data, source.kept(recipe, folder))
            loaded = checkpoint.load(folder.checkpoints, run)
            tracking = trackers.start(recipe.training.track, folder.path, recipe.model_dump())
            return _conduct(run, folder, loaded, tracking, quiet), False
    finally:
        folder.close()


def _conduct(
    run: Run,
    folder: RunFolder,
    loaded: checkpoint.Loaded | None,
    tracking: list[trackers.Tracker],
    quiet: bool,
) -> dict[str, Any]:
    """Trains to the end of the budget and writes what a finished run has."""
    run.data.notes += label_changes.notes(run.recipe.augment, run.data)
    warn = isinstance(run.recipe.model, UserModel) or not products_repeat(run.device)
    with (
        quietly(quiet),
        _disk_in_words(folder),
        stop_on_signals() as stop,
        same_arithmetic(run.is_small, warn),
    ):
        conductor = Conductor(run, folder, stop, loaded, tracking)
        try:
            conductor.save()  # from the first moment: a changed data file or recipe is noticed
            with Progress(conductor.state) as progress:
                conductor.progress = progress
                notes = [*run.data.notes, *run.notes]
                if loaded is not None:
                    notes = [*loaded.notes, *_moved(run, loaded)]
                for note in notes:
                    progress.say(f"Note: {note.rstrip('.')}.")
                fit(run, conductor)
            stop.raise_if_asked(folder.path)
            conductor.save()
        finally:
            conductor.close()
        return finish(run, folder, stop)


@contextmanager
def _disk_in_words(folder: RunFolder) -> Iterator[None]:
    """A full or unwritable disk ends the process, not the run: says how to go on."""
    try:
        yield
    except OSError as error:
        ours = error.filename is None or str(error.filename).startswith(str(folder.path))
        what = (error.strerror or str(error)).lower()
        raise UserError(
            f"{folder.path if ours else error.filename}: {what}; mend this and go on with "
            f"stepwell train --resume {shlex.quote(str(folder.path))}"
        ) from error


def _is_whole(model: Path, result: dict[str, Any]) -> bool:
    """Whether a finished run's model is there and undamaged; otherwise it is written anew."""
    try:
        checkpoint.read(model)
        return checkpoint.digest(model) == result["weights"]["digest"]
    except UserError:
        return False


def _require_device(recipe: Recipe, folder: RunFolder) -> None:
    """Another device has other rounding: going on there is for the user to decide."""
    try:
        choose_device(recipe.training.device)
    except UserError as error:
        raise UserError(f"{folder.recipe_file}: {error} (the end will differ in the last bits)") from None


def _moved(run: Run, loaded: checkpoint.Loaded) -> list[str]:
    """A note where a run goes on elsewhere than it began: bit for bit holds on one machine only."""
    before, now = loaded.state["environment"], environment(run.device)
    changed = [f"{key} {before.get(key)}, now {now[key]}" for key in now if now[key] != before.get(key)]
    if not changed:
        return []
    return [f"this run began with {'; '.join(changed)}: its end may differ in the last bits"]


@contextmanager
def _alone(recipe: Recipe) -> Iterator[None]:
    """A run's own random numbers; and what memory it cannot have, in words."""
    device = choose_device(recipe.training.device)
    products_repeat(device)  # before the device is used
    with _memory_in_words(), own_randomness(recipe.seed, device):
        yield


@contextmanager
def _memory_in_words() -> Iterator[None]:
    """torch reports memory that it cannot have by a RuntimeError, which only its text tells from others."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).lower()
        if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text:
            raise UserError(
                "there is not enough memory for this model and its batches: "
                "make the model or training.batch_size smaller"
            ) from error
        raise
