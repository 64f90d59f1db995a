"""One plain sentence for each way a recipe can be wrong."""

from __future__ import annotations

import difflib
import re
from typing import Any

from pydantic import BaseModel, ValidationError

from stepwell.recipe.schema import CHOICES, PLAIN
from stepwell.setting import keys_of, setting_of

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "dict": "a mapping of keys to values",
}
_SOURCES = {
    "bundled": "bundled sets",
    "npz": ".npz files",
    "table": "tables",
    "images": "image folders",
    "text": "text files",
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def all_keys() -> list[str]:
    """Every key of every section, as the command line writes it."""
    keys = ["seed"]
    for section, choices in CHOICES.items():
        keys += sorted({f"{section}.{key}" for kind in choices.values() for key in keys_of(kind)})
    for section, kind in PLAIN.items():
        keys += [f"{section}.{key}" for key in keys_of(kind)]
    return list(dict.fromkeys(keys))


def unknown_key(key: str) -> str:
    """Names the nearest key: first by the whole, then by its last word alone (`lr` is optimizer.lr)."""
    known = all_keys()
    last = {name.rpartition(".")[2]: name for name in reversed(known)}
    tail = key.rpartition(".")[2]
    near = (
        [last[tail]] if tail in last else difflib.get_close_matches(key, [*known, *CHOICES, *PLAIN], 1, 0.75)
    )
    near = near or [last[m] for m in difflib.get_close_matches(tail, list(last), 1, 0.75)]
    near = near or difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {near[0]}?" if near else "`stepwell recipe` lists every key"
    return f"there is no key {key}; {hint}"


def unknown_name(section: str, name: str) -> str:
    """Names the nearest choice and all others."""
    names = list(CHOICES[section])
    near = difflib.get_close_matches(name.lower(), names, 1)
    hint = f"did you mean {near[0]}? There are" if near else "there are"
    own = ", or your own as MODULE:FUNCTION" if section == "model" else ""
    return f"{section}.name={name} is not known; {hint} {', '.join(names)}{own}"


def sentence(section: str, kind: type[BaseModel], error: ValidationError, name: Any = None) -> str:
    """The first error of a section's check in words."""
    errors = error.errors()
    # A key that does not exist says more than that another one is missing.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    kind, inside, path = _place(kind, [str(part) for part in first["loc"]])
    shown_path = path[1:] if inside and path[0] == kind.main() else path  # type: ignore[attr-defined]
    key = ".".join(filter(None, [section, inside, *shown_path]))
    key = re.sub(r"\.(\d+)", r"[\1]", key)  # the place in a list
    value, context, what = first.get("input"), first.get("ctx", {}), first["type"]
    if what == "extra_forbidden":
        return unknown_key(key) if inside else _no_effect(section, path[0], kind, name)
    if what == "missing":
        return f"{key} is missing{_help(kind, path)}"
    if what == "value_error":
        text = str(context.get("error", first["msg"]))
        return f"{section}: {text}" if not path else f"{key}: {text}"
    shown = f"{key}={_short(value)}"
    if what == "literal_error":
        wanted = context["expected"].replace("'", "").replace(" or ", ", ")
        return f"{shown} must be one of {wanted}"
    if what in _BOUNDS:
        word, bound = _BOUNDS[what]
        return f"{shown} must be {word} {_exact(context[bound])}{_help(kind, path)}"
    if what == "finite_number":
        return f"{shown} must be a finite number{_help(kind, path)}"
    if what in ("too_short", "too_long"):
        return f"{shown} has too {'few' if what == 'too_short' else 'many'} entries{_help(kind, path)}"
    if what == "string_pattern_mismatch":
        return f"{shown} is not of the right form{_help(kind, path)}"
    if what.startswith("list"):
        return f"{shown} must be a list, such as [{'64,64' if isinstance(value, dict) else _short(value)}]"
    for prefix, wanted in _TYPES.items():
        if what.startswith(prefix):
            return f"{shown} must be {wanted}{_help(kind, path)}"
    return f"{shown}: {first['msg'][0].lower()}{first['msg'][1:]}{_help(kind, path)}"


def _place(kind: type[BaseModel], path: list[str]) -> tuple[type[BaseModel], str, list[str]]:
    """The class whose key is wrong, the setting's name if it is one, and the path in that class."""
    field = kind.model_fields.get(path[0]) if len(path) > 1 else None
    setting = setting_of(field.annotation) if field is not None else None
    return (kind, "", path) if setting is None else (setting, path[0], path[1:])


def _no_effect(section: str, key: str, kind: type[BaseModel], name: Any) -> str:
    """A key of the section that this choice does not have, or one that does not exist at all."""
    owners = [n for n, other in CHOICES.get(section, {}).items() if key in other.model_fields]
    if owners:
        chosen = f"{section}={name}"
        kinds = [_SOURCES[owner] for owner in owners] if section == "data" else owners
        kinds = list(dict.fromkeys(kinds))
        shown = ", ".join(kinds) if len(kinds) < 6 else f"{', '.join(kinds[:4])} and {len(kinds) - 4} others"
        return f"{section}.{key} has no effect with {chosen}: it belongs to {shown}; remove it"
    near = difflib.get_close_matches(key, list(kind.model_fields), 1)
    if near:
        return f"there is no key {section}.{key}; did you mean {section}.{near[0]}?"
    return unknown_key(f"{section}.{key}")


def _help(kind: type[BaseModel], path: list[str]) -> str:
    field = kind.model_fields.get(path[0]) if path else None
    return f" ({field.description.partition(' (')[0]})" if field is not None and field.description else ""


def _exact(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
