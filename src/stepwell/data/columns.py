"""Turns a table's columns into numbers: what is learnt of a column in training, and its use.

A learnt column is a JSON mapping with `name`, `kind` and what its kind needs:

    number, boolean   (x − offset), missing → `fill` (median), and 1 where missing if `indicator`
    date              `parts` (year, month, day, weekday 1–7, hour) that varied in training, and days
                      since `reference`; missing → `fill` (median), and an indicator as above
    category          one column of 0 and 1 for each of `values` (most frequent first), then one for
                      all others if `other`, then one for missing if `missing`; `rare`, with `other`
                      only: training's further values, or null where they are more than MOST_RARE

A category that training did not have is 1 in `other` where there is such a column, else it is 0 in
all of them; `unseen` finds it. Everything is learnt from the training rows, the spellings for "no
value" that a column of numbers has (`strays`) and the format of its dates too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from stepwell.data.statistics import LARGEST, MOST_SCALE
from stepwell.errors import UserError

MISSING = ["", "na", "n/a", "nan", "null", "none", "?", "<na>", "#n/a"]  # compared without case
MOST_CATEGORIES = 32
MOST_RARE = 1000  # further categories whose names are kept, to tell new ones from rare ones
MOST_STRAYS = 5
MOSTLY = 0.9  # share of a column's values that must be numbers (dates) for it to be one of numbers
DATE_FORMATS = [
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M %p",
    "%m/%d/%y",
    "%d/%m/%y",
    "%m/%d/%y %H:%M",
    "%d/%m/%y %H:%M",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%y",
    "%d-%m-%Y",
    "%d-%m-%Y %H:%M:%S",
    "%d-%m-%Y %H:%M",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
]
_PARTS = ["year", "month", "day", "weekday", "hour"]
_DAY = 86_400_000_000  # microseconds
_YEARS = (1600, 2299)  # first and last that a text is a date of

Column = dict[str, Any]
Row = Callable[[int], int]


def simplified(values: pl.Series) -> pl.Series | None:
    """Returns the values as text, float64, booleans or UTC datetimes; None for lists and the like.

    Text is stripped of surrounding blanks; every spelling of "no value", and NaN, becomes null.
    """
    kind = values.dtype
    if kind == pl.Null or isinstance(kind, (pl.Categorical, pl.Enum)):
        values = values.cast(pl.String)
    if values.dtype == pl.String:
        text = values.str.strip_chars()
        return text.set(text.str.to_lowercase().is_in(MISSING), None)
    if kind == pl.Boolean:
        return values
    if kind.is_numeric():
        return values.cast(pl.Float64).fill_nan(None)
    if kind == pl.Date:
        return values.cast(pl.Datetime("us"))
    if isinstance(kind, pl.Datetime):
        utc = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if kind.time_zone else values
        return utc.cast(pl.Datetime("us"))
    if kind == pl.Time:
        return values.cast(pl.Int64).cast(pl.Float64) / 3.6e12  # hours
    if isinstance(kind, pl.Duration):
        return values.dt.total_microseconds().cast(pl.Float64) / _DAY  # days
    return None


def numbers(text: pl.Series, style: str) -> pl.Series:
    """Returns float64, null where a text is no number.

    style: "." (3.14) · "1,000.5" (commas, blanks or apostrophes between groups of three digits) ·
    "," (3,14) · "1.000,5" (points between groups of three). All but the first take a sign of
    currency or per cent, which is dropped: 5% is 5.
    """
    if style != ".":
        text = text.str.replace("−", "-", literal=True).str.replace(r"^([-+]?)\s*[$€£¥]\s*", "${1}")
        text = text.str.replace(r"\s*[$€£¥%]$", "")
    if style in _GROUPED:
        pattern, marks = _GROUPED[style]
        grouped = text.str.contains(pattern).fill_null(False)
        text = text.str.replace_all(marks, "").zip_with(grouped, text)
        if style == "1.000,5":  # between groups of three a point is never decimal: 1.5 is no number
            text = text.set(~grouped & text.str.contains(".", literal=True).fill_null(False), None)
    if "," in style and style != "1,000.5":
        # In style "," 1.5 stays a number: one file has commas, the next one points.
        text = text.str.replace(",", ".", literal=True)
    return text.cast(pl.Float64, strict=False).fill_nan(None)


_GROUPED = {  # what a grouped number looks like, and the marks to take out of it
    "1,000.5": (r"^[-+]?\d{1,3}([,\s'’]\d{3})+(\.\d*)?$", r"[,\s'’]"),
    "1.000,5": (r"^[-+]?\d{1,3}([.\s'’]\d{3})+(,\d*)?$", r"[.\s'’]"),
}


def number_styles(separator: str | None) -> list[str]:
    """Returns the styles to try, the likelier first: 1,234 between semicolons is a little over one."""
    return [".", "1,000.5", ",", "1.000,5"] if separator in (None, ",") else [".", ",", "1.000,5", "1,000.5"]


def best_style(text: pl.Series, weight: pl.Series, separator: str | None) -> tuple[str, int]:
    """Returns the style in which most of the values are numbers, and how many (weighted) they are."""
    best, most = ".", -1
    for style in number_styles(separator):
        if (found := int(weight.filter(numbers(text, style).is_not_null()).sum())) > most:
            best, most = style, found
        if most == int(weight.sum()):
            break
    return best, most


def dates(text: pl.Series, form: str, years: tuple[int, int] = _YEARS) -> pl.Series:
    """Returns UTC datetimes (microseconds), null where a text has another form.

    Of these years, the last included: "%Y" alone takes the version number 1-2-3 for a day of year 1.
    """
    plain = text.str.replace(r"^(\d{4}-\d{1,2}-\d{1,2})T", "${1} ").str.replace(r"Z$", "+00:00")
    plain = plain.str.replace(r"^(\d{4}-\d{1,2})$", "${1}-01")  # a month is its first day
    found = plain.str.to_datetime(form, strict=False, time_unit="us", exact=True)
    if isinstance(found.dtype, pl.Datetime) and found.dtype.time_zone:
        found = found.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    year = found.dt.year()
    return found.set(((year < years[0]) | (year > years[1])).fill_null(False), None)


def booleans(text: pl.Series) -> pl.Series:
    """true and false in any case; other texts become null."""
    lower = text.str.to_lowercase()
    return (lower == "true").set(~lower.is_in(["true", "false"]), None)


def parse(column: Column, values: pl.Series) -> pl.Series:
    """Returns the simplified values in the column's own type: text, float64 or datetimes.

    Null where a value is missing, and where it is not of this kind: `misfit` tells the two apart.
    """
    kind, own = column["kind"], values.dtype
    if kind == "category":
        return values if own == pl.String else values.cast(pl.String)
    if kind == "date":
        if isinstance(own, pl.Datetime):
            return values
        text = values.cast(pl.String)
        # A Parquet file has dates, not texts; a new file that is CSV writes them as ISO 8601.
        first, *rest = [column["format"]] if column["format"] else DATE_FORMATS[:4]
        found = dates(text, first)
        for form in rest:
            found = found.fill_null(dates(text, form))
        return found
    if own == pl.Boolean or (own == pl.Float64 and kind == "number"):
        return values.cast(pl.Float64)
    text = values.cast(pl.String)
    if kind == "boolean":
        return booleans(text).cast(pl.Float64)
    return numbers(text, column["style"])


def misfits(column: Column, values: pl.Series, parsed: pl.Series) -> pl.Series:
    """Returns (N,) booleans: which values are neither missing nor of the column's kind."""
    wrong = values.is_not_null() & parsed.is_null()
    if column["strays"]:
        wrong &= ~values.cast(pl.String).is_in(column["strays"])
    return wrong


