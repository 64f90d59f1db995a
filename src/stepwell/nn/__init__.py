"""Layers, models and losses; `init` holds the schemes of initialization."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.nn import initialization as init
    from stepwell.nn.mixed import mixed_loss

__all__ = ["init", "mixed_loss"]


def __getattr__(name: str) -> Any:
    if name == "init":  # fetched when asked for, since configs are read without torch
        return import_module("stepwell.nn.initialization")
    if name == "mixed_loss":
        return import_module("stepwell.nn.mixed").mixed_loss
    raise AttributeError(f"module 'stepwell.nn' has no attribute '{name}'")
