"""model.safetensors: weights, and all that is needed to predict from a raw file."""

from __future__ import annotations

import math
import shlex
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError
from torch import Tensor

from stepwell.data import preparation
from stepwell.data.augment.configs import AugmentConfig
from stepwell.data.dataset import DataSet, Kind, Task
from stepwell.errors import UserError
from stepwell.nn import registry
from stepwell.nn.beginning import Beginning
from stepwell.nn.configs import UserModel
from stepwell.nn.ensemble import Ensemble
from stepwell.nn.network import Network
from stepwell.nn.views import SHARE, Views
from stepwell.nn.without_memory import without_memory
from stepwell.recipe import Recipe
from stepwell.recipe.schema import choose
from stepwell.training import checkpoint

MOST = 1 << 28  # numbers in a sample, outputs
# What a file says of its model, each as an empty value of its type.
EMPTY: dict[str, Any] = {
    **{"recipe": {}, "preparation": {}, "fingerprint": "", "kind": "", "task": ""},
    **{"input_shape": [], "outputs": 0, "classes": [], "targets": []},
}


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
    model: Any  # the config it was built by
    loss: Any


def save(path: Path, weights: dict[str, Tensor], data: DataSet, recipe: Recipe, members: int = 1) -> str:
    """Writes the weights with all that `load` and `read_new` need to know of the data; returns the digest.

    members: of an ensemble, how many bodies of the recipe's model the weights are of (`ensemble.together`).
    """
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
        **({"members": members} if members > 1 else {}),
    }
    return checkpoint.write(path, weights, about)


def _meaning(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The part of a recipe that says what a model is and on which rows it is tested."""
    every = recipe.model_dump(include={"data": True, "model": True, "loss": True, "augment": {"test_time"}})
    other = {*checkpoint.FREE_KEYS, *(f"model.{key}" for key in Beginning.model_fields if key != "name")}
    return {
        section: {key: value for key, value in keys.items() if f"{section}.{key}" not in other}
        for section, keys in every.items()
    }


def views(augment: AugmentConfig) -> Views | None:
    """What the finished network looks at (`augment.test_time`); None: each image as it is."""
    wanted = augment.test_time
    return None if wanted is None else Views(wanted.views, wanted.share or SHARE)


def load(path: Path, recipe: Recipe, digest: str | None = None) -> Trained:
    """Builds the recipe's model and puts the file's weights into it, in evaluation mode on the CPU.

    digest: what the run's result says of the file; UserError where it is another run's.
    """
    tensors, about = read_run(path, digest)
    if changed := checkpoint.changed_keys(about["recipe"], _meaning(recipe)):
        raise UserError(
            f"{path.parent / 'recipe.yaml'} is not the one that {path.name} was trained with ({changed[0]}): "
            "put the one back that has been changed"
        )
    return build(path, tensors, about)


def read_run(path: Path, digest: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The file's tensors and what it says of them, of a run: its UserErrors say how to go on with that."""
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
    check(path, tensors, about)
    return tensors, about


def check(path: Path, tensors: dict[str, Tensor], about: Any) -> None:
    """Raises UserError where the file does not say what `build` needs, or asks for more than it holds.

    The file may be a stranger's: its digest tells damage from intention, but not whose intention it is.
    """
    found = {**EMPTY, **about} if isinstance(about, dict) else EMPTY
    recipe, shape, members = found["recipe"], found["input_shape"], found.get("members", 1)
    sound = (
        all(type(found[key]) is type(value) for key, value in EMPTY.items())
        and all(isinstance(recipe.get(section), dict) for section in {"model", "loss", *recipe})
        and 0 < len(shape) < 4
        and all(type(side) is int and 0 < side <= MOST for side in (*shape, found["outputs"]))
        and math.prod(shape) <= MOST
        and type(members) is int
        and 0 < members <= max(len(tensors), 1)
        and all(isinstance(name, str) for name in (*found["classes"], *found["targets"]))
        and found["kind"] in get_args(Kind)
        and found["task"] in get_args(Task)
        # Each entry of a list is a layer, and a layer has a weight: a longer list would build for nothing.
        and all(len(v) <= len(tensors) for v in recipe["model"].values() if isinstance(v, list))
        and preparation.is_sound(found)
    )
    if not sound:
        raise UserError(f"{path} is not the model of a run: put the run's own model.safetensors back")


def build(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> Trained:
    """Builds the model that a checked file describes and puts its tensors into it, in evaluation mode.

    Our own models have no memory until they are known to fit, so a file asks for no more than its size.
    """
    model = _config(path, "model", about)
    own = isinstance(model, UserModel)
    shape = tuple(about["input_shape"])
    with torch.random.fork_rng(devices=[]), nullcontext() if own else without_memory():
        several = [
            registry.build(model, shape, about["outputs"], about["kind"])
            for _ in range(about.get("members", 1))
        ]
        body = several[0] if len(several) == 1 else Ensemble(several, about["task"])
    statistics = [tensors.get(name) for name in ("target_mean", "target_std")]
    shift = torch.zeros_like(tensors["input_offset"]) if "input_offset" in tensors else None
    network = Network(body, about["kind"], about["task"], shift, tensors.get("input_scale"), *statistics)
    wanted = network.state_dict()
    fits = wanted.keys() == tensors.keys() and all(
        (value.shape, value.dtype) == (tensors[name].shape, tensors[name].dtype)
        for name, value in wanted.items()
    )
    if not fits:
        raise UserError(f"{path} does not fit the recipe beside it: its weights have other names or shapes")
    if not own:
        network.to_empty(device="cpu")  # in memory of its own, aligned: a file's tensors lie where they lie
    network.load_state_dict(tensors)
    network.views = _views(path, about)
    network.eval()
    told = {key: about[key] for key in ("fingerprint", "preparation", "classes", "targets", "kind", "task")}
    return Trained(network, input_shape=shape, model=model, loss=_config(path, "loss", about), **told)


def _config(path: Path, section: str, about: dict[str, Any]) -> Any:
    """The checked keys of a section as the file has them."""
    keys = about["recipe"][section]
    kind = choose(section, str(keys.get("name")))
    try:
        assert kind is not None
        return kind(**keys)
    except (AssertionError, ValidationError):
        raise UserError(f"{path}: its {section} is not one of this version of Stepwell") from None


def _views(path: Path, about: dict[str, Any]) -> Views | None:
    """The views that the file's model looks at; a stranger's file may say anything there."""
    try:
        return views(AugmentConfig(**about["recipe"].get("augment", {})))
    except (ValidationError, TypeError):
        raise UserError(f"{path}: its augment is not one of this version of Stepwell") from None
