"""Every key of the recipe with default, range and one line of help."""

from __future__ import annotations

import types
import typing
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from stepwell.data.sources import BUNDLED
from stepwell.nn.configs import UserModel
from stepwell.recipe.schema import CHOICES, DEFAULT_NAMES, PLAIN, Recipe
from stepwell.setting import keys_of


def describe() -> list[dict[str, Any]]:
    """One row a key: {"key", "applies_to", "default", "range", "help"}, in the recipe's order.

    applies_to: the names of the section for which the key exists, [] where it always does.
    """
    rows = []
    for section, choices in CHOICES.items():
        kinds: dict[str, type[BaseModel]] = dict(choices)
        if section == "model":
            kinds["MODULE:FUNCTION"] = UserModel
        rows.append(_choice(section, list(kinds)))
        rows += _rows_of(section, kinds)
    for section, kind in PLAIN.items():
        rows += [_row(f"{section}.{key}", [], *_cells(*place)) for key, place in keys_of(kind).items()]
    rows.append(_row("seed", [], *_cells(Recipe, "seed")))
    return rows


def _rows_of(section: str, kinds: dict[str, type[BaseModel]]) -> list[dict[str, Any]]:
    """A row for each key of a section; keys that mean the same share a row, each with its default."""
    alike: dict[tuple[str, str, str], dict[str, str]] = {}
    for name, kind in kinds.items():
        for key, place in keys_of(kind).items():
            if key != "name":
                default, bounds, text = _cells(*place)
                alike.setdefault((key, bounds, text), {})[name] = default
    rows = []
    for (key, bounds, text), found in alike.items():
        by_default: dict[str, list[str]] = {}
        for name, default in found.items():
            by_default.setdefault(default, []).append(name)
        shown = next(iter(by_default))
        if len(by_default) > 1:
            shown = "; ".join(f"{default} ({', '.join(names)})" for default, names in by_default.items())
        applies = [] if len(found) == len(kinds) else list(found)
        rows.append(_row(f"{section}.{key}", applies, shown, bounds, text))
    return rows


def _choice(section: str, names: list[str]) -> dict[str, Any]:
    helps = {
        "data": f"a bundled set ({', '.join(BUNDLED)}), a file or a folder",
        "model": "what is trained (default: mlp; image folders: cnn; text: transformer)",
        "loss": "what is minimized (default: numbers mse, else cross-entropy)",
        "optimizer": "update rule",
        "schedule": "learning rate over the run",
    }
    bounds = "" if section == "data" else ", ".join(names)
    return _row(f"{section}.name", [], DEFAULT_NAMES.get(section, ""), bounds, helps[section])


def _row(key: str, applies: list[str], default: str, bounds: str, text: str) -> dict[str, Any]:
    return {"key": key, "applies_to": applies, "default": default, "range": bounds, "help": text}


def _cells(kind: type[BaseModel], key: str) -> tuple[str, str, str]:
    field = kind.model_fields[key]
    default = field.get_default(call_default_factory=True, validated_data={})
    shown = "" if default is None or default is PydanticUndefined else _number(default)
    return shown, _range(field), field.description or ""


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("'", "")


def _range(field: Any) -> str:
    """The field's bounds in interval notation, or its choices, or its type."""
    low = high = None
    left, right = "(", ")"
    for part in field.metadata:
        if getattr(part, "ge", None) is not None:
            low, left = part.ge, "["
        if getattr(part, "gt", None) is not None:
            low = part.gt
        if getattr(part, "le", None) is not None:
            high, right = part.le, "]"
        if getattr(part, "lt", None) is not None:
            high = part.lt
    kind = _type(field.annotation)
    if low is None and high is None:
        return kind
    bounds = f"{left}{'−∞' if low is None else _number(low)}, {'∞' if high is None else _number(high)}{right}"
    return (
        f"{kind} in {bounds}" if high is not None else f"{kind} {'≥' if left == '[' else '>'} {_number(low)}"
    )


def _type(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(a) for a in inner if a is not type(None)))
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin is list:
        return f"list of {_type(inner[0])}"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", dict: "mapping"}
    return names.get(origin or annotation, "any")