def learn(
    name: str, raw: pl.Series, train: pl.Series, separator: str | None, row: Row, path: str = ""
) -> tuple[Column | None, list[str]]:
    """Returns what the training rows tell of a column, or None where it is of no use, and notes.

    raw: (N,) the whole column; train: (N,) booleans; row: index → row in the file, for messages.
    separator: the text file's, which tells how it may write numbers; None for Parquet.
    Values outside the training rows change nothing but the notes, which say what is no value there.
    """
    values = simplified(raw)
    if values is None:
        return None, [f"column {name!r} is left out: its values are lists or bytes, not single values."]
    present = values.filter(train).drop_nulls()
    if present.is_empty():
        return None, [f"column {name!r} is left out: it is empty in every training row."]
    if values.dtype == pl.String:
        column, notes = _kind_of_text(name, present, separator)
    else:
        kind = {pl.Float64: "number", pl.Boolean: "boolean"}.get(values.dtype.base_type(), "date")
        column, notes = {"name": name, "kind": kind, "style": ".", "format": None, "strays": []}, []
    if column["kind"] == "category":
        more, why = _learn_category(name, values.filter(train))
        if values.dtype == pl.String and (mixed := _mixed_dates(name, present)):
            notes, why = [], [*why, mixed]  # says why it has become categories, or is left out
    else:
        parsed = parse(column, values)
        _refuse(column, values, parsed, row, path, unseen_missing=True)
        wrong = values.filter(misfits(column, values, parsed))
        if len(wrong):
            notes.append(
                f"column {name!r}: {len(wrong)} of the validation and test rows' values, such as"
                f" {shortened(wrong[0])}, are taken as missing: the training rows have {column['kind']}s."
            )
        more, why = (_learn_date if column["kind"] == "date" else _learn_number)(name, parsed, train)
    return (None, why) if more is None else (column | more, notes + why)


