"""model.safetensors: weights, and all that is needed to predict from a raw file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepwell.data.dataset import DataSet, Kind, Task
from stepwell.errors import UserError
from stepwell.nn import registry
from stepwell.nn.network import Network
from stepwell.nn.views import SHARE, Views
from stepwell.recipe import Recipe
from stepwell.training import checkpoint


@dataclass
class Trained:
    """A trained network and what its inputs and outputs mean."""

    network: Network
    fingerprint: str  # of the data it was trained on
    preparation: dict[str, Any]
    input_shape: tuple[int, ...]
    classes: list[str]
    targets: list[str]
    kind: Kind
    task: Task


def save(path: Path, weights: dict[str, Tensor], data: DataSet, recipe: Recipe) -> str:
    """Writes the weights with all that `load` and `read_new` need to know of the data; returns the digest."""
    about = {
        "recipe": _meaning(recipe),
        "fingerprint": data.fingerprint,
        "preparation": data.preparation,
        "input_shape": list(data.input_shape),
        "outputs": data.outputs,
        "classes": data.classes,
        "targets": data.targets,
        "kind": data.kind,
        "task": data.task,
    }
    return checkpoint.write(path, weights, about)


def _meaning(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The part of a recipe that says what a model is and on which rows it is tested."""
    every = recipe.model_dump(include={"data": True, "model": True, "loss": True, "augment": {"test_time"}})
    return {
        section: {key: value for key, value in keys.items() if f"{section}.{key}" not in checkpoint.FREE_KEYS}
        for section, keys in every.items()
    }


def views(recipe: Recipe) -> Views | None:
    """What the finished network looks at (`augment.test_time`); None: each image as it is."""
    wanted = recipe.augment.test_time
    return None if wanted is None else Views(wanted.views, wanted.share or SHARE)


def load(path: Path, recipe: Recipe, digest: str | None = None) -> Trained:
    """Builds the recipe's model and puts the file's weights into it, in evaluation mode on the CPU.

    digest: what the run's result says of the file; UserError where it is another run's.
    """
    command = f"stepwell train --resume {shlex.quote(str(path.parent))}"
    if not path.exists():
        raise UserError(f"{path.parent} has no model yet: finish it with {command}")
    try:
        tensors, about = checkpoint.read(path)
    except UserError as error:
        raise UserError(f"{error}; {command} writes it anew") from None
    if digest is not None and checkpoint.digest(path) != digest:
        raise UserError(
            f"{path} is not the model that result.json tells of: put the run's own back, "
            f"or write it anew with {command}"
        )
    if "input_shape" not in about:
        raise UserError(f"{path} is not the model of a run: put the run's own model.safetensors back")
    if changed := checkpoint.changed_keys(about["recipe"], _meaning(recipe)):
        raise UserError(
            f"{path.parent / 'recipe.yaml'} is not the one that {path.name} was trained with ({changed[0]}): "
            "put the one back that has been changed"
        )
    shape = tuple(about["input_shape"])
    with torch.random.fork_rng(devices=[]):
        body = registry.build(recipe.model, shape, about["outputs"], about["kind"])
    statistics = [tensors.get(name) for name in ("target_mean", "target_std")]
    shift = torch.zeros_like(tensors["input_offset"]) if "input_offset" in tensors else None
    network = Network(body, about["kind"], about["task"], shift, tensors.get("input_scale"), *statistics)
    try:
        network.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(f"{path} does not fit the recipe beside it: its weights have other shapes") from None
    network.views = views(recipe)
    network.eval()
    told = {key: about[key] for key in ("fingerprint", "preparation", "classes", "targets", "kind", "task")}
    return Trained(network, input_shape=shape, **told)
