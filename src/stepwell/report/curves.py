"""Figures over time: learning curves, hyperparameters, gradient norm, speed."""

from __future__ import annotations

from typing import Literal

import numpy as np

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
from stepwell.report.run_folder import Row, RunFolder, number, series
from stepwell.report.wording import (
    IN_TARGET_UNITS,
    Metric,
    counted,
    elide_middle,
    estimate,
    in_order,
    metric,
    plain,
    significant,
)

SPLITS = {
    "train": ("training", "var(--train)", "solid"),
    "validation": ("validation", "var(--validation)", "solid"),
    "test": ("test", "var(--test)", "dot"),
}
MAX_EVENT_TEXTS = 8
MIN_SPEEDS = 4  # measurements that make a curve
NOT_METRICS = {"update", "epoch", "split", "loss", "grad_norm"}


def learning_curves(run: RunFolder) -> list[Figure]:
    """The loss, then up to three metrics of the task, each against updates."""
    keys = {k for split in ("validation", "test", "train") for row in run.rows.get(split, []) for k in row}
    measured = [key for key in in_order(run.task, sorted(keys - NOT_METRICS)) if _ever_measured(run, key)][:3]
    figures = []
    for key in ["loss", *measured]:
        figure = _learning_curve(run, key, "full" if key == "loss" and len(measured) != 1 else "half")
        if figure:
            figures.append(figure)
    return figures


def _ever_measured(run: RunFolder, key: str) -> bool:
    return any(number(row.get(key)) is not None for rows in run.rows.values() for row in rows)


def _learning_curve(run: RunFolder, key: str, width: Literal["full", "half"]) -> Figure | None:
    shown = metric(key)
    traces, values, drawn = [], [], set()
    for split, (name, color, dash) in SPLITS.items():
        x, y, epoch = series(run.rows.get(split, []), key)
        if len(x):
            traces.append(_line(x, y, name, color, shown, epoch, dash))
            values.append(y)
            drawn.add(split)
    if not traces:
        return None
    final = _final_test(run, key, shown)
    every = np.concatenate(values)
    shapes, annotations = _event_marks(run.events)
    title = f"{shown.axis} (units of the target)" if key in IN_TARGET_UNITS else shown.axis
    y_axis = axis(label(title), tickformat=shown.tick_format)
    return Figure(
        id=f"curve-{key.replace('_', '-')}",
        title=shown.label[0].upper() + shown.label[1:],
        caption=_curve_caption(key, drawn, has_final=final is not None),
        data=traces + ([final] if final else []),
        layout=layout(
            updates_axis(run.last_update), y_axis, shapes=shapes, annotations=annotations, showlegend=True
        ),
        height=360,
        width=width,
        **log_axis(every, begins=key == "loss"),
    )


def _curve_caption(key: str, drawn: set[str], has_final: bool) -> str:
    """How to read the curve of a metric; of splits, only those that are `drawn` are spoken of."""
    captions = {
        "loss": "What training minimizes; lower is better.",
        "accuracy": "Share answered correctly; higher is better.",
        "rmse": "Root of the mean squared error, in the target's own units; lower is better, and large "
        "errors count most.",
        "r2": "Share of the target's variance that is explained: 1 is perfect, 0 is no better than always "
        "saying the mean, below 0 is worse than that.",
        "bits_per_character": "How many bits the model needs for a character of text it has not seen; lower "
        "is better, one bit less means half as many likely candidates.",
        "subset_accuracy": "Share of samples with all labels right; higher is better.",
        "mae": "Mean size of an error, in the target's own units; lower is better, and large errors count "
        "less than in the RMSE.",
        "f1": "Balance of precision and recall over the labels; higher is better, 100 % is perfect.",
        "perplexity": "Among how many equally likely characters the model hesitates; lower is better.",
    }
    text = captions.get(key, "Measured during training; compare the end of the curve with its best point.")
    if {"train", "validation"} <= drawn:
        text += (
            " Both curves high: underfitting. Training falling while validation rises: overfitting."
            if key == "loss"
            else " A widening gap between training and validation is overfitting."
        )
    elif "validation" in drawn and key in captions:
        text += " Once the validation curve is flat, more training no longer helps."
    return text + " The diamond is the final test result with its 95 % interval." * has_final


