"""`train`: from a recipe to a finished run folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from stepwell.data import counter, sources
from stepwell.errors import UserError
from stepwell.recipe import Recipe, read_recipe, resolve
from stepwell.training import checkpoint, trackers
from stepwell.training.conductor import Conductor
from stepwell.training.finish import finish
from stepwell.training.loop import fit
from stepwell.training.progress import Progress
from stepwell.training.run import Run, own_randomness
from stepwell.training.run_folder import RunFolder
from stepwell.training.signals import stop_on_signals


def train(
    recipe: str | Path | Recipe | None = None,
    changes: Mapping[str, Any] | None = None,
    out: str | None = None,
    quiet: bool = False,
) -> tuple[dict[str, Any], Path]:
    """Trains what the recipe says, with `changes` over it; returns the result and the run folder.

    recipe: a YAML file, a Recipe, or None for the default (an MLP on digits). changes: keys as on the
    command line, {"optimizer.lr": 0.01}. out: the run folder (default: a new one below runs/).

    Raises UserError before anything is written if something is wrong; Diverged if losses or gradients
    stay non-finite; Interrupted when a signal asked to stop.
    """
    if isinstance(recipe, Recipe) and changes:
        raise TypeError("changes go over a recipe file; a Recipe is whole")
    asked = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, changes)
    trackers.require_installed(asked.training.track)
    data = sources.load(asked.data)
    whole = resolve(asked, data)
    with own_randomness(counter.key(whole.seed, 3)), _memory_in_words():
        run = Run(whole, data)
        folder = RunFolder.create(out, whole)
        try:
            folder.save_recipe(whole)
            tracking = trackers.start(whole.training.track, folder.path, whole.model_dump())
        except BaseException:
            folder.discard()
            raise
        try:
            return _conduct(run, folder, None, tracking, quiet), folder.path
        finally:
            folder.close()


def resume(path: str | Path, quiet: bool = False) -> tuple[dict[str, Any], bool]:
    """Goes on with an interrupted run to its end; returns the result, and whether it was finished before.

    The end is bit for bit that of an uninterrupted run, on the same machine with the same versions.
    """
    folder = RunFolder.open(path)
    try:
        result = folder.result()
        if result is not None and folder.model_file.exists():
            return result, True
        recipe = folder.recipe()
        data = sources.load(recipe.data)
        with own_randomness(counter.key(recipe.seed, 3)), _memory_in_words():
            run = Run(recipe, data)
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
    with _disk_in_words(folder), stop_on_signals() as stop, _threads(run):
        conductor = Conductor(run, folder, stop, loaded, tracking)
        try:
            conductor.save()  # from the first moment: a changed data file or recipe is noticed
            with Progress(conductor.state, quiet) as progress:
                conductor.progress = progress
                for note in [*(run.data.notes if loaded is None else []), *(loaded.notes if loaded else [])]:
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


@contextmanager
def _threads(run: Run) -> Iterator[None]:
    """One thread for a small network, by the recipe alone, so that a resumed run computes alike."""
    before = torch.get_num_threads()
    if run.is_small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _memory_in_words() -> Iterator[None]:
    """torch reports memory that cannot be had by a RuntimeError, which only its text tells from others."""
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
