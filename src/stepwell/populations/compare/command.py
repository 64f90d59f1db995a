"""The one command that trains a member by itself."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from stepwell.populations.compare.grid import as_text


def command(changes: Mapping[str, Any], seed: int) -> str:
    """`stepwell train key=value …` with every key that the comparison was given."""
    words = [word(key, value) for key, value in {**changes, "seed": seed}.items()]
    return " ".join(["stepwell train", *map(shlex.quote, words)])


def word(key: str, value: Any) -> str:
    """`key=value`, as `parse_changes` reads it."""
    return f"{key}={value if key == 'data.name' else as_text(value)}"
