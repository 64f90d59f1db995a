"""A folder that `stepwell push` wrote: config.json, model.safetensors and README.md, as the hub has them.

Whoever has written it, nothing in it is run, and none of its texts is taken for a path.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from stepwell.data.archive import special_kind
from stepwell.errors import UserError
from stepwell.training import checkpoint, model_file
from stepwell.training.model_file import Trained

CONFIG, MODEL, CARD = FILES = ("config.json", "model.safetensors", "README.md")
FORMAT = 1
LARGEST = 64 << 20  # bytes of a config.json or a README.md
DEEPEST = 32  # lists and mappings in each other, of which a recipe has a few
SHARED = ("task", "kind", "input_shape", "outputs", "classes", "targets", "preparation", "fingerprint")


_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Data(_Strict):
    name: str
    train: _Count | None = None
    validation: _Count | None = None
    test: _Count | None = None


class _Card(_Strict):
    name: str
    data: _Data
    task: str
    parameters: _Count
    date: str
    licence: str | None = None
    test: dict[str, Any] | None = None
    validation: dict[str, Any] | None = None


class _Config(_Strict):
    """What a card is made of; metrics that are no numbers are left out of it."""

    recipe: dict[str, Any]
    card: _Card
    versions: dict[str, Any]


@dataclass
class Pushed:
    """config: of config.json. tensors, about, digest: of model.safetensors, see `model_file`."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    about: dict[str, Any]
    digest: str


def is_pushed(folder: str | Path) -> bool:
    """Whether a folder is one of these, and no run folder."""
    path = Path(folder).expanduser()
    return (path / CONFIG).exists() and not (path / "recipe.yaml").exists()


def read_config(folder: Path) -> dict[str, Any]:
    """Reads config.json alone; UserError where it is missing, damaged or not of `stepwell push`."""
    path = folder / CONFIG
    try:
        if kind := special_kind(path):
            raise UserError(f"{path}: this is a {kind}: put the file back that stepwell push has written")
        size = path.stat().st_size
        if size > LARGEST:
            raise UserError(
                f"{path} has {size:,} bytes, far more than stepwell push writes: fetch the folder anew"
            )
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no card ({CONFIG}): name a folder that stepwell push has written"
        ) from None
    except UserError:
        raise
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{path} is damaged: fetch the folder anew") from None
    if not isinstance(config, dict) or config.get("library_name") != "stepwell":
        raise UserError(f"{path} is not of Stepwell: name a folder that stepwell push has written")
    if config.get("format") != FORMAT:
        raise UserError(f"{path} is of another version of Stepwell: fetch it anew, or use that version")
    if _deep(config):
        raise UserError(f"{path} is damaged: it is nested too deeply; fetch the folder anew")
    try:
        _Config.model_validate(config)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, found["loc"][: 1 if found["loc"][0] != "card" else None]))
        what = "is missing" if found["type"] == "missing" else "is not as stepwell push writes it"
        raise UserError(f"{path} is damaged: {place} {what}; fetch the folder anew") from None
    return config


def _deep(value: Any) -> bool:
    """Whether lists and mappings stand in each other more deeply than in any card."""
    level = [value]
    for _ in range(DEEPEST):
        level = [v for x in level for v in (x.values() if isinstance(x, dict) else x)]
        level = [x for x in level if isinstance(x, (dict, list))]
    return bool(level)


def read(folder: Path) -> Pushed:
    """Reads and verifies config.json and model.safetensors."""
    config, path = read_config(folder), folder / MODEL
    if kind := special_kind(path):
        raise UserError(f"{path}: this is a {kind}: put the file back that stepwell push has written")
    tensors, about = checkpoint.read(path)
    digest = checkpoint.digest(path)
    model_file.check(path, tensors, about)
    if ":" in str(about["recipe"]["model"].get("name")):
        raise UserError(
            f"{folder}: its model is somebody's own code, which Stepwell does not run for a file: ask for an "
            "export of it"
        )
    for key in SHARED:
        if config.get(key) != about[key]:
            raise _unfit(folder, key)
    for section, keys in about["recipe"].items():
        told = config["recipe"].get(section)
        for key, value in keys.items():
            if not isinstance(told, dict) or told.get(key) != value:
                raise _unfit(folder, f"recipe.{section}.{key}")
    if config.get("digest") != digest:
        raise UserError(
            f"{path} is not the model that {CONFIG} tells of: its digest is another; fetch the folder anew"
        )
    return Pushed(config, tensors, about, digest)


def trained(folder: Path) -> Trained:
    """The trained network of such a folder."""
    found = read(folder)
    return model_file.build(folder / MODEL, found.tensors, found.about)


def _unfit(folder: Path, key: str) -> UserError:
    return UserError(
        f"{folder / CONFIG} does not fit {MODEL} beside it ({key} differs): fetch the folder anew"
    )
