"""Layers, models and losses; `init` holds the schemes that fill one tensor, `initialize` fills a model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.nn import initialization as init
    from stepwell.nn.gradient_flow import GradientFlow
    from stepwell.nn.initialization.layers import initialize
    from stepwell.nn.initialization.residual import zero_init_residual
    from stepwell.nn.inspection import signals

__all__ = ["GradientFlow", "init", "initialize", "signals", "zero_init_residual"]

_NAMES = {  # fetched when asked for, since configs are read without torch
    "GradientFlow": "stepwell.nn.gradient_flow",
    "initialize": "stepwell.nn.initialization.layers",
    "signals": "stepwell.nn.inspection",
    "zero_init_residual": "stepwell.nn.initialization.residual",
}


def __getattr__(name: str) -> Any:
    if name == "init":
        return import_module("stepwell.nn.initialization")
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'stepwell.nn' has no attribute '{name}'")
