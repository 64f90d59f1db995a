"""A population's state on disk, so that the same call goes on after a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stepwell.errors import UserError
from stepwell.populations.groups import Group
from stepwell.populations.member import Member, Outcome
from stepwell.training import checkpoint, files


class Kept:
    """A folder with `ended.json`, how members ended, and a safetensors file for each group in training.

    Raises UserError where the folder is of other members.
    """

    def __init__(self, folder: Path, members: Sequence[Member]) -> None:
        self.folder, self.file = folder, folder / "ended.json"
        self.identity = identity(members)
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob(".*.partial"):
            partial.unlink(missing_ok=True)
        self.state: dict[str, Any] = {"identity": self.identity, "going": [], "ended": {}, "groups": []}
        if self.file.exists():
            self._read()

    def _read(self) -> None:
        try:
            state, found = json.loads(self.file.read_text(encoding="utf-8"))
            same = state["identity"] == self.identity
            if found != _digest(state):
                raise ValueError("changed")
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self.file} is damaged: remove the folder and begin anew") from None
        if not same:
            raise UserError(
                f"{self.folder} has the state of other models: recipe or data have changed since; give "
                "another folder"
            )
        self.state = state

    def groups(self, divide: Callable[[], list[Group]]) -> list[Group]:
        """The groups, those of before if there are some: how much memory is free may have changed."""
        if not self.state["groups"]:
            self.state["groups"] = [asdict(group) for group in divide()]
            self.write()
        return [Group(**own) for own in self.state["groups"]]

    def ended(self) -> dict[int, Outcome]:
        """The members that have ended, with their weights where these were kept."""
        found = {}
        for number, own in self.state["ended"].items():
            outcome = found[int(number)] = Outcome(**own)
            file = self._weights(int(number))
            if file.exists():
                outcome.weights = checkpoint.read(file)[0]
        return found

    def end(self, outcomes: dict[int, Outcome]) -> None:
        """Notes how these ended."""
        for number, outcome in outcomes.items():
            if outcome.weights is not None:
                checkpoint.write(self._weights(number), outcome.weights, {"number": number})
            self.state["ended"][str(number)] = outcome.as_json()
        self.write()

    def save(self, group: Any) -> None:
        """Writes a group's state, if it has one to go on from."""
        if hasattr(group, "saved"):
            checkpoint.write(self._group(group), *group.saved())

    def load(self, group: Any) -> None:
        """Puts a group back to where it was saved."""
        file = self._group(group)
        if file.exists():
            group.load(*checkpoint.read(file))

    def clear(self) -> None:
        """Removes the state of groups, once all have ended."""
        for file in self.folder.glob("group-*.safetensors"):
            file.unlink()

    def _group(self, group: Any) -> Path:
        return self.folder / f"group-{group.place:04d}.safetensors"

    def _weights(self, number: int) -> Path:
        return self.folder / f"weights-{number:05d}.safetensors"

    def write(self) -> None:
        """Writes what is known of the population as a whole."""
        files.write_json(self.file, [self.state, _digest(self.state)])


def identity(members: Sequence[Member]) -> str:
    """A digest of all recipes, but for what leaves the numbers alone, and of their data."""
    digest = hashlib.sha256()
    fingerprints: dict[int, str] = {}
    for member in members:
        training = member.recipe.training.model_copy(update={"track": [], "keep_checkpoints": 2})
        recipe = member.recipe.model_copy(update={"training": training})
        key = id(member.data)
        if key not in fingerprints:
            data = member.data
            parts = [part.rows.numpy().tobytes() for part in (data.train, data.validation, data.test)]
            fingerprints[key] = data.fingerprint + hashlib.sha256(b"|".join(parts)).hexdigest()
        digest.update(f"{recipe.model_dump_json()} {fingerprints[key]}\n".encode())
    return digest.hexdigest()


def _digest(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
