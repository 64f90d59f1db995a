"""Gives a trained model away, and takes one: a folder, or the hub, in Hugging Face's layout."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepwell.data.archive import special_kind
from stepwell.errors import UserError
from stepwell.recipe.read import read_yaml
from stepwell.sharing.card import UNKNOWN, facts_of, plain
from stepwell.sharing.readme import readme
from stepwell.training import checkpoint, files, hub, model_file, pushed
from stepwell.training.run_folder import existing

_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+-]{0,39}", re.ASCII)


def push(run: str | Path, to: str, licence: str | None = None) -> dict[str, Any]:
    """Writes config.json, model.safetensors and README.md of a finished run to a new folder, or to the hub.

    run: a run folder, or a folder that was pushed or pulled before. to: a folder that does not exist yet, or
    hf:ORG/NAME. licence: its name, "mit" say; by default the one of before, or "unknown". The folder
    appears once it is whole.

    Paths of this machine stay here: of data and source only the names are written.

    Returns {"to", "digest", "licence", "notes"}.
    """
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UserError(
            f"--licence {licence!r:.60} is no licence's name: give mit, apache-2.0 or cc-by-4.0, say"
        )
    config, tensors, about = _contents(Path(run).expanduser())
    card = config["card"]
    card["licence"] = licence or card.get("licence") or UNKNOWN

    def write(folder: Path) -> None:
        config["digest"] = checkpoint.write(folder / pushed.MODEL, tensors, about)
        files.write_json(folder / pushed.CONFIG, config)
        files.write_text(folder / pushed.CARD, readme(config))

    if to.startswith(hub.PREFIX):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            hub.upload(Path(folder), to)
    else:
        with _new_folder(to) as folder:
            write(folder)
    notes = []
    if card["licence"] == UNKNOWN:
        notes = ["no licence is given, so nobody but you may use it: choose one with --licence, such as mit"]
    return {"to": to, "digest": config["digest"], "licence": card["licence"], "notes": notes}


def pull(source: str, to: str | Path) -> dict[str, Any]:
    """Copies a pushed model into a new folder, verified; a failed pull leaves nothing.

    source: a folder that `push` wrote, or hf:ORG/NAME. Exactly three files are taken, and none of what
    they say is run or taken for a path.

    Returns {"to", "digest", "name", "notes"}.
    """
    inside = Path(to).expanduser().absolute()
    if not source.startswith(hub.PREFIX) and Path(source).expanduser().absolute() in inside.parents:
        raise UserError(f"{to} lies inside {source}, which it is to be a copy of: choose a folder beside it")
    with _new_folder(str(to)) as folder:
        if source.startswith(hub.PREFIX):
            hub.download(source, folder, pushed.FILES)
        else:
            _copy(Path(source).expanduser(), folder)
        try:
            config = pushed.read_config(folder)
            pushed.trained(folder)
        except UserError as error:  # the copy is verified, and named as what it is a copy of
            raise UserError(str(error).replace(str(folder), source)) from None
        card = folder / pushed.CARD
        if not card.exists():
            files.write_text(card, readme(config))
    return {"to": str(to), "digest": config["digest"], "name": plain(config["card"]["name"], 80), "notes": []}


def _contents(run: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """config.json but for licence and digest, the weights, and what their file says of them."""
    if pushed.is_pushed(run):
        found = pushed.read(run)
        model_file.build(run / pushed.MODEL, found.tensors, found.about)  # what does not fit is not passed on
        return found.config, found.tensors, found.about
    try:
        facts = facts_of(run)
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{run}: its result.json is damaged: train again, or put it back") from None
    if not isinstance(facts["digest"], str) or not isinstance(facts["environment"], dict):
        raise UserError(f"{run}: its result.json does not say which model it is of: put it back")
    folder = existing(run)
    tensors, about = model_file.read_run(folder.model_file, facts["digest"])
    name = about["recipe"]["model"]["name"]
    if ":" in name:
        raise UserError(
            f"{run}: its model is your own code ({name}), which such a folder cannot hold: give away an "
            "export (stepwell export, .pt2 or .onnx)"
        )
    recipe = read_yaml(folder.recipe_file)
    for section, keys in about["recipe"].items():  # as the weights' file has them, to the last digit
        recipe[section] = {**recipe.get(section, {}), **keys}
    for section, key in (("data", "name"), ("model", "from")):
        if recipe[section].get(key) is not None:
            recipe[section][key] = Path(str(recipe[section][key])).name
    versions = facts.pop("environment")
    return (
        {
            "library_name": "stepwell",
            "format": pushed.FORMAT,
            "versions": {key: versions.get(key) for key in ("stepwell", "python", "torch")},
            "recipe": recipe,
            **{key: about[key] for key in pushed.SHARED},
            "card": facts,
        },
        tensors,
        about,
    )


def _copy(source: Path, folder: Path) -> None:
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise UserError(f"{source} {what}: name a folder that stepwell push has written, or hf:ORG/NAME")
    if (source / "recipe.yaml").exists():
        raise UserError(
            f"{source} is a run folder, which is to be pushed first: stepwell push {source} FOLDER"
        )
    if not any(source.iterdir()):
        raise UserError(f"{source} is empty: name a folder that stepwell push has written")
    pushed.read_config(source)  # that it is one at all, before anything is copied
    for name in pushed.FILES:
        if kind := special_kind(source / name):
            raise UserError(
                f"{source / name}: this is a {kind}: name a folder that stepwell push has written"
            )
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


@contextmanager
def _new_folder(to: str) -> Iterator[Path]:
    """`files.new_folder`, for a place that the user has named."""
    path = Path(to).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise UserError(f"{to}: there is a file of this name; choose a new folder")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{to}: there is a folder of this name already; choose a new one, or remove it")
    try:
        with files.new_folder(path) as folder:
            yield folder
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"{to} cannot be written ({(error.strerror or str(error)).lower()}): choose another folder"
        ) from error
