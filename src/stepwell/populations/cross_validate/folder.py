"""The folder of a cross-validation: the question first, then the members' state, at the end the result."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from stepwell.errors import UserError
from stepwell.populations.cross_validate.question import Question
from stepwell.recipe import Recipe
from stepwell.training import files


class Folder:
    """question.json, recipe.yaml and splits.npz say what was asked; only one process writes at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.question_file = path / "question.json"
        self.recipe_file = path / "recipe.yaml"
        self.splits_file = path / "splits.npz"
        self.members = path / "members"
        self.result_file = path / "result.json"
        self.folds_file = path / "folds.csv"
        self.predictions_file = path / "predictions.csv"
        self._lock: int | None = None

    @classmethod
    def create(cls, out: str | None, recipe: Recipe) -> Folder:
        """Makes the folder `out`, or runs/NAME-folds, with a number if need be; refuses a used one."""
        path = _new_name(recipe) if out is None else Path(out).expanduser()
        if path.exists() and not path.is_dir():
            raise UserError(f"--out {path}: there is a file of this name; choose another folder")
        folder = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if folder.question_file.exists():
                raise UserError(
                    f"{path} already holds a cross-validation: choose another --out, or go on with it by "
                    f"{folder.resume_command()}"
                )
            if strange := sorted(entry.name for entry in path.iterdir() if entry.name != ".lock"):
                raise UserError(
                    f"--out {path}: the folder is not empty (it has {strange[0]}); choose a new one"
                )
            folder.lock()
        except OSError as error:
            raise UserError(
                f"the folder {path} cannot be made ({(error.strerror or str(error)).lower()}): "
                "choose another --out"
            ) from None
        return folder

    @classmethod
    def open(cls, path: str | Path) -> Folder:
        """Opens a cross-validation to go on with it."""
        folder = cls(Path(path).expanduser())
        if not folder.path.is_dir():
            what = "is a file, not a folder" if folder.path.exists() else "does not exist"
            raise UserError(f"{path} {what}: name the folder that stepwell cross-validate has written")
        if not folder.question_file.exists():
            raise UserError(f"{path} holds no cross-validation: it has no question.json")
        folder.lock()
        for partial in folder.path.glob(".*.partial"):  # what a killed process was writing
            partial.unlink()
        return folder

    def lock(self) -> None:
        """Keeps other processes out until `close`, or the end of this one."""
        self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            if isinstance(error, BlockingIOError):
                raise UserError(f"another process is at work in {self.path}: wait for it") from None
            raise

    def close(self) -> None:
        """Lets others in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def resume_command(self) -> str:
        """What goes on with it."""
        return f"stepwell cross-validate --resume {shlex.quote(str(self.path))}"

    def discard(self) -> None:
        """Removes what has no result and will have none."""
        for file in (self.question_file, self.recipe_file, self.splits_file, self.path / ".lock"):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.members, ignore_errors=True)
        self.close()
        with suppress(OSError):
            self.path.rmdir()

    # -- the question ---------------------------------------------------------------------------------

    def save(self, question: Question, fingerprint: str) -> None:
        """Writes the question, so that the same one can be asked again; question.json comes last."""
        if question.recipe is not None:
            files.write_text(self.recipe_file, question.recipe.expanduser().read_text(encoding="utf-8"))
        arrays: dict[str, np.ndarray] = {} if question.groups is None else {"groups": question.groups}
        for number, (learn, held) in enumerate(question.pairs or []):
            arrays |= {f"learn_{number}": learn, f"held_{number}": held}
        if arrays:

            def write(to: Path) -> None:
                with to.open("wb") as file:
                    np.savez(file, **arrays)  # type: ignore[arg-type]

            files.write_atomically(self.splits_file, write)
        told = {
            "recipe": question.recipe is not None,
            "file": question.file,
            "changes": question.changes,
            "values": question.values,
            "folds": question.folds,
            "repeats": question.repeats,
            "inner": question.inner,
            "splitter": question.splitter,
            "pairs": None if question.pairs is None else len(question.pairs),
            "groups": question.groups is not None,
            "fingerprint": fingerprint,
        }
        files.write_json(self.question_file, told)

    def question(self) -> tuple[Question, str]:
        """What was asked, and the fingerprint of the data it was asked of."""
        try:
            told = json.loads(self.question_file.read_text(encoding="utf-8"))
            pairs = groups = None
            if told["pairs"] is not None or told["groups"]:
                with np.load(self.splits_file, allow_pickle=False) as arrays:
                    groups = arrays["groups"] if told["groups"] else None
                    if told["pairs"] is not None:
                        pairs = [(arrays[f"learn_{k}"], arrays[f"held_{k}"]) for k in range(told["pairs"])]
            question = Question(
                self.recipe_file if told["recipe"] else None,
                dict(told["changes"]),
                **{key: told[key] for key in ("folds", "repeats", "inner", "values", "splitter", "file")},
                pairs=pairs,
                groups=groups,
            )
            return question, str(told["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{self.question_file} is missing or damaged: ask anew, with another --out"
            ) from None

    def result(self) -> dict[str, Any] | None:
        """The result, if it is there: it is written last."""
        try:
            return json.loads(self.result_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            raise UserError(
                f"{self.result_file} is damaged: remove it, and {self.resume_command()}"
            ) from None


def _new_name(recipe: Recipe) -> Path:
    """runs/DATA-MODEL-folds, with a number behind it where that is taken."""
    stem = f"{Path(recipe.data.name).name.split('.')[0]}-{recipe.model.name.rpartition(':')[2]}-folds"
    number = 1
    while (path := Path("runs") / (stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return path
