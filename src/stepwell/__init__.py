"""Stepwell trains neural networks, tells why a run is not better, and proves which change helps.

`import stepwell as sw` loads nothing heavy: torch comes with the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell import curvature, data, nn, optim, rules, schedules, sklearn
    from stepwell.errors import Diverged, UserError
    from stepwell.library import (
        compare,
        cross_validate,
        ensemble,
        find_lr,
        load,
        population,
        pull,
        push,
        range_test,
        resume,
        resume_comparison,
        resume_cross_validate,
        train,
        zoo,
    )

__version__ = "0.1.0"

__all__ = [
    "Diverged",
    "UserError",
    "compare",
    "cross_validate",
    "curvature",
    "data",
    "ensemble",
    "find_lr",
    "load",
    "nn",
    "optim",
    "population",
    "pull",
    "push",
    "range_test",
    "resume",
    "resume_comparison",
    "resume_cross_validate",
    "rules",
    "schedules",
    "sklearn",
    "train",
    "zoo",
]

_MODULES = {"curvature", "data", "nn", "optim", "rules", "schedules", "sklearn"}
_NAMES = {
    "train": "stepwell.library",
    "resume": "stepwell.library",
    "cross_validate": "stepwell.library",
    "resume_cross_validate": "stepwell.library",
    "population": "stepwell.library",
    "ensemble": "stepwell.library",
    "compare": "stepwell.library",
    "resume_comparison": "stepwell.library",
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
