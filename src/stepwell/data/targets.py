"""What a table is to predict: the task is told from the target column's values."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from stepwell.data.columns import MISSING, best_style, numbers, simplified
from stepwell.data.dataset import Task
from stepwell.data.tablefile import TableFile, listing, looks_like_data
from stepwell.errors import UserError

USUAL_NAMES = ("target", "label", "class", "y")
MOST_NUMBERED_CLASSES = 20
NUMBERED_CLASSES_SHARE = 0.05

Wish = Literal["auto", "regression", "classification"]


def few_enough(distinct: int, rows: int) -> bool:
    """Whether so many different whole numbers in so many rows are taken as classes without being told."""
    return distinct <= max(2, min(MOST_NUMBERED_CLASSES, int(NUMBERED_CLASSES_SHARE * rows)))


def target_names(table: TableFile, wanted: str | list[str] | None) -> list[str]:
    """Returns the target columns; without a wish, the one column that has a usual name."""
    if wanted is None:
        usual = [name for name in table.names if name.casefold() in USUAL_NAMES]
        if len(usual) != 1:
            found = f"more than one of {listing(usual)}" if usual else "no target, label, class or y"
            raise UserError(
                f"{table.path}: which column is to be predicted? It has {found}: set data.target to one of"
                f" {listing(table.names)}."
            )
        return usual
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if not names:
        raise UserError("data.target is an empty list: name at least one column to predict.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"data.target names {listing(twice)} more than once: name each column once.")
    hint = "set data.target to a column of the table."
    if len(table.names) == 1:
        hint = (
            "its first line must hold all column names, with commas, semicolons, tabs or bars between them."
        )
    elif looks_like_data(table.names):
        hint = "its first row looks like data, so put a row of column names above it."
    table.require(names, hint)
    return names


def learn_targets(
    table: TableFile, names: list[str], wish: Wish
) -> tuple[dict[str, Any], Task, Tensor, list[str]]:
    """Returns what to remember of the targets (JSON values), the task, the targets and notes.

    Every row needs a target. One column of texts or booleans is classes, and so is one of whole
    numbers with at most 20 different ones that are no more than 5 % of the rows (two are always
    few enough); other numbers are regression. Several columns of 0 and 1 are multi-label, several
    of other numbers are several regressions.

    Raises UserError for missing targets, a single class, a text where a number is needed.
    """
    raw = table.read(names)
    style = {name: _style(raw[name], table.separator) for name in names}
    memory: dict[str, Any] = {"names": names, "styles": style}
    values = {name: _numbers(raw[name], style[name]) for name in names}
    if len(names) == 1:
        return _learn_one(table, names[0], raw[names[0]], values[names[0]], wish, memory)
    binary = all(v is not None and bool(v.is_in([0.0, 1.0]).all()) for v in values.values())
    if wish == "classification" and not binary:
        raise UserError(
            f"{table.path}: several targets are several labels a row, each 0 or 1, and {listing(names)} have"
            " other or missing values: correct them, name one target, or set data.task=regression."
        )
    if binary and wish != "regression":
        memory |= {"task": "multi-label", "classes": names}
    else:
        memory |= {"task": "regression", "classes": []}
    return memory, memory["task"], read_targets(table, raw, memory), []


def _learn_one(
    table: TableFile, name: str, raw: pl.Series, number: pl.Series | None, wish: Wish, memory: dict[str, Any]
) -> tuple[dict[str, Any], Task, Tensor, list[str]]:
    notes: list[str] = []
    numeric = number is not None
    if number is not None and wish == "auto":
        distinct, whole = number.drop_nulls().n_unique(), bool((number == number.floor()).all())
        classes = whole and few_enough(distinct, len(number))
        if classes:
            notes.append(
                f"target {name!r} has {distinct} different whole numbers, so they are taken as classes"
                " (data.task=regression predicts them as numbers)."
            )
    else:
        classes = wish == "classification" or (wish == "auto" and not numeric)
    if not classes:
        memory |= {"task": "regression", "classes": []}
        values = read_targets(table, raw.to_frame(), memory)
        if bool((values == values[0]).all()):
            raise UserError(
                f"{table.path}: the target {name!r} is {float(values[0, 0]):g} in every row, so there is"
                " nothing to learn: choose another data.target."
            )
        return memory, "regression", values, notes
    text = _labels(raw)
    _refuse_missing(table, name, text)
    found = _classes(text, number)
    if len(found) == 1:
        raise UserError(
            f"{table.path}: the target {name!r} is {found[0]!r} in every row, so there is nothing to tell"
            " apart: choose another data.target, or add rows of another class."
        )
    if len(found) > max(2, len(text) // 2):
        regress = ", or set data.task=regression" if numeric else ""
        raise UserError(
            f"{table.path}: the target {name!r} has {len(found)} different values in {len(text)} rows, too"
            f" many for classes, such as {found[0]!r}: choose another data.target{regress}."
        )
    memory |= {"task": "multi-class" if len(found) > 2 else "binary", "classes": found, "numeric": numeric}
    return memory, memory["task"], read_targets(table, raw.to_frame(), memory), notes


def read_targets(table: TableFile, raw: pl.DataFrame, memory: dict[str, Any]) -> Tensor:
    """Returns the targets of a table read with `learn_targets`' memory, as `Part.targets` has them."""
    names, task = memory["names"], memory["task"]
    if task in ("binary", "multi-class"):
        return _class_numbers(table, names[0], raw[names[0]], memory)
    kind = np.float32 if task == "multi-label" else np.float64
    columns = []
    for name in names:
        text = simplified(raw[name])
        if text is None:
            raise _not_single(table, name)
        _refuse_missing(table, name, text)
        number = _as_numbers(text, memory["styles"][name])
        bad = number.is_null() | (number.abs() > float(np.finfo(np.float32).max))
        if task == "multi-label":
            bad |= ~number.is_in([0.0, 1.0])
        if bad.fill_null(True).any():
            i = int(bad.fill_null(True).arg_max())  # type: ignore[arg-type]
            need = (
                "0 or 1, as a label is" if task == "multi-label" else "a finite number, as regression needs"
            )
            raise UserError(
                f"{table.path}: the target {name!r} in row {table.file_row(i)} is {str(text[i])!r} and not"
                f" {need}: correct it or leave the row out."
            )
        columns.append(torch.from_numpy(number.to_numpy().astype(kind)))
    return torch.stack(columns, dim=1)  # (N, O)


