"""The keys of a recipe that say how weights start, with the names of the schemes; free of torch."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

Name = Literal[
    "auto",
    "xavier-uniform",
    "xavier-normal",
    "he-uniform",
    "he-normal",
    "orthogonal",
    "lsuv",
    "zeros",
    "small-normal",
    "large-normal",
]
NAMES: tuple[str, ...] = Name.__args__[1:]  # "auto" is what a model does by itself, no scheme
ALIASES = {"xavier": "xavier-uniform", "he": "he-normal"}


def canonical(name: Any) -> str:
    """A scheme's own name; ValueError with the nearest where there is no such scheme."""
    found = ALIASES.get(name, name) if isinstance(name, str) else None
    if found in NAMES:
        return found
    near = difflib.get_close_matches(str(name).lower(), [*NAMES, *ALIASES], 1)
    hint = f"did you mean {near[0]}? There are" if near else "there are"
    raise ValueError(f"'{name}' is no scheme of initialization; {hint} {', '.join(NAMES)}")


Init = Annotated[
    Name,
    BeforeValidator(lambda name: name if name == "auto" else canonical(name)),
    Field(description="how weights start; auto: as the model does by itself; he is he-normal"),
]
ZeroInitResidual = Annotated[
    bool, Field(description="begin every residual block as the identity: its branches' last layers at zero")
]
