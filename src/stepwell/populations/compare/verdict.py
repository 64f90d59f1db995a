"""What a comparison has shown, in a sentence or two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ALPHA = 0.05
NAMED = 4  # entries that a sentence names; more are counted


def verdict(entries: Sequence[dict[str, Any]], reference: str | None, higher: bool, seeds: int) -> str:
    """Says which entries differ from the reference on the test part by more than chance.

    entries: those of result.json, whose "difference" is entry − reference with "p_holm".
    """
    if reference is None:
        return "No entry has a run that did not diverge."
    others = [entry for entry in entries if entry["name"] != reference]
    failed = [entry["name"] for entry in others if not entry["finished"]]
    tested = [(entry["name"], entry["difference"]) for entry in others if entry["finished"]]
    said = f"{reference} was best on the validation part"
    if seeds == 1:
        return f"{said}; one seed says nothing of chance, so nothing is tested: give seeds=5 or more."
    sure = [(name, d["mean"]) for name, d in tested if d["p_holm"] is not None and d["p_holm"] < ALPHA]
    worse = [name for name, mean in sure if (mean < 0) == higher]
    better = [name for name, mean in sure if (mean < 0) != higher]
    alike = [name for name, _ in tested if name not in worse and name not in better]
    parts = []
    if worse and not alike and not better:
        other = "the other" if len(worse) == 1 else f"all {len(worse)} others"
        parts.append(f"{said}, and on the test part significantly better than {other}.")
    elif alike and not worse and not better:
        other = "the other" if len(alike) == 1 else f"any of the {len(alike)} others"
        parts.append(
            f"{said}; on the test part its difference to {other} is not significant with {seeds} seeds."
        )
    else:
        parts.append(f"{said}.")
        for names, what in ((better, "better"), (worse, "worse")):
            if names:
                parts.append(f"On the test part {_listed(names)} {_is(names)} significantly {what}.")
        if alike:
            parts.append(f"The difference to {_listed(alike)} is not significant with {seeds} seeds.")
    if failed:
        parts.append(f"Of {_listed(failed)} every run diverged.")
    return " ".join(parts)


def _listed(names: Sequence[str]) -> str:
    if len(names) > NAMED + 1:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} others"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
