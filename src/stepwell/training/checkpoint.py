"""Checkpoints: one safetensors file each, whole or not there, with a digest of what it holds."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stepwell.errors import UserError
from stepwell.training import files
from stepwell.training.environment import environment
from stepwell.training.reproducible import random_state, restore_random_state
from stepwell.training.run import Run
from stepwell.training.snapshot import Snapshot

FORMAT = "1"

# Where the data lies, and what leaves the numbers alone: may be changed in the recipe of a run.
FREE_KEYS = {
    *("data.name", "data.workers", "data.in_memory", "model.from"),
    *("training.device", "training.track", "training.keep_checkpoints"),
}


def save(folder: Path, run: Run, good: Snapshot, extra: dict[str, Any], keep: int) -> Path:
    """Writes the run's whole state; keeps the last `keep` checkpoints and the best weights.

    good: the state that a roll-back returns to. It is written too where it is not the present state,
    so that a resumed run rolls back to where the uninterrupted one would.
    extra: JSON values for the caller's own use on resume.
    """
    tensors = dict(run.live)
    tensors |= {f"random.{name}": value for name, value in random_state(run.device).items()}
    tensors |= {f"units.{name}": value for name, value in run.units.counts.items()}
    own, closure = run.closure_state()
    tensors |= own
    if good.update != run.update:
        tensors |= {f"good.{name}": value for name, value in good.tensors.items()}
        tensors |= {f"good.random.{name}": value for name, value in good.random.items()}
        tensors |= {f"good.{name}": value for name, value in good.closure[0].items()}
    if run.pending:
        tensors["pending"] = torch.stack([torch.stack(pair).double() for pair in run.pending])
    state = {
        "update": run.update,
        "steps": [engine.steps for engine in run.optimizer.engines()],
        "good": {
            "update": good.update,
            "steps": good.steps,
            "scaler": good.scaler,
            "closure": good.closure[1],
            "pace": good.pace,
        },
        "closure": closure,
        "rate_factor": run.rate_factor,
        "pace": run.pace.state(),
        "roll_backs": run.roll_backs,
        "rolled_back_to": run.rolled_back_to,
        "skipped": int(run.skipped),
        "time_is_up": run.time_is_up,
        "seconds": run.seconds,
        "progress": run.progress,
        "best": run.best,
        "scaler": run.scaler.state_dict() if run.scaler is not None else None,
        "data": run.data.fingerprint,
        "recipe": run.recipe.model_dump(),
        "environment": environment(run.device),
        **extra,
    }
    save_best(folder, run)
    path = folder / f"update-{run.update:09d}.safetensors"
    write(path, tensors, state)
    every = sorted(folder.glob("update-*.safetensors"))
    for old in every[:-keep]:
        old.unlink()
    best = list(folder.glob("best-*.safetensors"))
    if len(best) > 1:  # an older checkpoint that is kept may name older weights, and needs them
        named = {best_file(folder, _best_update(kept)) for kept in every[-keep:]}
        for old in set(best) - named:
            old.unlink()
    return path


def _best_update(path: Path) -> int:
    """The update of the best weights that a checkpoint names; -1 where it names none or is damaged."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads(_about(file)["state"])["best"].get("update", -1)
    except (SafetensorError, KeyError, ValueError, OSError):
        return -1


def forget_after(folder: Path, update: int) -> None:
    """Removes checkpoints of a future that a roll-back has given up."""
    for kind in ("update", "best"):
        for path in folder.glob(f"{kind}-*.safetensors"):
            if int(path.stem.partition("-")[2]) > update:
                path.unlink()


def save_best(folder: Path, run: Run) -> None:
    """Writes the best weights, if they are newer than the file; the checkpoint that names them follows."""
    if run.best_weights:
        path = best_file(folder, run.best["update"])
        if not path.exists():
            write(path, run.best_weights, run.best)


def best_file(folder: Path, update: int) -> Path:
    """The file of the best weights, those of this update."""
    return folder / f"best-{update:09d}.safetensors"


@dataclass
class Loaded:
    """What `load` found: the state to roll back to and the caller's own values; `notes` for the user."""

    good: Snapshot
    state: dict[str, Any]
    notes: list[str]


