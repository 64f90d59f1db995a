"""What verbs print: JSON for machines, words and numbers for people."""

from __future__ import annotations

import json
import sys
from typing import Any


def print_json(value: Any) -> None:
    """One JSON object on a line of its own."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))


def print_told(result: dict[str, Any], said: str, notes: list[str], as_json: bool) -> None:
    """A result for machines, or what is said of it to people; then the notes."""
    if as_json:
        print_json({**result, **notes_json(notes)})
    else:
        print(said)
        print_notes(notes)


def notes_json(notes: list[str]) -> dict[str, list[str]]:
    """The notes as a part of such an object."""
    return {"notes": notes} if notes else {}


def print_notes(notes: list[str]) -> None:
    """The notes, beside the result and not in it."""
    for note in notes:
        print(f"Note: {note.rstrip('.')}.", file=sys.stderr)


def print_metrics(test: dict[str, Any]) -> None:
    """A line a metric, with its interval."""
    from stepwell.report.wording import metric

    for name, entry in test.items():
        figure, of, target = metric(name), *name.partition("/")[1:]
        label = f"{metric(name.partition('/')[0]).label} of {target}" if of else figure.label
        form = ".2%" if figure.percent else ".4g"
        shown = "undefined here" if entry["value"] is None else f"{entry['value']:{form}}"
        if "low" in entry:
            shown += f"  [{entry['low']:{form}}, {entry['high']:{form}}]"
        print(f"  {label:<22} {shown}")


def counted(count: float, noun: str) -> str:
    """A number and what it counts: 3 epochs."""
    shown = f"{count:,.0f}" if isinstance(count, int) or count >= 100 else f"{count:.3g}"
    return f"{shown} {noun}{'' if count == 1 else 's'}"


def can_print(letter: str) -> bool:
    """Whether the terminal has this letter."""
    try:
        letter.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