def _class_numbers(table: TableFile, name: str, raw: pl.Series, memory: dict[str, Any]) -> Tensor:
    text, classes = _labels(raw), memory["classes"]
    _refuse_missing(table, name, text)
    if memory["numeric"]:  # 1 and 1.0 are one class
        style = memory["styles"][name]
        key = _as_numbers(text, style)
        known = numbers(pl.Series(classes, dtype=pl.String), style)
    else:
        key, known = text, pl.Series(classes, dtype=pl.String)
    place = key.replace_strict(known, list(range(len(classes))), default=None, return_dtype=pl.Int64)
    if place.null_count():
        i = int(place.is_null().arg_max())  # type: ignore[arg-type]
        raise UserError(
            f"{table.path}: the target {name!r} in row {table.file_row(i)} is {text[i]!r}, which is none of"
            f" the classes learnt ({listing(classes)}): correct it or leave the row out."
        )
    return torch.from_numpy(place.to_numpy().copy())


def _style(raw: pl.Series, separator: str | None) -> str:
    if raw.dtype != pl.String:
        return "."
    text = simplified(raw)
    assert text is not None
    counts = text.drop_nulls().rename("text").value_counts(name="n")  # the user's column may be called "n"
    return best_style(counts["text"], counts["n"], separator)[0]


def _as_numbers(values: pl.Series, style: str) -> pl.Series:
    return numbers(values, style) if values.dtype == pl.String else values.cast(pl.Float64)


def _numbers(raw: pl.Series, style: str) -> pl.Series | None:
    """Returns float64 where every value that is not missing is a number, else None."""
    values = simplified(raw)
    if values is None or not (values.dtype == pl.String or values.dtype.is_numeric()):
        return None
    found = _as_numbers(values, style)
    return found if found.null_count() == values.null_count() < len(values) else None


def _labels(raw: pl.Series) -> pl.Series:
    """Returns class names. "None" is one, since a class "no disorder" is often written so."""
    if raw.dtype == pl.Float32 or raw.dtype == pl.Float64:
        return raw.fill_nan(None).cast(pl.String)
    if isinstance(raw.dtype, (pl.List, pl.Array, pl.Struct)) or raw.dtype == pl.Binary:
        raise UserError(f"the target {raw.name!r} has lists or bytes instead of single values: name another.")
    text = raw.cast(pl.String).str.strip_chars()
    lower = text.str.to_lowercase()
    return text.set(lower.is_in([m for m in MISSING if m != "none"]), None)


def _classes(text: pl.Series, number: pl.Series | None) -> list[str]:
    """Returns the sorted class names; numbers by value, each as the file first and shortest writes it."""
    if number is None:
        return sorted(text.unique().to_list())
    named: dict[float, str] = {}
    for value, name in zip(number.to_list(), text.to_list(), strict=True):
        if value not in named or len(name) < len(named[value]):
            named[value] = name
    return [named[value] for value in sorted(named)]


def _refuse_missing(table: TableFile, name: str, values: pl.Series) -> None:
    count = values.null_count()
    if not count:
        return
    rows = values.is_null().arg_true().head(5).to_list()
    shown = ", ".join(str(table.file_row(i)) for i in rows)
    more = f" and {count - len(rows)} more" if count > len(rows) else ""
    raise UserError(
        f"{table.path}: the target {name!r} is missing in row{'s' if count > 1 else ''} {shown}{more}:"
        " fill it in, or leave such rows out."
    )


def _not_single(table: TableFile, name: str) -> UserError:
    return UserError(
        f"{table.path}: the target {name!r} has lists or bytes instead of single values: name another."
    )