def _line(
    x: np.ndarray, y: np.ndarray, name: str, color: str, shown: Metric, epoch: np.ndarray, dash: str = "solid"
) -> Trace:
    kept = thinned(y)
    trace: Trace = {
        "type": "scatter",
        "name": name,
        "mode": "lines+markers" if len(kept) <= 40 else "lines",
        "x": rounded(x[kept], 12),
        "y": rounded(y[kept]),
        "line": {"color": color, "width": 2, "dash": dash},
        "marker": {"color": color, "size": 5},
        "hovertemplate": f"update %{{x:,}}<br>{label(shown.label)} %{{y:{shown.hover_format}}}"
        f"<extra>{label(name)}</extra>",
    }
    if np.isfinite(epoch).all():
        trace["customdata"] = rounded(epoch[kept], 5)
        trace["hovertemplate"] = trace["hovertemplate"].replace("<br>", " · epoch %{customdata:.2f}<br>", 1)
    return trace


def _final_test(run: RunFolder, key: str, shown: Metric) -> Trace | None:
    # Of labels, evaluations during training call the micro average simply "f1".
    name = "micro_f1" if key == "f1" and run.task == "multi-label" else key
    result = estimate((run.result.get("test") or {}).get(name))
    updates = number(run.result.get("updates"))
    if result is None or updates is None:
        return None
    value, limits = shown.written(result)
    trace: Trace = {
        "type": "scatter",
        "name": "final test",
        "mode": "markers",
        "x": [updates],
        "y": rounded([result.value]),
        "marker": {"color": "var(--test)", "size": 11, "symbol": "diamond"},
        "cliponaxis": False,
        "hovertemplate": f"final test result<br>{label(shown.label)} {value}<extra></extra>",
    }
    if result.low is not None and result.high is not None:
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": rounded([result.high - result.value]),
            "arrayminus": rounded([result.value - result.low]),
            "color": "var(--test)",
            "thickness": 2,
            "width": 5,
        }
        trace["hovertemplate"] = trace["hovertemplate"].replace(
            "<extra>", f"<br>95 % interval {limits}<extra>"
        )
    return trace


def _event_marks(events: list[Row]) -> tuple[list[Trace], list[Trace]]:
    """Vertical lines where something happened; texts only while they can be read."""
    at = [event for event in events if number(event.get("update")) is not None]
    shapes = [
        {
            "type": "line",
            "x0": event["update"],
            "x1": event["update"],
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"color": "var(--event)", "width": 1.5, "dash": "dash"},
        }
        for event in at[:200]
    ]
    annotations = [
        {
            "x": event["update"],
            "y": 0.99 - 0.08 * (place % 3),
            "yref": "paper",
            "yanchor": "top",
            "xanchor": "left",
            "xshift": 4,
            "showarrow": False,
            "text": label(elide_middle(str(event["event"]), 28)),
            "hovertext": label(str(event.get("message", ""))[:300]),
            "font": {"color": "var(--event)", "size": 12},
        }
        for place, event in enumerate(at if len(at) <= MAX_EVENT_TEXTS else [])
    ]
    return shapes, annotations


