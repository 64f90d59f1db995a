"""Stepwell trains neural networks, tells why a run is not better, and proves which change helps.

`import stepwell as sw` loads nothing heavy: torch comes with the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell import curvature, data, nn, optim, rules, schedules
    from stepwell.errors import Diverged, UserError
    from stepwell.library import find_lr, load, pull, push, range_test, resume, train, zoo

__version__ = "0.1.0"

__all__ = [
    "Diverged",
    "UserError",
    "curvature",
    "data",
    "find_lr",
    "load",
    "nn",
    "optim",
    "pull",
    "push",
    "range_test",
    "resume",
    "rules",
    "schedules",
    "train",
    "zoo",
]

_MODULES = {"curvature", "data", "nn", "optim", "rules", "schedules"}
_NAMES = {
    "train": "stepwell.library",
    "resume": "stepwell.library",
    "find_lr": "stepwell.library",
    "range_test": "stepwell.library",
    "zoo": "stepwell.library",
    "push": "stepwell.library",
    "pull": "stepwell.library",
    "load": "stepwell.library",
    "UserError": "stepwell.errors",
    "Diverged": "stepwell.errors",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"stepwell.{name}")
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'stepwell' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
