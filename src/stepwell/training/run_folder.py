"""The run folder: what lies in it, and that only one process writes there."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from stepwell.errors import UserError
from stepwell.recipe import Recipe, read_recipe, write_yaml
from stepwell.training import files

# What result.json must have for a run to count as finished.
RESULT: dict[str, type] = {
    **{"status": str, "task": str, "updates": int, "seconds": float, "parameters": int},
    **{"data": dict, "weights": dict, "validation": dict, "test": dict},
}


class RunFolder:
    """The folder of one run, locked for this process until `close`."""

    verb, noun = "train", "a run"  # what writes it, and what is in it

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / "recipe.yaml"
        self.rate_file = path / "learning-rate.json"  # how optimizer.lr=auto was settled
        self.metrics_file = path / "metrics.jsonl"
        self.timing_file = path / "timing.jsonl"
        self.model_file = path / "model.safetensors"
        self.source_file = path / "from.safetensors"  # the weights it began with, if they were trained ones
        self.result_file = path / "result.json"
        self.evaluation_file = path / "evaluation.json"
        self.checkpoints = path / "checkpoints"
        self._lock_file = path / ".lock"
        self._lock: int | None = None
        self._made: list[Path] = []  # what `create` made, the run folder first

    @classmethod
    def create(cls, out: str | None, recipe: Recipe) -> Self:
        """Makes the folder `out`, or runs/NAME with a number if there is one; refuses one that has a run."""
        path = Path("runs" if out is None else out).expanduser()
        if path.exists() and not path.is_dir():
            raise UserError(f"--out {path}: there is a file of this name; choose another folder")
        folder = cls(path)
        folder._made = [each for each in (folder.path, *folder.path.parents) if not each.exists()]
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            if out is None:
                made, folder = folder._made, cls(_new_name(cls.stem(recipe)))
                folder._made = [folder.path, *made]
            if not folder._lock_file.exists():
                _refuse_used(folder)  # before the lock is written into a folder that is not ours
            folder._take_lock()
            _refuse_used(folder)
            folder.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            folder.discard()
            raise UserError(
                f"the run folder {folder.path} cannot be made ({(error.strerror or str(error)).lower()}): "
                "choose another --out"
            ) from None
        except UserError:
            folder.close()
            raise
        return folder

    @classmethod
    def stem(cls, recipe: Recipe) -> str:
        """DATA-MODEL, the name of a new folder in runs/."""
        return f"{Path(recipe.data.name).name.split('.')[0]}-{recipe.model.name.rpartition(':')[2]}"

    def discard(self) -> None:
        """Removes what `create` made, where the run could not begin."""
        if self._lock is not None:
            for file in (self.rate_file, self.recipe_file, self.source_file, self._lock_file):
                file.unlink(missing_ok=True)
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.close()
        for made in self._made:
            with suppress(OSError):  # it is not empty: another run has begun there meanwhile
                made.rmdir()

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Opens a run to go on with it."""
        folder = existing(path)
        folder._take_lock()
        folder.checkpoints.mkdir(exist_ok=True)
        for place in (folder.path, folder.checkpoints):
            for partial in place.glob(".*.partial"):  # what a killed process was writing
                partial.unlink()
        return folder

    def save_recipe(self, recipe: Recipe) -> None:
        files.write_text(self.recipe_file, write_yaml(recipe))

    def save_rate(self, found: dict[str, Any] | None) -> None:
        """None: also where a process was killed here before its run began, and this one has a rate."""
        if found is None:
            self.rate_file.unlink(missing_ok=True)
        else:
            files.write_json(self.rate_file, found)

    def rate(self) -> dict[str, Any] | None:
        """How optimizer.lr=auto was settled; None where the recipe had a rate."""
        try:
            return json.loads(self.rate_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def recipe(self) -> Recipe:
        return read_recipe(self.recipe_file)

    def result(self) -> dict[str, Any] | None:
        """The result of a finished run; None where the run has not ended."""
        try:
            result = json.loads(self.result_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            result = None
        if not isinstance(result, dict) or any(type(result.get(k)) is not kind for k, kind in RESULT.items()):
            again = f"stepwell train --resume {shlex.quote(str(self.path))}"
            raise UserError(f"{self.result_file} is damaged: remove it and go on with {again}")
        return result

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        # The kernel drops the lock with the process, however that ends.
        self._lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UserError(
                f"another process is training in {self.path}: wait for it, or choose another --out"
            ) from None
        except OSError as error:
            self.close()
            raise UserError(
                f"{self._lock_file} cannot be locked ({(error.strerror or str(error)).lower()}): "
                "choose an --out on a disk of this machine"
            ) from None


def _refuse_used(folder: RunFolder) -> None:
    """Refuses a folder that has a run or anything else in it."""
    path = folder.path
    if folder.recipe_file.exists():
        raise UserError(
            f"{path} already holds {folder.noun}: choose another --out, or go on with it by "
            f"stepwell {folder.verb} --resume {shlex.quote(str(path))}"
        )
    # A process killed before it wrote recipe.yaml leaves these; there is no run in them yet.
    ours = {".lock", folder.rate_file.name}
    if not any(folder.checkpoints.glob("*")):
        ours.add(folder.checkpoints.name)
    entries = [entry.name for entry in path.iterdir() if not entry.name.endswith(".partial")]
    strange = sorted(set(entries) - ours)
    if strange:
        raise UserError(f"--out {path}: the folder is not empty (it has {strange[0]}); choose a new one")


def existing(path: str | Path) -> RunFolder:
    """The run at `path`, for reading."""
    folder = RunFolder(Path(path).expanduser())
    if not folder.path.is_dir():
        what = "is a file, not a run folder" if folder.path.exists() else "does not exist"
        raise UserError(f"{path} {what}: name the folder that stepwell train has written")
    if not folder.recipe_file.exists():
        raise UserError(f"{path} is not a run folder: it has no recipe.yaml")
    return folder


class Lines:
    """A file of JSON lines that can be cut back to where a checkpoint saw it."""

    def __init__(self, path: Path, size: int, digest: str | None = None) -> None:
        """size, digest: what `sync` returned; UserError where the lines up to there are not those any more.

        Without a digest, lines that are lost are no matter.
        """
        before = path.read_bytes()[:size] if path.exists() else b""
        self._digest = hashlib.blake2b(before, digest_size=16)
        if digest is not None and self._digest.hexdigest() != digest:
            what = "has lost lines" if len(before) < size else "has been changed"
            raise UserError(f"{path} {what} since its checkpoint: put it back, or start a new run")
        self._file = open(path, "ab")  # noqa: SIM115 - open as long as the run
        self._file.truncate(len(before))
        self._file.seek(0, os.SEEK_END)

    def write(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self._digest.update(line)
        self._file.write(line)
        self._file.flush()

    def sync(self) -> tuple[int, str]:
        """Waits until all lines are on disk; returns the size of the file in bytes, and a digest of it."""
        os.fsync(self._file.fileno())
        return self._file.tell(), self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()


def _new_name(stem: str) -> Path:
    """runs/STEM, with a number behind it where that is taken."""
    number = 1
    while True:
        path = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1
