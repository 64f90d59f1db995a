"""`train`: from a recipe to a finished run folder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from stepwell.data import counter, sources
from stepwell.errors import UserError
from stepwell.recipe import Recipe, read_recipe, resolve
from stepwell.training import checkpoint, evaluate, files, generate, mistakes, model_file, show, trackers
from stepwell.training.conductor import Conductor
from stepwell.training.environment import environment
from stepwell.training.loop import fit
from stepwell.training.progress import Progress
from stepwell.training.run import Run, own_randomness
from stepwell.training.run_folder import RunFolder
from stepwell.training.signals import StopRequest, stop_on_signals


class Interrupted(Exception):
    """Training was asked to stop and has saved; `signal` is what asked."""

    def __init__(self, signal: int, folder: Path) -> None:
        super().__init__(f"stopped and saved; go on with: stepwell train --resume {shlex.quote(str(folder))}")
        self.signal = signal


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
        if result is not None:
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
    try:
        return _train_and_finish(run, folder, loaded, tracking, quiet)
    except OSError as error:
        ours = error.filename is None or str(error.filename).startswith(str(folder.path))
        what = (error.strerror or str(error)).lower()
        raise UserError(
            f"{folder.path if ours else error.filename}: {what}; mend this and go on with "
            f"stepwell train --resume {folder.path}"
        ) from error


def _train_and_finish(
    run: Run,
    folder: RunFolder,
    loaded: checkpoint.Loaded | None,
    tracking: list[trackers.Tracker],
    quiet: bool,
) -> dict[str, Any]:
    with stop_on_signals() as stop, _threads(run):
        conductor = Conductor(run, folder, stop, loaded, tracking)
        try:
            with Progress(conductor.state, quiet) as progress:
                conductor.progress = progress
                for note in [*(run.data.notes if loaded is None else []), *(loaded.notes if loaded else [])]:
                    progress.say(f"Note: {note.rstrip('.')}.")
                fit(run, conductor)
            _raise_if_stopped(stop, folder)
            conductor.save()
        finally:
            conductor.close()
        return _finish(run, folder)


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


def _raise_if_stopped(stop: StopRequest, folder: RunFolder) -> None:
    if stop.signal is not None:
        raise Interrupted(stop.signal, folder.path)


def _finish(run: Run, folder: RunFolder) -> dict[str, Any]:
    """Tests the delivered weights; result.json comes last, since it says that the run is whole."""
    recipe, data = run.recipe, run.data
    checkpoint.save_best(folder.checkpoints, run)
    delivered = _choose_weights(run)
    model_file.save(folder.model_file, run.network.state_dict(), data)
    tested = data.test if len(data.test) else data.validation
    names = data.targets if data.task == "regression" else data.classes
    validation = evaluate.quick(run.network, run.sample_loss, data.validation, run.device)
    found = None
    if len(tested):
        found = evaluate.predictions(run.network, run.sample_loss, tested, run.device)
        record = mistakes.evaluation_record(
            data.task,
            found.outputs,
            found.targets,
            found.loss,
            data.classes,
            data.targets,
            tested.rows,
            show.shower(data, tested, recipe.data.name),
        )
        if data.kind == "text":
            record["samples"] = generate.samples(run.network, data, tested, run.device, recipe.seed)
        files.write_json(folder.evaluation_file, record)
    result = {
        "status": "finished",
        "name": folder.path.resolve().name,
        "task": data.task,
        "kind": data.kind,
        "updates": run.update,
        "epochs": run.epoch,
        "seconds": run.seconds,
        "parameters": sum(p.numel() for p in run.parameters.values()),
        "weights": {"delivered": delivered, "best": run.best},
        "roll_backs": run.roll_backs,
        "data": {
            "name": data.name,
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
            "notes": data.notes,
        },
        "validation": validation,
        "test": evaluate.full(found, data.task, names, recipe.seed) if found and tested is data.test else {},
        "classes": data.classes,
        "environment": environment(run.device),
        "command": shlex.join(["stepwell", *sys.argv[1:]]) if _is_command() else "sw.train(…)",
    }
    files.write_json(folder.result_file, result)
    return result


def _choose_weights(run: Run) -> Literal["last", "best"]:
    """Puts the weights to deliver into the network: by `training.weights` "last", "best" or "auto".

    auto: the best ones, if the validation loss of the last ones is higher by more than one standard
    error of the paired difference, d̄ > s_d / √n. A lowest point among many evaluations is partly luck,
    so a lead within the noise of the validation part is no reason to give up the later weights.
    """
    wanted, validation = run.recipe.training.weights, run.data.validation
    if wanted == "last" or not run.best_weights or run.best["update"] == run.update:
        return "last"
    last = {name: value.clone() for name, value in run.weights().items()}
    losses = []
    for weights in (last, run.best_weights):
        run.network.load_state_dict(weights)
        losses.append(evaluate.predictions(run.network, run.sample_loss, validation, run.device).loss)
    lead = (losses[0] - losses[1]).reshape(len(validation), -1).mean(1, dtype=np.float64)
    if wanted == "best" or lead.mean() > lead.std(ddof=min(1, len(lead) - 1)) / len(lead) ** 0.5:
        return "best"
    run.network.load_state_dict(last)
    return "last"


def _is_command() -> bool:
    return Path(sys.argv[0]).name in ("stepwell", "__main__.py")
