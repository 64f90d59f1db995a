"""Data sources, batches by index arithmetic; `Augment` changes batches at random in a loop of your own."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.data.augment.partners import Mixed
    from stepwell.data.augment.pipeline import Augment

__all__ = ["Augment", "Mixed"]

_NAMES = {"Augment": "stepwell.data.augment.pipeline", "Mixed": "stepwell.data.augment.partners"}


def __getattr__(name: str) -> Any:
    if name in _NAMES:  # fetched when asked for, since recipes are read without torch
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'stepwell.data' has no attribute '{name}'")
