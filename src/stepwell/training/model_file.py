"""model.safetensors: weights, and all that is needed to predict from a raw file."""

from __future__ import annotations

import json
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
from stepwell.recipe import Recipe
from stepwell.training import checkpoint


@dataclass
class Trained:
    """A trained network and what its inputs and outputs mean."""

    network: Network
    preparation: dict[str, Any]
    input_shape: tuple[int, ...]
    classes: list[str]
    targets: list[str]
    kind: Kind
    task: Task


def save(path: Path, weights: dict[str, Tensor], data: DataSet, recipe: Recipe) -> str:
    """Writes the weights with all that `load` and `read_new` need to know of the data; returns the digest."""
    about = {
        "model": recipe.model.model_dump(),
        "preparation": data.preparation,
        "input_shape": list(data.input_shape),
        "outputs": data.outputs,
        "classes": data.classes,
        "targets": data.targets,
        "kind": data.kind,
        "task": data.task,
    }
    return checkpoint.write(path, weights, about)


def load(path: Path, recipe: Recipe, digest: str | None = None) -> Trained:
    """Builds the recipe's model and puts the file's weights into it, in evaluation mode on the CPU.

    digest: what the run's result says of the file; UserError where it is another run's.
    """
    if not path.exists():
        command = f"stepwell train --resume {shlex.quote(str(path.parent))}"
        raise UserError(f"{path.parent} has no model yet: finish it with {command}")
    tensors, about = checkpoint.read(path)
    if digest is not None and checkpoint.digest(path) != digest:
        raise UserError(f"{path} is not the model that result.json tells of: put the run's own back")
    if "input_shape" not in about:
        raise UserError(f"{path} is not the model of a run: put the run's own model.safetensors back")
    if about["model"] != json.loads(json.dumps(recipe.model.model_dump())):
        raise UserError(
            f"the section model of {path.parent / 'recipe.yaml'} is not that of model.safetensors: put the "
            "one back that has been changed"
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
    network.eval()
    return Trained(
        network, about["preparation"], shape, about["classes"], about["targets"], about["kind"], about["task"]
    )