def _kind_of_text(name: str, present: pl.Series, separator: str | None) -> tuple[Column, list[str]]:
    # Names of our own: the user's column may be called "count" too.
    counts = present.rename("text").value_counts(name="n").sort(["n", "text"], descending=[True, False])
    text, weight = counts["text"], counts["n"]
    total = len(present)

    def share(parsed: pl.Series) -> float:
        return int(weight.filter(parsed.is_not_null()).sum()) / total

    column: Column = {"name": name, "kind": "category", "style": ".", "format": None, "strays": []}
    notes: list[str] = []
    style, found = best_style(text, weight, separator)
    part = found / total
    if share(booleans(text)) >= MOSTLY:
        candidate, part = column | {"kind": "boolean"}, share(booleans(text))
    elif part >= MOSTLY:
        candidate = column | {"kind": "number", "style": style}
        if style != ".":
            example = text.filter(numbers(text, ".").is_null() & numbers(text, style).is_not_null()).first()
            value = numbers(pl.Series([example]), style).item()
            notes.append(f"column {name!r}: {example!r} is read as the number {value:g}.")
    else:
        form, part, twin = _date_format(text, share)
        if form is None:
            if share(numbers(text, style)) >= 0.5:
                example = text.filter(numbers(text, style).is_null()).first()
                notes.append(
                    f"column {name!r} is read as categories, although most of its values are numbers:"
                    f" it also has texts such as {example!r}."
                )
            return column, notes
        candidate = column | {"kind": "date", "format": form}
        if twin:
            notes.append(f"column {name!r}: the month is taken to stand first in dates such as {text[0]!r}.")
    strays = sorted(text.filter(parse(candidate, text).is_null()).to_list())
    if part < 1 and (len(strays) > MOST_STRAYS or candidate["kind"] == "boolean"):
        notes.append(
            f"column {name!r} is read as categories, since {len(strays)} of its different texts are no"
            f" {candidate['kind']}s, such as {strays[0]!r}."
        )
        return column, notes[-1:]
    if strays and len(strays) <= MOST_STRAYS:
        candidate["strays"] = strays
        shown = ", ".join(repr(s) for s in strays)
        notes.append(
            f"column {name!r}: {shown} is taken as missing, since the other values are {candidate['kind']}s."
        )
    return candidate, notes


def _date_format(text: pl.Series, share: Callable[[pl.Series], float]) -> tuple[str | None, float, bool]:
    """Returns the format that most texts have, its share, and whether day and month may be swapped."""
    best, part = None, 0.0
    for form in _likely_formats(text):
        if (reached := share(dates(text, form))) > part:
            best, part = form, reached
    if best is None or part < MOSTLY:
        return None, part, False
    swapped = best.replace("%m/%d", "%d/%m")
    return best, part, swapped != best and share(dates(text, swapped)) == part


