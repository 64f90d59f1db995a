"""The end of a run: choose the weights to deliver, test them, write what a finished run has."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stepwell.training import checkpoint, evaluate, files, generate, mistakes, model_file, show
from stepwell.training.environment import environment
from stepwell.training.evaluated_weights import deliver
from stepwell.training.run import Run
from stepwell.training.run_folder import RunFolder
from stepwell.training.signals import StopRequest


def finish(run: Run, folder: RunFolder, stop: StopRequest) -> dict[str, Any]:
    """Tests the delivered weights; result.json comes last, since it says that the run is whole."""
    recipe, data = run.recipe, run.data
    checkpoint.save_best(folder.checkpoints, run)
    deliver(run)
    delivered = choose_weights(run)
    single = evaluate.quick(run.network, run.sample_loss, data.validation, run.device)
    run.network.views = model_file.views(recipe.augment)  # from here on: the curves were of single images
    stop.raise_if_asked(folder.path)
    digest = model_file.save(folder.model_file, run.network.state_dict(), data, recipe)
    tested = data.test if len(data.test) else data.validation
    names = data.targets if data.task == "regression" else data.classes
    validation, notes = single, []
    if run.network.views is not None:
        validation = evaluate.quick(run.network, run.sample_loss, data.validation, run.device)
        notes = _views_that_hurt(single, validation, run.network.views.kind)
    found = None
    if len(tested):
        found = evaluate.predictions(run.network, run.sample_loss, tested, run.device)
        stop.raise_if_asked(folder.path)
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
    stop.raise_if_asked(folder.path)
    result = {
        "status": "finished",
        "name": folder.path.resolve().name,
        "task": data.task,
        "kind": data.kind,
        "updates": run.update,
        "epochs": run.epoch,
        "ended_early": run.pace.ended_early,
        "seconds": run.seconds,
        "parameters": sum(p.numel() for p in run.parameters.values()),
        **_begun(run),
        **_found(folder),
        "weights": {"delivered": delivered, "best": run.best, "digest": digest},
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
        "notes": notes,  # on the result, beside those on the data
        "environment": environment(run.device),
        "command": shlex.join(["stepwell", *sys.argv[1:]]) if is_command() else "sw.train(…)",
    }
    files.write_json(folder.result_file, result)
    return result


def choose_weights(run: Run) -> Literal["last", "best"]:
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
    if wanted == "best" or leads(*losses):
        return "best"
    run.network.load_state_dict(last)
    return "last"


def leads(last: np.ndarray, best: np.ndarray) -> bool:
    """Whether the losses (N, …) of the best weights are lower by more than chance: d̄ > s_d / √n."""
    lead = (last - best).reshape(len(last), -1).mean(1, dtype=np.float64)
    return bool(lead.mean() > lead.std(ddof=min(1, len(lead) - 1)) / len(lead) ** 0.5)


def _begun(run: Run) -> dict[str, Any]:
    """What a fine-tuned model began with, and how many of its weights were frozen for good."""
    if run.source is None:
        return {}
    every, learnt = (sum(p.numel() for p in ps) for ps in (run.network.parameters(), run.parameters.values()))
    return {
        "frozen_parameters": every - learnt,
        "from": {"model": run.source.place, "digest": run.source.digest, "notes": run.notes},
    }


def _found(folder: RunFolder) -> dict[str, Any]:
    """How optimizer.lr=auto was settled."""
    found = folder.rate()
    return {} if found is None else {"learning_rate": found}


def _views_that_hurt(single: dict[str, float], views: dict[str, float], name: str) -> list[str]:
    """A note where the average over views has the higher validation loss: it was to lower it."""
    if not single or not views or views["loss"] <= single["loss"]:
        return []
    return [
        f"augment.test_time={name} raises the validation loss from {single['loss']:.3g} to "
        f"{views['loss']:.3g}: "
        "remove it, or train with crops and flips like those"
    ]


def is_command() -> bool:
    """Whether this process is the command line's."""
    return Path(sys.argv[0]).name in ("stepwell", "__main__.py")
