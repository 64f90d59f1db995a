"""The folder of a comparison: a run folder with comparison.yaml in the place of recipe.yaml."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepwell.errors import UserError
from stepwell.populations.compare.grid import Values, as_text
from stepwell.recipe import Recipe
from stepwell.training import files
from stepwell.training.run_folder import RunFolder


class CompareFolder(RunFolder):
    """Locked for this process until `close`; `checkpoints` is where the population keeps its state."""

    verb, noun = "compare", "a comparison"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.recipe_file = path / "comparison.yaml"
        self.table_file = path / "compare.csv"

    @classmethod
    def stem(cls, recipe: Recipe) -> str:
        """compare-DATA"""
        return f"compare-{Path(recipe.data.name).name.split('.')[0]}"

    @classmethod
    def open(cls, path: str | Path) -> CompareFolder:
        """Opens a comparison to go on with it."""
        folder = cls(Path(path).expanduser())
        if not folder.path.is_dir():
            what = "is a file, not a folder" if folder.path.exists() else "does not exist"
            raise UserError(f"{path} {what}: name the folder that stepwell compare has written")
        if not folder.recipe_file.exists():
            raise UserError(f"{path} holds no comparison: it has no comparison.yaml")
        folder._take_lock()
        for partial in folder.path.glob(".*.partial"):  # what a killed process was writing
            partial.unlink()
        return folder

    def save_asked(self, asked: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Writes what was asked for; `stepwell compare comparison.yaml` does it again."""
        lines = ["# Does this comparison again: stepwell compare comparison.yaml"]
        lines += [f"{name}: {as_text(value)}" for name, value in options.items()]
        for key, value in asked.items():
            text = json.dumps(value.text, ensure_ascii=False) if isinstance(value, Values) else as_text(value)
            lines.append(f"{key}: {text}")
        files.write_text(self.recipe_file, "\n".join(lines) + "\n")

    def result(self) -> dict[str, Any] | None:
        """The result of a finished comparison; None where it has not ended."""
        try:
            result = json.loads(self.result_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            result = None
        if not isinstance(result, dict) or not isinstance(result.get("entries"), list):
            again = f"stepwell compare --resume {shlex.quote(str(self.path))}"
            raise UserError(f"{self.result_file} is damaged: remove it and go on with {again}")
        return result

    def forget_state(self) -> None:
        """Removes what only going on needs."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
