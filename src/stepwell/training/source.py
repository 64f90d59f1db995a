"""Finds the trained model that `model.from` names, and settles the recipe by it."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from stepwell.errors import UserError
from stepwell.nn.beginning import Beginning
from stepwell.nn.ensemble import Ensemble
from stepwell.recipe import Recipe, complaints
from stepwell.recipe.schema import THE_SOURCES, choose
from stepwell.training import checkpoint, hub, model_file, pushed
from stepwell.training.run_folder import RunFolder, existing
from stepwell.training.transfer import Source

# Keys that leave a body's weights as they are, so that they may be others than the source's.
FREE = {*Beginning.model_fields, "dropout", "stochastic_depth", "init"} - {"name"}


def settle(recipe: Recipe) -> tuple[Recipe, Source | None]:
    """Returns the recipe with the model that its source has, and the source; None without `model.from`.

    Raises UserError where there is no such model, or where a key of `model` contradicts it.
    """
    place = getattr(recipe.model, "from")
    if place is None:
        return recipe, None
    source = find(place)
    given = {key: getattr(recipe.model, key) for key in recipe.model.model_fields_set}
    theirs = source.about["recipe"]["model"]
    if given.get("name", THE_SOURCES) not in (THE_SOURCES, theirs["name"]):
        raise UserError(
            f"model.name={given['name']} contradicts model.from, whose model is {theirs['name']}: "
            "leave it out"
        )
    kind = choose("model", theirs["name"])
    assert kind is not None  # `find` has checked it
    try:
        model = kind(**{**theirs, **given, "name": theirs["name"]})
        before = kind(**theirs).model_dump()
    except ValidationError as error:
        raise UserError(complaints.sentence("model", kind, error, theirs["name"])) from None
    for key, value in model.model_dump().items():
        if key not in FREE and value != before[key]:
            raise UserError(
                f"model.{key}={_shown(value)} contradicts model.from, whose model has {_shown(before[key])}: "
                "leave it out"
            )
    return recipe.model_copy(update={"model": model}), source


def _shown(value: Any) -> Any:
    """A setting as one would write it: its first value, and the others behind it."""
    if not isinstance(value, dict) or not value:
        return value
    first, *others = value.items()
    return ", ".join([str(first[1]), *(f"{name} {one}" for name, one in others)])


def find(place: str) -> Source:
    """The trained model of a run folder, a pushed folder or hf:ORG/NAME."""
    if place.startswith(hub.PREFIX):
        with tempfile.TemporaryDirectory() as folder:
            hub.download(place, Path(folder), pushed.FILES)
            return _of_pushed(place, Path(folder))
    if pushed.is_pushed(place):
        return _of_pushed(place, Path(place))
    if not Path(place).exists():
        raise UserError(
            f"model.from: {place} does not exist: name a run folder, one that stepwell push has written, or "
            "hf:ORG/NAME"
        )
    folder = existing(place)
    result = folder.result()
    if result is None:
        command = f"stepwell train --resume {shlex.quote(place)}"
        raise UserError(f"model.from: {place} is not finished: go on with it first by {command}")
    digest = result["weights"].get("digest")
    tensors, about = model_file.read_run(folder.model_file, digest)
    return _source(place, folder.model_file, tensors, about, str(digest))


def _of_pushed(place: str, folder: Path) -> Source:
    found = pushed.read(folder)
    return _source(place, folder / pushed.MODEL, found.tensors, found.about, found.digest)


def _source(place: str, file: Path, tensors: dict[str, Tensor], about: dict[str, Any], digest: str) -> Source:
    """Builds the source's model, since the file has its tensors by name and not in their order."""
    network = model_file.build(file, tensors, about).network
    if isinstance(network.body, Ensemble):
        raise UserError(
            f"model.from: {place} is an ensemble of {len(network.body.members)} models, and one body is "
            "needed: name a single run, or an ensemble of --kind average or soup, which is one"
        )
    return Source(place, network.state_dict(), about, digest)


def keep(source: Source | None, folder: RunFolder) -> None:
    """Writes the source into the run's own folder, so that the run no longer needs it where it was."""
    if source is not None:
        about = {"place": source.place, "digest": source.digest, "about": source.about}
        checkpoint.write(folder.source_file, source.tensors, about)


def kept(recipe: Recipe, folder: RunFolder) -> Source | None:
    """The source of a run that has begun; None where it has none."""
    if getattr(recipe.model, "from") is None:
        return None
    if not folder.source_file.exists() and not any(folder.checkpoints.glob("*.safetensors")):
        source = find(getattr(recipe.model, "from"))  # it was stopped before it had written its own
        keep(source, folder)
        return source
    try:
        tensors, told = checkpoint.read(folder.source_file)
        return _source(told["place"], folder.source_file, tensors, told["about"], told["digest"])
    except (UserError, KeyError):
        raise UserError(
            f"{folder.source_file}, the weights that this run began with, is missing or damaged: put it "
            "back, or start a new run"
        ) from None
