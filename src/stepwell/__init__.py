"""Stepwell trains neural networks, tells why a run is not better, and proves which change helps.

`import stepwell as sw` loads nothing heavy: torch comes with the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell import data, nn, optim, rules, schedules
    from stepwell.library import train

__version__ = "0.1.0"

__all__ = ["data", "nn", "optim", "rules", "schedules", "train"]

_MODULES = {"data", "nn", "optim", "rules", "schedules"}
_FUNCTIONS = {"train": "stepwell.library"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"stepwell.{name}")
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'stepwell' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
