"""Hugging Face's hub, through `huggingface_hub` where that is installed."""

from __future__ import annotations

import re
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stepwell.errors import UserError
from stepwell.nn.beginning import HUB as PREFIX

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_OWN = ".gitattributes"  # which the hub puts into each repository


def download(place: str, folder: Path, names: tuple[str, ...]) -> None:
    """Fetches these files of hf:ORG/NAME into the folder; one that the model does not have is left out."""
    package, name = _package(place), _name(place)
    try:
        there = set(package.HfApi().list_repo_files(name))
        for file in names:
            if file in there:
                shutil.copyfile(package.hf_hub_download(name, file), folder / file)
    except Exception as error:  # of the network, the hub, or the rights there
        raise UserError(f"{place} cannot be fetched from the hub ({_first_line(error)})") from error


def upload(folder: Path, place: str) -> None:
    """Makes the model hf:ORG/NAME of a folder, in one commit; UserError where there is one already.

    A repository without a file but the hub's own is what a failed upload leaves, and is filled.
    """
    package, name = _package(place), _name(place)
    api = package.HfApi()
    try:
        there = api.repo_exists(name)
        taken = there and not set(api.list_repo_files(name)) <= {_OWN}
        if not there:
            api.create_repo(name)
        if not taken:
            api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="stepwell push")
    except Exception as error:
        raise UserError(f"{place} cannot be written to the hub ({_first_line(error)})") from error
    if taken:
        raise UserError(f"{place} is in the hub already: choose another name, or delete it there")


def _package(place: str) -> Any:
    if find_spec("huggingface_hub") is None:
        raise UserError(f"{place} needs the package huggingface_hub: pip install huggingface_hub")
    return import_module("huggingface_hub")


def _name(place: str) -> str:
    name = place.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise UserError(f"{place} is no name in the hub: give {PREFIX}ORG/NAME")
    return name


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
