"""Reads what a training run has written so far, whole or cut off."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stepwell.errors import UserError

Row = dict[str, Any]


@dataclass
class LayerHistory:
    """L2 norms by layer over time.

    updates: (T,) · gradient: (T, L) ‖g‖ · ratio: (T, L) ‖Δw‖ / ‖w‖. NaN where nothing was written.
    """

    names: list[str]
    updates: np.ndarray
    gradient: np.ndarray
    ratio: np.ndarray


@dataclass
class UnitHistory:
    """Shares of dead units, or of saturated outputs, by layer over time.

    updates: (T,) · shares: (T, L) in [0, 1], NaN where nothing was known.
    """

    names: list[str]
    updates: np.ndarray
    shares: np.ndarray


@dataclass
class RunFolder:
    """A run as the report needs it.

    rows: split → rows of metrics.jsonl without the layers, which are in `layers` as arrays (dicts
    of 100 layers a row would take gigabytes). missing: plain sentences about what is not there.
    """

    path: Path
    recipe_text: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    events: list[Row] = field(default_factory=list)
    timing: list[Row] = field(default_factory=list)
    layers: LayerHistory | None = None
    units: dict[str, UnitHistory] = field(default_factory=dict)  # "dead" and "saturated"
    missing: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.result.get("name") or self.path.resolve().name)

    @property
    def task(self) -> str:
        return str(self.result.get("task") or self.evaluation.get("task") or "")

    @property
    def last_update(self) -> float:
        """How far the run has come, in updates; 0 where nothing tells."""
        rows = [*self.timing, *(row for rows in self.rows.values() for row in rows)]
        every = [number(row.get("update")) for row in rows]
        return max((at for at in [number(self.result.get("updates")), *every] if at is not None), default=0)

    @property
    def classes(self) -> list[str]:
        return [str(name) for name in self.evaluation.get("classes") or self.result.get("classes") or []]


def number(value: Any) -> float | None:
    """Returns the value as a finite float, or None: bools, texts, NaN and infinities cannot be drawn."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number that is larger than any float
        return None


def series(rows: list[Row], key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns updates, values of `key` and epochs, each (N,) float64, where the value is finite."""
    points = [(row.get("update"), number(row.get(key)), number(row.get("epoch"))) for row in rows]
    kept = [
        (x, y, math.nan if e is None else e) for x, y, e in points if number(x) is not None and y is not None
    ]
    columns = np.array(kept, dtype=np.float64).reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2]


def read_run(path: Path) -> RunFolder:
    """Reads a run folder; whatever is missing or damaged is named in `missing`.

    Raises UserError if the path is no folder or holds none of a run's files.
    """
    path = Path(path)
    if not path.is_dir():
        what = "is a file, not a run folder" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}: name the folder that 'stepwell train' has written (runs/NAME).")
    if not any((path / name).is_file() for name in ("recipe.yaml", "metrics.jsonl", "result.json")):
        raise UserError(
            f"{path} is not a run folder (it has no recipe.yaml, metrics.jsonl or result.json): "
            "name the folder that 'stepwell train' has written (runs/NAME)."
        )
    run = RunFolder(path)
    _read_recipe(run)
    _read_metrics(run)
    run.timing = list(_json_lines(path / "timing.jsonl", run.missing))
    run.result = _json_object(
        path / "result.json",
        "the run was interrupted, or is still going; there is no test result yet",
        run.missing,
    )
    run.evaluation = _json_object(
        path / "evaluation.json",
        "the test part was not evaluated, so single predictions cannot be shown",
        run.missing,
    )
    status = run.result.get("status", "finished")
    if status != "finished":
        run.missing.append(f"The run did not finish: its status is “{status}”.")
    return run


def _read_recipe(run: RunFolder) -> None:
    try:
        run.recipe_text = (run.path / "recipe.yaml").read_text(encoding="utf-8", errors="replace")
        recipe = yaml.safe_load(run.recipe_text)
    except FileNotFoundError:
        run.missing.append("recipe.yaml is not there: the settings of this run are unknown.")
    except (OSError, yaml.YAMLError) as error:
        run.missing.append(f"recipe.yaml cannot be read ({_first_line(error)}).")
    else:
        run.recipe = recipe if isinstance(recipe, dict) else {}


def _read_metrics(run: RunFolder) -> None:
    names: dict[str, int] = {}
    updates: list[float] = []
    norms: list[np.ndarray] = []  # each (2, L so far): gradient norm, update-to-weight ratio
    units: list[Row] = []
    for row in _json_lines(run.path / "metrics.jsonl", run.missing):
        layers, shares = row.pop("layers", None), row.pop("units", None)
        if "event" in row:
            run.events.append(row)
            continue
        run.rows.setdefault(str(row.get("split", "train")), []).append(row)
        if isinstance(shares, dict) and number(row.get("update")) is not None:
            units.append({"update": row["update"], "units": shares})
        if isinstance(layers, dict) and layers and number(row.get("update")) is not None:
            for name in layers:
                names.setdefault(name, len(names))
            values = np.full((2, len(names)), np.nan, dtype=np.float32)
            for name, norm in layers.items():
                values[:, names[name]] = _gradient_and_ratio(norm)
            updates.append(row["update"])
            norms.append(values)
    if names:
        padded = np.full((2, len(norms), len(names)), np.nan, dtype=np.float32)
        for at, values in enumerate(norms):
            padded[:, at, : values.shape[1]] = values
        run.layers = LayerHistory(list(names), np.array(updates, dtype=np.float64), padded[0], padded[1])
    for kind in ("dead", "saturated"):
        if history := _unit_history(units, kind):
            run.units[kind] = history
    if not run.rows:
        run.missing.append("metrics.jsonl holds no measurements yet: there are no curves to draw.")


def _unit_history(rows: list[Row], kind: str) -> UnitHistory | None:
    """The shares of one kind, of the layers that have it, in their order of execution."""
    shares = [
        {n: s[kind] for n, s in row["units"].items() if isinstance(s, dict) and kind in s} for row in rows
    ]
    names = list(dict.fromkeys(name for row in shares for name in row))
    if not names:
        return None
    values = [[math.nan if (v := number(row.get(name))) is None else v for name in names] for row in shares]
    return UnitHistory(names, np.array([row["update"] for row in rows], dtype=np.float64), np.array(values))


def _gradient_and_ratio(norm: dict[str, Any]) -> tuple[float, float]:
    gradient, update, weight = (number(norm.get(key)) for key in ("grad", "update", "weight"))
    ratio = update / weight if update is not None and weight else math.nan
    return (math.nan if gradient is None else gradient), ratio


def _json_lines(path: Path, missing: list[str]) -> Iterator[Row]:
    """Yields the objects of a JSON-lines file; a last line cut off by a kill is normal, and skipped."""
    damaged, damaged_last = 0, False
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                damaged_last = not isinstance(row, dict)
                damaged += damaged_last
                if isinstance(row, dict):
                    yield row
    except FileNotFoundError:
        pass
    except OSError as error:
        missing.append(f"{path.name} cannot be read ({_first_line(error)}).")
    damaged -= damaged_last
    if damaged:
        missing.append(f"{path.name} has {damaged} line{'s' * (damaged > 1)} that cannot be read; skipped.")


def _json_object(path: Path, meaning: str, missing: list[str]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing.append(f"{path.name} is not there: {meaning}.")
    except (OSError, ValueError) as error:
        missing.append(f"{path.name} cannot be read ({_first_line(error)}): {meaning}.")
    else:
        if isinstance(value, dict):
            return value
        missing.append(f"{path.name} does not hold a JSON object: {meaning}.")
    return {}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
