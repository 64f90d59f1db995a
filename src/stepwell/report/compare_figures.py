"""A comparison's figures: test metric by entry, loss against a tuned value, curves over time."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepwell.report.compare_cells import at_text, state, tuned_keys
from stepwell.report.figure import (
    Figure,
    Trace,
    axis,
    label,
    layout,
    log_axis,
    rounded,
    thinned,
    updates_axis,
)
from stepwell.report.wording import IN_TARGET_UNITS, Metric, elide_middle, metric

COLORS, DASHES = 8, ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "pentagon")
BANDS = 5  # curves beside each other whose intervals can still be told apart
STATES = {  # colour, symbol, name in the legend
    "reference": ("var(--train)", "diamond", "best on validation"),
    "alike": ("var(--test)", "circle", "no significant difference to it"),
    "different": ("var(--validation)", "square", "significant difference"),
}


def test_figure(result: dict[str, Any]) -> Figure | None:
    """Mean and interval of the test metric, an entry a row, the best at the top."""
    shown, key = metric(result["metric"]), result["metric"]
    there = [entry for entry in result["entries"] if entry["finished"]]
    if not there:
        return None
    names = [_name(entry) for entry in there]
    single: Trace = {
        "type": "scatter",
        "name": "single runs",
        "mode": "markers",
        "x": rounded([v for entry in there for v in entry["test"][key]["by_seed"].values()]),
        "y": [n for n, e in zip(names, there, strict=True) for _ in e["test"][key]["by_seed"]],
        "marker": {"color": "var(--neutral)", "size": 5, "symbol": "line-ns-open"},
        "hovertemplate": f"%{{x:{shown.hover_format}}}<extra>one run</extra>",
    }
    traces = [single]
    for kind, (color, symbol, name) in STATES.items():
        chosen = [(n, e) for n, e in zip(names, there, strict=True) if state(e, result) == kind]
        if chosen:
            traces.append(_intervals(chosen, key, shown, color, symbol, name))
    y = axis("", categoryorder="array", categoryarray=names[::-1], ticks="", type="category")
    return Figure(
        id="test",
        title=f"Test {shown.label} by entry",
        caption=f"Mean over {len(result['seeds'])} seeds with its 95 % interval, each entry at the value "
        "that is best on the validation part; strokes are single runs. The intervals are of each mean alone: "
        "whether two entries differ is tested on the differences seed by seed, in the table.",
        data=traces,
        layout=layout(
            axis(f"test {_title(key)}", tickformat=shown.tick_format), y, showlegend=True, hovermode="closest"
        ),
        height=130 + 30 * len(there),
    )


def _intervals(
    chosen: list[tuple[str, dict[str, Any]]], key: str, shown: Metric, color: str, symbol: str, name: str
) -> Trace:
    found = [entry["test"][key] for _, entry in chosen]
    half = [0.0 if f["low"] is None else (f["high"] - f["low"]) / 2 for f in found]
    return {
        "type": "scatter",
        "name": name,
        "mode": "markers",
        "x": rounded([f["mean"] for f in found]),
        "y": [n for n, _ in chosen],
        "error_x": {"type": "data", "array": rounded(half), "color": color, "thickness": 2, "width": 5},
        "marker": {"color": color, "size": 10, "symbol": symbol},
        "text": [label(at_text(entry)) for _, entry in chosen],
        "hovertemplate": f"%{{y}} %{{text}}<br>%{{x:{shown.hover_format}}}<extra></extra>",
    }


def rate_figures(result: dict[str, Any]) -> list[Figure]:
    """Validation loss against each key that takes numbers and is tuned; or is the one that is compared."""
    found = [_rate_figure(result, key, k) for k, key in enumerate(tuned_keys(result))]
    if not tuned_keys(result):
        found = [_range_figure(result)]
    return [figure for figure in found if figure is not None]


def _rate_figure(result: dict[str, Any], key: str, number: int) -> Figure | None:
    traces: list[Trace] = []
    failed: dict[float, list[str]] = {}
    every: list[float] = []
    by = result["tuned_by"]
    for place, entry in enumerate(result["entries"]):
        slice_ = [c for c in entry["candidates"] if _beside(c, entry, key)]
        if len(slice_) < 2 or not all(_is_number(c["values"][key]) for c in slice_):
            continue
        slice_.sort(key=lambda c: c["values"][key])
        ok = [
            (c["values"][key], c["validation"][by]) for c in slice_ if not c["diverged"] and not c["given_up"]
        ]
        for candidate in (c for c in slice_ if c["diverged"]):
            failed.setdefault(candidate["values"][key], []).append(entry["name"])
        ok = [(x, y) for x, y in ok if y is not None]
        every += [y for _, y in ok]
        if not ok:
            continue
        trace = _line(entry, place, [x for x, _ in ok], [y for _, y in ok], f"{_last(key)} %{{x:.3~g}}", by)
        best = entry["tuned"][key]
        trace["marker"] = {
            "color": trace["line"]["color"],
            "symbol": SYMBOLS[place // COLORS % len(SYMBOLS)],
            "size": [13 if x == best else 6 for x, _ in ok],
        }
        traces.append(trace)
    if not traces:
        return None
    if failed:
        traces.append(_failed(failed, max(every)))
    positive = all(x > 0 for trace in traces for x in trace["x"])
    values = np.array(every)
    return Figure(
        id=f"tuned-{number}",
        title=f"{metric(by).label[0].upper()}{metric(by).label[1:]} against {key}",
        caption=f"Mean validation {metric(by).label} over the seeds at each value that was tried; the large "
        "mark is the value that was chosen. A wide flat bottom is easy to tune; a best value at an end asks "
        "for a wider range. ✕ at the top: a run diverged."
        + (" Values that were given up on the way are left out." if result["halving"] else ""),
        data=traces,
        layout=layout(_value_axis(key, positive), _by_axis(by), showlegend=True),
        height=420,
        **(log_axis(values) if by == "loss" else {}),
    )


def _range_figure(result: dict[str, Any]) -> Figure | None:
    """Where a single range is compared, the test metric against it."""
    keys = list(result["compared"])
    entries = [entry for entry in result["entries"] if entry["finished"]]
    if len(keys) != 1 or not all(_is_number(e["values"][keys[0]]) for e in entries) or len(entries) < 3:
        return None
    key, name, shown = keys[0], result["metric"], metric(result["metric"])
    entries.sort(key=lambda entry: entry["values"][key])
    x = [entry["values"][key] for entry in entries]
    traces: list[Trace] = []
    for part, color in (("validation", "var(--validation)"), ("test", "var(--test)")):
        found = [entry[part][name] for entry in entries]
        half = [0.0 if f["low"] is None else (f["high"] - f["low"]) / 2 for f in found]
        traces.append(
            {
                "type": "scatter",
                "name": part,
                "mode": "lines+markers",
                "x": rounded(x, 12),
                "y": rounded([f["mean"] for f in found]),
                "error_y": {"type": "data", "array": rounded(half), "color": color, "width": 4},
                "line": {"color": color, "width": 2, "dash": "solid" if part == "validation" else "dot"},
                "marker": {"color": color, "size": 7},
                "hovertemplate": f"{_last(key)} %{{x:.3~g}}<br>%{{y:{shown.hover_format}}}"
                f"<extra>{part}</extra>",
            }
        )
    return Figure(
        id="range",
        title=f"{shown.label[0].upper()}{shown.label[1:]} against {key}",
        caption="Mean over the seeds with its 95 % interval. Choose by the validation part; the test part "
        "says what that choice is worth.",
        data=traces,
        layout=layout(
            _value_axis(key, min(x) > 0 and max(x) / min(x) > 20),
            axis(_title(name), tickformat=shown.tick_format),
            showlegend=True,
        ),
        height=380,
    )


def curve_figures(result: dict[str, Any]) -> list[Figure]:
    """Validation loss and metric over the run, an entry a line, each at its chosen value."""
    figures = []
    end = max((entry["updates"] for entry in result["entries"]), default=0)
    for key in ("loss", result["metric"]):
        shown, traces, every = metric(key), [], []
        drawn = [(k, e) for k, e in enumerate(result["entries"]) if e["curves"][key]["update"]]
        lows = [low for _, entry in drawn for low in entry["curves"][key]["low"]]
        # A band that reaches 0 has no place on a logarithmic axis.
        banded = len(drawn) <= BANDS and all(low is not None and low > 0 for low in lows)
        for place, entry in drawn:
            curve = entry["curves"][key]
            kept = thinned(np.array(curve["mean"]), 400)
            x = [curve["update"][k] for k in kept]
            if banded:
                traces.append(
                    _band(place, x, [curve["low"][k] for k in kept], [curve["high"][k] for k in kept])
                )
            trace = _line(entry, place, x, [curve["mean"][k] for k in kept], "update %{x:,}", key)
            trace["mode"] = "lines" if len(kept) > 1 else "markers"
            traces.append(trace)
            every += curve["mean"]
        if not traces:
            continue
        bands = " The bands are 95 % intervals over seeds." if banded else ""
        shapes = _target(result) if key == result["metric"] else []
        target = " The dashed line is the target." if shapes else ""
        figures.append(
            Figure(
                id=f"curves-{key.replace('_', '-')}",
                title=f"Validation {shown.label} over the run",
                caption=f"Mean over the seeds, each entry at its chosen value.{bands}{target}",
                data=traces,
                layout=layout(
                    updates_axis(end),
                    axis(f"validation {_title(key)}", tickformat=shown.tick_format),
                    shapes=shapes,
                    showlegend=True,
                ),
                height=400,
                **log_axis(np.array(every), begins=key == "loss"),
            )
        )
    return figures


def _target(result: dict[str, Any]) -> list[dict[str, Any]]:
    value = result["target"]["value"]
    if value is None:
        return []
    line = {"color": "var(--event)", "width": 1.5, "dash": "dash"}
    return [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value, "line": line}]


def _line(entry: dict[str, Any], place: int, x: list[Any], y: list[float], at: str, key: str) -> Trace:
    shown = metric(key)
    return {
        "type": "scatter",
        "name": label(elide_middle(entry["name"])),
        "legendgroup": str(place),
        "mode": "lines+markers",
        "x": rounded(x, 12),
        "y": rounded(y),
        "line": {"color": _color(place), "width": 2, "dash": DASHES[place // COLORS % len(DASHES)]},
        "hovertemplate": f"{at}<br>{label(shown.label)} %{{y:{shown.hover_format}}}"
        f"<extra>{label(entry['name'])}</extra>",
    }


def _band(place: int, x: list[Any], low: list[float], high: list[float]) -> Trace:
    return {
        "type": "scatter",
        "legendgroup": str(place),
        "showlegend": False,
        "hoverinfo": "skip",
        "mode": "lines",
        "x": rounded([*x, *x[::-1]], 12),
        "y": rounded([*high, *low[::-1]]),
        "fill": "toself",
        "fillcolor": _color(place),
        "opacity": 0.16,
        "line": {"width": 0},
    }


def _failed(failed: dict[float, list[str]], y: float) -> Trace:
    return {
        "type": "scatter",
        "name": "diverged",
        "mode": "markers",
        "x": rounded(list(failed), 12),
        "y": rounded([y] * len(failed)),
        "text": ["<br>".join(map(label, names)) for names in failed.values()],
        "marker": {"color": "var(--event)", "size": 9, "symbol": "x-thin-open", "line": {"width": 2}},
        "hovertemplate": "a run diverged at %{x:.3~g}:<br>%{text}<extra></extra>",
    }


def _value_axis(key: str, log: bool) -> dict[str, Any]:
    return axis(label(key), type="log", dtick=1) if log else axis(label(key))


def _by_axis(by: str) -> dict[str, Any]:
    return axis(f"validation {_title(by)}", tickformat=metric(by).tick_format)


def _title(key: str) -> str:
    """A metric with its unit."""
    return f"{metric(key).axis} (units of the target)" if key in IN_TARGET_UNITS else metric(key).axis


def _beside(candidate: dict[str, Any], entry: dict[str, Any], key: str) -> bool:
    """Whether a candidate differs from the chosen one in this key alone."""
    values = candidate["values"]
    return key in values and all(v == entry["tuned"][k] for k, v in values.items() if k != key)


def _name(entry: dict[str, Any]) -> str:
    return label(elide_middle(entry["name"], 40))


def _last(key: str) -> str:
    return label(key.rpartition(".")[2])


def _color(place: int) -> str:
    return f"var(--series-{place % COLORS})"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
