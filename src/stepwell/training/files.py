"""Writing that leaves either the old file or the new one, never half of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, then puts it in place: write, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder to put files into, which then becomes `path`, whole or not at all."""
    made = [each for each in path.parents if not each.exists()]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    _remove_left(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
        sync_folder(temporary)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for each in made:
            with suppress(OSError):
                each.rmdir()
        raise
    sync_folder(path.parent)


def _remove_left(path: Path) -> None:
    """Removes what killed processes were filling for `path`; those that live are known by their number."""
    with suppress(OSError):
        for left in list(path.parent.iterdir()):
            number = left.name.removeprefix(f".{path.name}.").removesuffix(".partial")
            if left.name == f".{path.name}.{number}.partial" and number.isdecimal() and left.is_dir():
                try:
                    os.kill(int(number), 0)
                except ProcessLookupError:
                    shutil.rmtree(left, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_json(path: Path, value: Any) -> None:
    """Strict JSON: a value that is not finite is a defect of the caller's."""
    write_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def sync_folder(folder: Path) -> None:
    """Makes a rename in this folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