def _likely_formats(text: pl.Series) -> list[str]:
    """Returns the date formats that some of the different texts have.

    From all over the alphabet: the first may be alike, and every sixth of a file too.
    """
    few = text.sort().gather_every(-(-len(text) // 50))
    return [form for form in DATE_FORMATS if dates(few, form).is_not_null().any()]


def _mixed_dates(name: str, present: pl.Series) -> str | None:
    """Returns a note where most values are dates, but only if they are read in more than one format."""
    text = present.unique().sort()
    read = {form: dates(text, form).is_not_null() for form in _likely_formats(text)}
    if len(read) < 2:
        return None
    first = max(read, key=lambda form: int(read[form].sum()))
    any_form = pl.Series(np.logical_or.reduce([found.to_numpy() for found in read.values()]))
    others = text.filter(any_form & ~read[first])
    dated = present.is_in(text.filter(any_form).to_list()).mean()
    if others.is_empty() or float(dated or 0.0) < MOSTLY:  # type: ignore[arg-type]
        return None
    examples = f"{shortened(text.filter(read[first])[0])} and {shortened(others[0])}"
    return (
        f"column {name!r}: its dates are not read as dates, since they have more than one form, such as"
        f" {examples}: write all of them in one form."
    )


def _learn_category(name: str, train: pl.Series) -> tuple[Column | None, list[str]]:
    present = train.drop_nulls().rename("text")
    counts = present.value_counts(name="n").sort(["n", "text"], descending=[True, False])
    values, distinct, total = counts["text"].to_list(), len(counts), len(present)
    missing = bool(train.null_count())
    if distinct == 1 and not missing:
        return None, [f"column {name!r} is left out: it is {values[0]!r} in every training row."]
    if distinct == total > 1 or (distinct > MOST_CATEGORIES and distinct > MOSTLY * total):
        return None, [
            f"column {name!r} is left out: {distinct} different texts in {total} training rows, such as"
            f" {shortened(min(values))}."
        ]
    other = distinct > MOST_CATEGORIES
    notes = []
    if other:
        notes.append(
            f"column {name!r}: the {MOST_CATEGORIES} most frequent of {distinct} categories have a feature"
            " each, the others share one."
        )
    learnt: Column = {"values": values[:MOST_CATEGORIES], "other": other, "missing": missing}
    if other:
        rare = values[MOST_CATEGORIES:]
        learnt["rare"] = rare if len(rare) <= MOST_RARE else None
    return learnt, notes


def _learn_number(name: str, parsed: pl.Series, train: pl.Series) -> tuple[Column | None, list[str]]:
    own = parsed.filter(train)
    present = own.drop_nulls()
    missing = bool(own.null_count())
    if present.is_empty():
        return None, [f"column {name!r} is left out: it has no number in any training row."]
    least, most = float(present.min()), float(present.max())  # type: ignore[arg-type]
    if least == most and not missing:
        return None, [f"column {name!r} is left out: it is {least:g} in every training row."]
    if _is_row_number(name, own, train.arg_true()):
        return None, [f"column {name!r} is left out: it only numbers the rows."]
    fill = float(present.median())  # type: ignore[arg-type]
    # float32 has 24 bits: of 1700000000 ± 10 seconds nothing would be left. The median is subtracted
    # in float64 where one step of float32 is more than 1/10000 of the column's own spread.
    deviation = float(present.std(ddof=0) or 0.0)  # type: ignore[arg-type]
    coarse = max(abs(least), abs(most)) * 2.0**-23 > 1e-4 * deviation
    notes = []
    if least != most and deviation < 1 / MOST_SCALE:
        notes.append(
            f"column {name!r} has a deviation of {deviation:.1g}, too small to be standardized to 1: give it"
            " in a smaller unit."
        )
    return {"fill": fill, "indicator": missing, "offset": fill if coarse and least != most else 0.0}, notes


def _is_row_number(name: str, parsed: pl.Series, rows: pl.Series) -> bool:
    """rows: index in the file of each value."""
    if parsed.null_count() or len(parsed) < 3 or not bool((parsed == parsed.floor()).all()):
        return False
    counts_up = any(bool((parsed == rows + first).all()) for first in (0, 1))
    called_id = re.search(r"(?i:(^|[\W_])id|^index|^unnamed: 0)$|[a-z]I[dD]$", name) is not None
    return counts_up or (called_id and parsed.n_unique() == len(parsed))


def _learn_date(name: str, parsed: pl.Series, train: pl.Series) -> tuple[Column | None, list[str]]:
    own = parsed.filter(train)
    present = own.drop_nulls()
    if present.is_empty():
        return None, [f"column {name!r} is left out: it has no date in any training row."]
    moments = present.cast(pl.Int64).sort()
    missing = bool(own.null_count())
    if moments[0] == moments[-1] and not missing:
        return None, [f"column {name!r} is left out: it is {present[0]} in every training row."]
    parts = [part for part in _PARTS if getattr(present.dt, part)().n_unique() > 1]
    # Whole microseconds as integers: the same moment in every run and on every machine.
    fill = int(moments[(len(moments) - 1) // 2])
    return {"fill": fill, "indicator": missing, "reference": int(moments[0]), "parts": parts}, []


def _refuse(
    column: Column, values: pl.Series, parsed: pl.Series, row: Row, path: str, unseen_missing: bool
) -> None:
    """Raises UserError at the first value above LARGEST or, unless `unseen_missing`, does not fit."""
    name, place = column["name"], f"{path}, " if path else ""
    misfit = misfits(column, values, parsed)
    if misfit.any() and not unseen_missing:
        wrong = int(misfit.arg_max())  # type: ignore[arg-type]
        if column["kind"] == "date" and (year := _year_beyond(column, values[wrong])) is not None:
            raise UserError(
                f"{place}column {name!r}, row {row(wrong)}: {shortened(values[wrong])} is of the year {year},"
                f" and dates are read from {_YEARS[0]} to {_YEARS[1]}: mend the value, or leave it empty."
            )
        what = {"number": "a number", "date": "a date", "boolean": "true or false"}[column["kind"]]
        like = (
            f" like those before ({column['format']})"
            if column["kind"] == "date" and column["format"]
            else ""
        )
        raise UserError(
            f"{place}column {name!r}, row {row(wrong)}: {shortened(values[wrong])} is not {what}{like},"
            " as the training rows have: mend the value, or leave it empty."
        )
    if parsed.dtype == pl.Float64:
        huge = (parsed.abs() > LARGEST).fill_null(False)
        if huge.any():
            i = int(huge.arg_max())  # type: ignore[arg-type]
            raise UserError(
                f"{place}column {name!r}, row {row(i)}: {values[i]} is infinite or too large (the limit"
                f" is {LARGEST:g}): mend the value, give the column in a larger unit, or leave it empty."
            )


def _year_beyond(column: Column, value: Any) -> int | None:
    """Returns the year of a text that is no date for that alone."""
    forms = [column["format"]] if column["format"] else DATE_FORMATS[:4]
    moments = [dates(pl.Series([str(value)]), form, (0, 9999))[0] for form in forms]
    return next((moment.year for moment in moments if moment is not None), None)


def shortened(value: Any) -> str:
    """The value in quotes for a message, cut after 40 characters."""
    text = str(value)
    return repr(text if len(text) <= 40 else text[:39] + "…")


def feature_names(column: Column) -> list[str]:
    """Returns the names of the features that a column becomes, in order."""
    name, kind = column["name"], column["kind"]
    if kind == "category":
        names = [f"{name} = {value}" for value in column["values"]]
        names += [f"{name} = (other)"] if column["other"] else []
        return names + ([f"{name} = (missing)"] if column["missing"] else [])
    names = [f"{name} {part}" for part in [*column["parts"], "days"]] if kind == "date" else [name]
    return names + ([f"{name} (missing)"] if column["indicator"] else [])


def features(
    column: Column, raw: pl.Series, row: Row, path: str = "", unseen_missing: bool = False
) -> np.ndarray:
    """Returns (N, len(feature_names(column))) float32, row by row: batches give what the whole gives.

    unseen_missing: take a text among numbers (dates) that the training rows did not have as missing, as
    in the training file's other rows, where `learn` has a note of it; else UserError with its row.
    """
    values = simplified(raw)
    if values is None:
        raise UserError(f"{path}: column {column['name']!r} has lists or bytes instead of single values.")
    parsed = parse(column, values)
    if column["kind"] == "category":
        return _one_hot(column, parsed)
    _refuse(column, values, parsed, row, path, unseen_missing)
    missing = parsed.is_null().to_numpy()
    if column["kind"] == "date":
        filled = parsed.cast(pl.Int64).fill_null(column["fill"])
        moment = filled.cast(pl.Datetime("us")).dt
        block = [getattr(moment, part)().to_numpy() for part in column["parts"]]
        block.append((filled.to_numpy() - column["reference"]) / _DAY)
    else:
        block = [parsed.fill_null(column["fill"]).to_numpy() - column["offset"]]
    if column["indicator"]:
        block.append(missing)
    return np.stack([np.asarray(b, np.float32) for b in block], axis=1)


def unseen(column: Column, raw: pl.Series) -> pl.Series:
    """Returns those values of a column of categories that training did not have, each as often as it comes.

    None where training had too many rare ones for all to be known.
    """
    values = simplified(raw)
    known = [*column["values"], *((column.get("rare") or []) if column["other"] else [])]
    if values is None or (column["other"] and column.get("rare") is None):
        return pl.Series(dtype=pl.String)
    text = parse(column, values).drop_nulls()
    return text.filter(~text.is_in(known))


def _one_hot(column: Column, text: pl.Series) -> np.ndarray:
    values = column["values"]
    place = text.cast(pl.Enum(values), strict=False).to_physical().cast(pl.Int64)
    known = place.is_not_null().to_numpy()
    absent = text.is_null().to_numpy()
    block = np.zeros((len(text), len(feature_names(column))), np.float32)
    block[np.flatnonzero(known), place.drop_nulls().to_numpy()] = 1
    if column["other"]:
        block[:, len(values)] = ~known & ~absent
    if column["missing"]:
        block[:, -1] = absent
    return block