def load(folder: Path, run: Run) -> Loaded | None:
    """Puts the run into the state of the newest whole checkpoint; None where there is none.

    A damaged checkpoint is passed over and named in the notes; UserError where all are damaged, or
    where the data is not what the run was started with.
    """
    paths = sorted(folder.glob("update-*.safetensors"), reverse=True)
    notes = []
    for path in paths:
        try:
            tensors, state = read(path)
        except UserError as error:
            notes.append(str(error))
            continue
        if changed := changed_keys(state["recipe"], run.recipe.model_dump()):
            raise UserError(
                f"recipe.yaml has been changed since this run began ({changed[0]}): put it back, or start a "
                "new run with the new values"
            )
        if state["data"] != run.data.fingerprint:
            raise UserError(
                f"{run.data.name} has changed since this run began: put the data back, or start a new run"
            )
        try:
            return _restore(run, tensors, state, folder, notes)
        except UserError as error:  # the file of the best weights is damaged
            notes.append(str(error))
        except (KeyError, ValueError, RuntimeError):
            raise UserError(
                f"{path} does not fit the recipe beside it: put recipe.yaml back, or start a new run"
            ) from None
    if paths:
        raise UserError(f"{'; '.join(notes)}; no other checkpoint is left, so start a new run")
    return None


def changed_keys(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of a recipe is not as it was, but for FREE_KEYS."""
    found = []
    for section, values in json.loads(json.dumps(now)).items():
        old = before.get(section)
        pairs = values.items() if isinstance(values, dict) else [("", values)]
        for key, value in pairs:
            name = f"{section}.{key}".rstrip(".")
            was = old.get(key) if isinstance(old, dict) else old
            if was != value and name not in FREE_KEYS:
                found.append(f"{name} was {was}")
    return found


def _restore(
    run: Run, tensors: dict[str, Tensor], state: dict[str, Any], folder: Path, notes: list[str]
) -> Loaded:
    if {name for name in tensors if name.startswith(("model.", "optimizer."))} != run.live.keys():
        raise ValueError("another model or optimizer")
    with torch.no_grad():
        for name, value in run.live.items():
            if tensors[name].shape != value.shape:  # copy_ would spread a single value
                raise ValueError(f"{name} has another shape")
            value.copy_(tensors[name])
    for engine, steps in zip(run.optimizer.engines(), state["steps"], strict=True):
        engine.steps[:] = steps
    run.load_closure_state(tensors, state["closure"])
    run.units.counts = {name: value.to(run.device) for name, value in _below("units.", tensors).items()}
    restore_random_state(_below("random.", tensors), run.device)
    run.update, run.rate_factor, run.roll_backs = state["update"], state["rate_factor"], state["roll_backs"]
    run.rolled_back_to = state["rolled_back_to"]
    run.pace.load(state["pace"])
    run.skipped.fill_(state["skipped"])
    run.time_is_up = state["time_is_up"]
    run.seconds_before, run.progress, run.best = state["seconds"], state["progress"], state["best"]
    run.pending = [(pair[0].to(run.device), pair[1].to(run.device)) for pair in tensors.get("pending", ())]
    if run.scaler is not None:
        run.scaler.load_state_dict(state["scaler"])
    if run.best:
        run.best_weights, _ = read(best_file(folder, run.best["update"]))
    good = Snapshot.of(run)
    if state["good"]["update"] != run.update:
        kept = _below("good.", tensors)
        good.tensors = {name: kept[name].to(value.device) for name, value in good.tensors.items()}
        good.random = _below("random.", kept)
        good.update, good.steps = state["good"]["update"], state["good"]["steps"]
        good.scaler = state["good"]["scaler"]
        good.closure = kept, state["good"]["closure"]
        good.pace = state["good"]["pace"]
    return Loaded(good, state, notes)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def write(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> str:
    """Writes tensors and JSON values into one file, at once or not at all; returns their digest."""
    whole = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    text = json.dumps(state, allow_nan=False)
    # One entry: safetensors writes several in an order that differs from process to process.
    found = _digest(whole, text)
    about = json.dumps({"format": FORMAT, "digest": found, "state": text})
    files.write_atomically(path, lambda temporary: _save(whole, temporary, {"stepwell": about}))
    return found


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:  # how it reports a full disk; the system's number is in its text
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error
    # safetensors makes files that only their owner can read; others' rights follow the umask, as usual.
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `write` wrote; UserError where the file is not whole."""
    try:
        with safe_open(path, "pt") as file:
            about = _about(file)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if about["digest"] != _digest(tensors, about["state"]):
            raise UserError(f"{path} is damaged: its content does not match its digest")
        return tensors, json.loads(about["state"])
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged or was not written by Stepwell") from None


def digest(path: Path) -> str:
    """The digest that a whole file was written with."""
    with safe_open(path, "pt") as file:
        return _about(file)["digest"]


def _about(file: Any) -> dict[str, str]:
    return json.loads((file.metadata() or {})["stepwell"])


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    """A digest of names, shapes, types, bytes and text: damage that leaves the file readable is seen."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        if value.numel():
            digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