def hyperparameters(run: RunFolder) -> tuple[list[Figure], dict[str, str]]:
    """Returns a figure for each hyperparameter that varies, and name → value of the constant ones."""
    rows = [
        {"update": row.get("update"), "epoch": row.get("epoch"), **row["hyperparameters"]}
        for row in run.rows.get("train", [])
        if isinstance(row.get("hyperparameters"), dict)
    ]
    names = list(dict.fromkeys(name for row in rows for name in row if name not in ("update", "epoch")))
    varying, constant = [], {}
    for name in names:
        values = [row[name] for row in rows if name in row]
        x, y, epoch = series(rows, name)
        if len(y) > 1 and y.min() != y.max():
            varying.append((name, x, y, epoch))
        else:
            constant[name] = plain(values[-1])
    shapes, annotations = _event_marks(run.events)
    figures = [
        Figure(
            id=f"hyperparameter-{place}",
            title="Learning rate" if name == "lr" else name,
            caption="The step length: a schedule usually warms it up, then lowers it so that the end settles."
            if name == "lr"
            else "A setting of the optimizer that changed during the run.",
            data=[_line(x, y, name, "var(--neutral)", Metric(name), epoch)],
            layout=layout(
                updates_axis(run.last_update),
                axis(label(elide_middle(name)), rangemode="tozero" if y.min() >= 0 else "normal"),
                shapes=shapes,
                annotations=annotations if name == "lr" else [],
                showlegend=False,
            ),
            height=260,
            width="half" if len(varying) > 1 else "full",
            **log_axis(y, begins=False),
        )
        for place, (name, x, y, epoch) in enumerate(varying)
    ]
    return figures, constant


def gradient_norm(run: RunFolder) -> Figure | None:
    """Norm of the whole gradient, all layers together."""
    x, y, epoch = series(run.rows.get("train", []), "grad_norm")
    if not len(x):
        return None
    shapes, annotations = _event_marks(run.events)
    return Figure(
        id="gradient-norm",
        title="Gradient norm",
        caption="Length of the whole gradient ‖g‖₂. A slow decline is healthy; single spikes come from odd "
        "batches or a rate that is too high; growth without end means that training diverges.",
        data=[_line(x, y, "gradient norm", "var(--train)", Metric("gradient norm"), epoch)],
        layout=layout(
            updates_axis(run.last_update),
            axis("gradient norm ‖g‖₂"),
            shapes=shapes,
            annotations=annotations,
            showlegend=False,
        ),
        height=280,
        **log_axis(y),
    )


def speed(run: RunFolder) -> Figure | None:
    """Samples per second over the run; None where there are too few measurements for a curve."""
    x, y, _ = series(run.timing, "samples_per_second")
    if len(x) < MIN_SPEEDS:
        return None
    kept = thinned(y)
    seconds = np.array([number(row.get("seconds")) or 0.0 for row in run.timing if _timed(row)])
    return Figure(
        id="speed",
        title="Speed",
        caption=f"Training samples per second; the median is {significant(float(np.median(y)), 3)}. "
        "Dips are pauses: evaluation, checkpoints, or other work on the machine.",
        data=[
            {
                "type": "scatter",
                "name": "speed",
                "mode": "lines+markers" if len(kept) <= 40 else "lines",
                "x": rounded(x[kept], 12),
                "y": rounded(y[kept]),
                "customdata": rounded(seconds[kept]),
                "line": {"color": "var(--neutral)", "width": 2},
                "marker": {"size": 5, "color": "var(--neutral)"},
                "hovertemplate": "update %{x:,} · after %{customdata:,.3~f} s<br>"
                "%{y:,.4~s} samples per second<extra></extra>",
            }
        ],
        layout=layout(
            updates_axis(run.last_update),
            axis("samples per second", rangemode="tozero", tickformat="~s"),
            showlegend=False,
        ),
        height=260,
    )


def speed_in_words(run: RunFolder) -> str:
    """What stands instead of the curve of a run that was too short for one; "" without any measurement."""
    _, y, _ = series(run.timing, "samples_per_second")
    if not len(y) or len(y) >= MIN_SPEEDS:
        return ""
    return (
        f"About {float(f'{np.median(y):.2g}'):,.0f} training samples per second, measured "
        f"{counted(len(y), 'time')}: the run was too short for a curve."
    )


def _timed(row: Row) -> bool:
    return number(row.get("update")) is not None and number(row.get("samples_per_second")) is not None
