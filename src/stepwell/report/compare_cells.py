"""A comparison's table in words: the same cells for the terminal and the page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from stepwell.report.wording import Metric, metric, significant

ALPHA = 0.05


@dataclass(frozen=True)
class Line:
    """An entry. state: "reference", "alike", "different" (by more than chance) or "failed"."""

    name: str
    tuned: list[str]
    test: str
    difference: str
    p: str
    to_target: str
    decades: str
    diverged: str
    state: str


def lines(result: dict[str, Any]) -> list[Line]:
    """A line for each entry, in the result's order."""
    shown, keys = metric(result["metric"]), tuned_keys(result)
    return [
        Line(
            entry["name"],
            [value_text(entry["tuned"][key]) if key in entry["tuned"] else "" for key in keys],
            plus_minus(shown, entry["test"][result["metric"]]),
            _difference(entry, result, shown),
            _p((entry["difference"] or {}).get("p_holm")),
            "–" if entry["updates_to_target"] is None else f"{entry['updates_to_target']:,}",
            _decades(entry),
            f"{entry['diverged']} of {entry['trainings']}",
            state(entry, result),
        )
        for entry in result["entries"]
    ]


def tuned_keys(result: dict[str, Any]) -> list[str]:
    """Every key that some entry is tuned over."""
    return list(dict.fromkeys(key for entry in result["entries"] for key in entry["tuned"]))


def state(entry: dict[str, Any], result: dict[str, Any]) -> str:
    """Where an entry stands beside the reference on the test part."""
    if not entry["finished"]:
        return "failed"
    if entry["name"] == result["reference"]:
        return "reference"
    p = entry["difference"]["p_holm"]
    return "different" if p is not None and p < ALPHA else "alike"


def plus_minus(shown: Metric, found: dict[str, Any], sign: bool = False) -> str:
    """97.12 ± 0.41: a mean and half its interval, shares in per cent; the mean alone without an interval."""
    mean, low, high = found["mean"], found["low"], found["high"]
    if mean is None:
        return "–"
    scale = 100 if shown.percent else 1
    half = None if low is None or high is None else scale * (high - low) / 2
    decimals = _decimals(scale * mean, half, shown.percent)
    text = f"{scale * mean:{'+' if sign else ''},.{decimals}f}"
    return (text if half is None else f"{text} ± {half:,.{decimals}f}").replace("-", "−")


def _decimals(mean: float, half: float | None, share: bool) -> int:
    """Two digits of the half width; of a mean alone four, of a share in per cent two decimals."""
    if share:
        return 2
    size = half if half else abs(mean) / 100
    return min(max(1 - math.floor(math.log10(size)), 0), 10) if size else 4


def value_text(value: Any) -> str:
    """A tried value in few letters."""
    if isinstance(value, float):
        return significant(value, 3)
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def at_text(entry: dict[str, Any]) -> str:
    """The values that an entry is tuned to: lr 0.003, decay 0.01."""
    return ", ".join(f"{key.rpartition('.')[2]} {value_text(v)}" for key, v in entry["tuned"].items())


def _difference(entry: dict[str, Any], result: dict[str, Any], shown: Metric) -> str:
    if entry["name"] == result["reference"]:
        return "reference"
    return plus_minus(shown, entry["difference"], sign=True) if entry["finished"] else "–"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _decades(entry: dict[str, Any]) -> str:
    """Of the first tuned key with numbers above 0."""
    widths = (found["decades"] for found in entry["tunability"].values() if found)
    width = next((width for width in widths if width is not None), None)
    return "" if width is None else f"{width:.1f}"


def tuned_numbers(result: dict[str, Any]) -> str | None:
    """The key that `Line.decades` speaks of; None where there is none."""
    for entry in result["entries"]:
        for key, found in entry["tunability"].items():
            if found and found["decades"] is not None:
                return key
    return None


def target_text(result: dict[str, Any]) -> str:
    """The validation metric's target."""
    value = result["target"]["value"]
    return "–" if value is None else metric(result["metric"]).text(value)
