"""compare.csv: a line for each member, with the command that trains it alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepwell.populations.compare.command import command
from stepwell.populations.compare.grid import as_text
from stepwell.populations.compare.plan import Plan
from stepwell.populations.compare.result import main_metric, plain, status
from stepwell.populations.member import Outcome
from stepwell.training import files


def write_table(path: Path, plan: Plan, outcomes: Sequence[Outcome], result: dict[str, Any]) -> None:
    """Columns: entry, every varied key, seed, status, updates, chosen, metrics of both parts, command.

    chosen: whether the entry is tuned to this line's values, so that it is one of those compared. The
    metrics are those of the delivered weights, empty where the run diverged.
    """
    metric = main_metric(plan.data.task)
    keys = list(dict.fromkeys(key for entry in plan.entries for key in (*entry.values, *entry.tuned)))
    measured = [(part, m) for part in ("validation", "test") for m in ("loss", metric)]
    tuned = {entry["name"]: entry["tuned"] for entry in result["entries"]}
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    head = ["entry", *keys, "seed", "status", "updates", "chosen"]
    lines.writerow([*head, *(f"{part}_{m}" for part, m in measured), "command"])
    each = iter(outcomes)
    for entry, candidate in plan.candidates():
        values = {**entry.values, **candidate.values}
        varied = [_cell(values[key]) if key in values else "" for key in keys]
        chosen = str(plain(candidate.values) == tuned[entry.name]).lower()
        for seed in plan.seeds:
            outcome = next(each)
            state = status(outcome)
            found = [getattr(outcome, part).get(m, "") if state != "diverged" else "" for part, m in measured]
            about = [entry.name, *varied, seed, state, outcome.updates, chosen]
            lines.writerow([*about, *found, command(candidate.changes, seed)])
    files.write_text(path, text.getvalue())


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else as_text(value)
