"""Keys with several values to choose from, as words of the command line: lists, log(a,b,n), range(a,b,n)."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from stepwell.data.sources import BUNDLED
from stepwell.errors import UserError
from stepwell.recipe import parse_changes
from stepwell.recipe.read import SECTIONS

_SPACED = re.compile(r"^(log|range)\(([^()]*)\)$")

MOST = 1000  # values of one key


def listed(words: Iterable[str]) -> tuple[list[str], dict[str, list[Any]]]:
    """Returns the words with one value, and of the others key → values.

    Example: ["seed=1", "model.hidden=[8],[64]"] → ["seed=1"], {"model.hidden": [[8], [64]]}.
    """
    plain: list[str] = []
    values: dict[str, list[Any]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        pieces = _pieces(text)
        if not equals or key.partition(".")[0] == "data" or (len(pieces) < 2 and not _SPACED.match(text)):
            plain.append(word)
            continue
        if key in values:
            raise UserError(f"{key} is given twice: keep one")
        values[key] = [value for piece in pieces for value in _values(key, piece)]
    return plain, values


def _pieces(text: str) -> list[str]:
    """The text cut at the commas that stand in no bracket."""
    pieces, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces


def _values(key: str, piece: str) -> list[Any]:
    found = _SPACED.match(piece.strip())
    if found is None:
        return [parse_changes([f"{key}={piece}"])[key]]
    try:
        low, high, count = (float(part) for part in found[2].split(","))
        if (
            count != int(count)
            or not 2 <= count <= MOST
            or not low < high
            or (found[1] == "log" and low <= 0)
        ):
            raise ValueError
    except ValueError:
        raise UserError(
            f"{key}={piece}: write {found[1]}(a,b,n) with a below b{', both above 0' * (found[1] == 'log')}, "
            f"and n values, 2 to {MOST:,}"
        ) from None
    space = np.geomspace if found[1] == "log" else np.linspace
    points = [float(f"{value:.6g}") for value in space(low, high, int(count))]
    return [int(p) if p.is_integer() and found[1] == "range" else p for p in points]


def combinations(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every choice of one value a key; [{}] where there is nothing to choose.

    Raises UserError for keys that are none to choose by validation.
    """
    for key, found in values.items():
        section = key.partition(".")[0]
        if section == "data":
            raise UserError(f"{key}: the folds are of one data set, so it has one value")
        if section == "loss":
            raise UserError(f"{key}: values are chosen by the loss, and different losses cannot be compared")
        if key == "seed":
            raise UserError("seed: there is no best seed to choose; more seeds are --repeats")
        if not len(found):
            raise UserError(f"{key}: there is no value to choose from")
        if len({repr(value) for value in found}) < len(found):
            raise UserError(f"{key}: a value is given twice; keep one")
    return [dict(zip(values, some, strict=True)) for some in itertools.product(*values.values())]


def word(key: str, value: Any) -> str:
    """key=value as `parse_changes` reads it."""
    if isinstance(value, str) and key in ("data", "data.name"):
        return f"{key}={value}"
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9)
    said = f"{key}={text.strip().removesuffix('...').strip()}"
    # A text such as 1e-3, which PyYAML takes for one, and our reader for a number, needs its quotes.
    return said if parse_changes([said]) == {key: value} else f"{key}={json.dumps(value)}"


def settled(changes: Mapping[str, Any], data: str) -> dict[str, Any]:
    """The changes as single keys with JSON values, the data by its whole path.

    Relative paths, and values such as NumPy's, may mean something else, or nothing, where one goes on.
    """
    single: dict[str, Any] = {}
    for key, value in changes.items():
        if isinstance(value, Mapping) and key in SECTIONS:
            single |= {f"{key}.{inner}": one for inner, one in value.items()}
        else:
            single[key] = value
    named = {"data" if key == "data.name" else key: value for key, value in single.items()}
    if "data" in named or data not in BUNDLED:
        named["data"] = data
    return json.loads(json.dumps(named, default=lambda v: v.item() if hasattr(v, "item") else str(v)))
