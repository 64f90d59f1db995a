"""The grammar of values: comma lists, log(a,b,n) and range(a,b,n), for any key of a recipe."""

from __future__ import annotations

import json
import math
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stepwell.errors import UserError
from stepwell.recipe import complaints, parse_changes
from stepwell.recipe.schema import CHOICES, PLAIN
from stepwell.setting import keys_of

MOST_VALUES = 10_000  # of one range; what is more is a typing mistake
OPEN, CLOSE = "([{", ")]}"
OPTIONS = {"seeds": 5, "tune": None, "halving": False, "target": None}  # of a comparison, with their defaults
KNOWN = {*CHOICES, *PLAIN, "seed", *OPTIONS}


@dataclass(frozen=True)
class Values:
    """The values that one key takes. text: how one types them; is_range: by log() or range()."""

    values: tuple[Any, ...]
    text: str
    is_range: bool = False


def parse_words(words: Iterable[str]) -> dict[str, Any]:
    """Reads `key=value` words as `stepwell train` does; comma lists become `Values`.

    optimizer.name=sgd,adam · model.hidden=[16],[64,64] · optimizer.lr=log(1e-4,1,9)
    Commas inside brackets and quotes belong to the value.
    """
    changes: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if equals and "." not in key and key not in KNOWN:
            raise UserError(complaints.unknown_key(key))
        key = canonical(key)
        if key in changes:
            raise UserError(f"{key} is given twice: keep one")
        listed = bool(equals) and not key.startswith("data.") and len(parts(text)) > 1
        changes[key] = _listed(key, text) if listed else next(iter(parse_changes([word]).values()))
    return changes


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections with keys below them as {"section.key": value}; an empty section has no keys."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{key}.")
        elif value is not None or "." in key or key not in (*CHOICES, *PLAIN):
            flat[canonical(key)] = value
    return flat


def canonical(key: str) -> str:
    """`optimizer` is optimizer.name."""
    return f"{key}.name" if key in CHOICES else key


def values_of(key: str, value: Any) -> Values | None:
    """The values that are listed for a key; None where it is one value.

    A text may be a comma list or a range. A list is a list of values, unless the key itself takes a list:
    there a list of lists is. Raises UserError for what lists nothing to choose from.
    """
    if key.startswith("data."):
        return None
    if isinstance(value, Values):
        found: Values | None = value
    elif isinstance(value, str):
        found = _of_text(key, value)
    elif isinstance(value, tuple) or (isinstance(value, list) and lists_values(key, value)):
        found = Values(tuple(value), ",".join(map(as_text, value)))
    else:
        found = None
    if found is not None and not found.is_range:
        _require_several(key, found.values)
    return found


def _of_text(key: str, text: str) -> Values | None:
    match = re.fullmatch(r"\s*(log|range)\((.*)\)\s*", text)
    if match and not any(letter in match[2] for letter in "()"):
        return _range(key, match[1], match[2], text.replace(" ", ""))
    return _listed(key, text) if len(parts(text)) > 1 else None


def _listed(key: str, text: str) -> Values:
    items = parts(text)
    for item in items:
        if not item:
            raise UserError(f"{key}={text}: there is nothing between two commas; write null for no value")
        if re.match(r"(log|range)\(", item):
            raise UserError(f"{key}={text}: {item} has values enough of its own; give it alone")
    return Values(tuple(next(iter(parse_changes([f"{key}={item}"]).values())) for item in items), text)


def _range(key: str, kind: str, inside: str, text: str) -> Values:
    """n values from a to b, both included: a + k (b − a)/(n − 1), or a (b/a)^(k/(n − 1)) for log."""
    shown = f"{key}={text}"
    try:
        first, last, count = (item.strip() for item in inside.split(","))
        a, b, n = float(first), float(last), int(count)
    except ValueError:
        raise UserError(
            f"{shown}: {kind} takes the first value, the last one and how many, such as {kind}(0.001,1,7)"
        ) from None
    if not (math.isfinite(a) and math.isfinite(b)):
        raise UserError(f"{shown}: both ends must be finite numbers")
    if kind == "log" and min(a, b) <= 0:
        raise UserError(f"{shown}: log needs both ends above 0; range(a,b,n) takes 0 and below")
    if n < 2:
        what = "1 value is" if n == 1 else f"{n} values are"
        raise UserError(f"{shown}: {what} no range; ask for 2 or more, or give one value alone")
    if a >= b:
        raise UserError(f"{shown} is empty: the first value must be below the last")
    if n > MOST_VALUES:
        raise UserError(f"{shown}: {n:,} values are too many; ask for at most {MOST_VALUES:,}")
    middle = [k / (n - 1) for k in range(1, n - 1)]
    inner = [a * (b / a) ** t if kind == "log" else a + t * (b - a) for t in middle]
    values: list[float] = [a, *inner, b]
    if re.fullmatch(r"[-+]?\d+", first) and re.fullmatch(r"[-+]?\d+", last):  # whole numbers stay whole
        values = [round(v) if math.isclose(v, round(v), rel_tol=1e-9) else v for v in values]
    if len(set(values)) < n:
        raise UserError(f"{shown}: its ends are too near each other for {n} values")
    return Values(tuple(values), text, is_range=True)


def _require_several(key: str, values: tuple[Any, ...]) -> None:
    if len(values) < 2:
        what = f"one value, {as_text(values[0])}" if values else "no value"
        raise UserError(f"{key} lists {what}: list two or more, or give one without a list")
    for place, value in enumerate(values):
        if value in values[:place]:
            raise UserError(f"{key} lists {as_text(value)} twice: keep one")


def parts(text: str) -> list[str]:
    """What stands between the commas that are in no bracket and no quotes."""
    found, depth, quote, before, escaped = [""], 0, "", ",", False
    for letter in text:
        if quote:
            quote = "" if letter == quote and not escaped else quote
            escaped = quote == '"' and letter == "\\" and not escaped
        elif letter in "\"'" and before in ",:([{":  # an apostrophe inside a word is none
            quote = letter
        else:
            depth += (letter in OPEN) - (letter in CLOSE)
        before = letter if letter != " " else before
        if letter == "," and not quote and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [item.strip() for item in found]


def lists_values(key: str, value: list[Any]) -> bool:
    """Whether a list lists values of the key, and is none of them."""
    section, _, rest = key.partition(".")
    if section not in CHOICES and section not in PLAIN:
        return False
    kinds = CHOICES[section].values() if section in CHOICES else [PLAIN[section]]
    fields = [keys_of(kind)[rest] for kind in kinds if rest in keys_of(kind)]
    takes_lists = any(_has_list(owner.model_fields[name].annotation) for owner, name in fields)
    if not takes_lists and fields:
        return True
    return bool(value) and all(isinstance(item, list) for item in value)  # a user's own key may take lists


def _has_list(annotation: Any) -> bool:
    inside = typing.get_args(annotation)
    return typing.get_origin(annotation) is list or any(_has_list(part) for part in inside)


def as_text(value: Any) -> str:
    """A value as one types it behind `key=`; reading it again gives the same value."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' * (value < 0)}.inf"
    if isinstance(value, Values):
        return value.text
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(as_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {as_text(inner)}' for key, inner in value.items())}}}"
    text = str(value)
    if not isinstance(value, str):
        return text
    plain = re.fullmatch(r"[A-Za-z_/.][\w/.:+-]*", text) and not text.endswith(":")
    if plain and next(iter(parse_changes([f"model.x={text}"]).values())) == text:
        return text
    return json.dumps(text, ensure_ascii=False)
