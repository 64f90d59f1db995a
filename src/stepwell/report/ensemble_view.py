"""Figures of an ensemble: gain by number of members, reliability, disagreement, courses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from stepwell.metrics.paired import COMPARED
from stepwell.report.figure import Figure, Trace, axis, label, layout, rounded
from stepwell.report.run_folder import RunFolder, number
from stepwell.report.wording import metric

COLORS = ("var(--train)", "var(--validation)")


def figures(run: RunFolder) -> list[Figure]:
    """Those that there is something for."""
    drawn = (by_members(run), reliability(run), spread(run), courses(run))
    found = [figure for figure in drawn if figure is not None]
    if len(found) % 2:
        found[-1] = replace(found[-1], width="full")
    return found


def by_members(run: RunFolder) -> Figure | None:
    """The task's first metric against the number of members."""
    told = run.result.get("ensemble") or {}
    rows, name = told.get("curve") or [], COMPARED.get(run.task, ("",))[0]
    if len(rows) < 2:
        return None
    sizes = [row["members"] for row in rows]
    mean, low, high = (np.array([row[name][key] for row in rows]) for key in ("mean", "low", "high"))
    several = max(row["subsets"] for row in rows) > 1
    shown = metric(name)
    traces: list[Trace] = []
    if several:
        traces.append(
            {
                "type": "scatter",
                "name": "least to greatest",
                "mode": "lines",
                "x": sizes + sizes[::-1],
                "y": rounded(np.concatenate([high, low[::-1]])),
                "fill": "toself",
                "fillcolor": "var(--heat-1)",
                "line": {"width": 0, "color": "var(--heat-1)"},
                "hoverinfo": "skip",
            }
        )
    traces.append(
        {
            "type": "scatter",
            "name": "mean over choices of members" if several else "the first members together",
            "mode": "lines+markers",
            "x": sizes,
            "y": rounded(mean),
            "customdata": [row["subsets"] for row in rows],
            "line": {"color": COLORS[0], "width": 2},
            "marker": {"color": COLORS[0], "size": 7},
            "hovertemplate": f"%{{x}} members: {label(shown.label)} %{{y:{shown.hover_format}}}"
            "<br>over %{customdata} choices<extra></extra>",
        }
    )
    how = (
        "Each point is the mean over choices of so many members; the band reaches from the least to the "
        "greatest."
        if several
        else "Each point is the model of the first members, in the order in which they were taken."
    )
    return Figure(
        id="by-members",
        title="How many members are worth it",
        caption=f"{how} Where the curve is flat, more members cost and do not help.",
        data=traces,
        layout=layout(
            axis("members", dtick=1 if len(sizes) <= 12 else None, tickformat="~d"),
            axis(f"test {shown.axis}", tickformat=shown.tick_format),
            showlegend=True,
        ),
        height=380,
        width="half",
    )


def reliability(run: RunFolder) -> Figure | None:
    """Accuracy against confidence, for one member and for the ensemble, with the counts beneath."""
    told = (run.result.get("ensemble") or {}).get("calibration")
    if not told:
        return None
    named = {"member": f"one member ({run.result['ensemble']['each'][told['of']]['name']})"}
    named["ensemble"] = "together"
    traces: list[Trace] = [
        {
            "type": "scatter",
            "name": "perfectly calibrated",
            "mode": "lines",
            "x": [0, 1],
            "y": [0, 1],
            "line": {"color": "var(--neutral)", "width": 1.5, "dash": "dash"},
            "hoverinfo": "skip",
        }
    ]
    for (key, name), color, shape in zip(named.items(), COLORS[::-1], ("square", "circle"), strict=True):
        found = told[key]
        x, y, low, high = (np.array(found[k]) for k in ("confidence", "accuracy", "low", "high"))
        traces.append(
            {
                "type": "scatter",
                "name": label(name),
                "mode": "lines+markers",
                "x": rounded(x, 4),
                "y": rounded(y, 4),
                "customdata": found["count"],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": rounded(high - y, 4),
                    "arrayminus": rounded(y - low, 4),
                    "color": color,
                    "thickness": 1,
                    "width": 3,
                },
                "marker": {"color": color, "size": 7, "symbol": shape},
                "line": {"color": color, "width": 1.5},
                "hovertemplate": "confidence %{x:.1%}, right %{y:.1%}<br>%{customdata:,} samples"
                f"<extra>{label(name)}</extra>",
            }
        )
        traces.append(
            {
                "type": "bar",
                "name": label(name),
                "x": rounded(np.array(found["edges"]).mean(1), 4),
                "y": found["count"],
                "yaxis": "y2",
                "marker": {"color": color},
                "showlegend": False,
                "hovertemplate": f"%{{y:,}} samples<extra>{label(name)}</extra>",
            }
        )
    most = max(max(told[key]["count"]) for key in named)
    counts = [-0.3, math.ceil(math.log10(most))]  # of a logarithmic axis: a single sample has a bar too
    return Figure(
        id="reliability",
        title="Confidence against accuracy",
        caption="Below the diagonal a model is surer than it is right, above it too cautious; whiskers are "
        "95 % intervals. Beneath, how many samples had that confidence (logarithmic).",
        data=traces,
        layout=layout(
            axis(
                "confidence, the probability of the answer (%)", tickformat="~%", range=[0, 1.02], anchor="y2"
            ),
            axis("share that is right (%)", tickformat="~%", range=[0, 1.02], domain=[0.3, 1]),
            yaxis2=axis("samples", domain=[0, 0.2], type="log", range=counts, dtick=1, tickformat=",~d"),
            barmode="group",
            showlegend=True,
        ),
        height=460,
        width="half",
    )


def spread(run: RunFolder) -> Figure | None:
    """Regression: the size of the error against the members' disagreement."""
    told = (run.result.get("ensemble") or {}).get("uncertainty") or {}
    if "sd" not in told:
        return None
    rank = told.get("rank_correlation")
    said = f" Rank correlation over all samples: {rank:.2f}.".replace("-", "−") if rank is not None else ""
    return Figure(
        id="spread",
        title="Do they know when they err?",
        caption="Test samples in ten groups by how far the members disagree. A rising line: where they "
        f"disagree the error is larger. Both axes in units of the overall error (RMSE).{said}",
        data=[
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": rounded(told["sd"]),
                "y": rounded(told["rmse"]),
                "customdata": told["count"],
                "line": {"color": COLORS[0], "width": 2},
                "marker": {"color": COLORS[0], "size": 7},
                "hovertemplate": "disagreement %{x:.3~g}, error %{y:.3~g}<br>%{customdata:,} values"
                "<extra></extra>",
            }
        ],
        layout=layout(
            axis("standard deviation over members / RMSE"),
            axis("error of the mean prediction / RMSE", rangemode="tozero"),
            showlegend=False,
        ),
        height=380,
        width="half",
    )


def courses(run: RunFolder) -> Figure | None:
    """The validation loss of each training against updates."""
    told = run.result.get("ensemble") or {}
    splits = [name for name in run.rows if name not in ("train", "validation", "test")]
    traces: list[Trace] = []
    for name in splits[:50]:
        rows = [row for row in run.rows[name] if number(row.get("validation_loss")) is not None]
        if rows:
            traces.append(
                {
                    "type": "scatter",
                    "name": label(name),
                    "mode": "lines",
                    "x": [row["update"] for row in rows],
                    "y": rounded([row["validation_loss"] for row in rows]),
                    "line": {"color": COLORS[0], "width": 1.2},
                    "opacity": 1.0 if len(splits) == 1 else 0.6,
                    "hovertemplate": f"update %{{x:,}}<br>loss %{{y:.4~g}}<extra>{label(name)}</extra>",
                }
            )
    if not traces:
        return None
    marks = [one["update"] for one in told.get("each", []) if "update" in one]
    taken = " Dotted lines mark where a snapshot was taken." * bool(marks)
    return Figure(
        id="courses",
        title="Validation loss while they trained",
        caption=("A line for each member." if len(traces) > 1 else "One training.") + taken,
        data=traces,
        layout=layout(
            axis("updates", tickformat=",~d", rangemode="tozero"),
            axis("validation loss"),
            showlegend=False,
            shapes=[
                {
                    "type": "line",
                    "x0": at,
                    "x1": at,
                    "yref": "paper",
                    "y0": 0,
                    "y1": 1,
                    "line": {"color": "var(--neutral)", "width": 1, "dash": "dot"},
                }
                for at in marks
            ],
        ),
        height=380,
        width="half",
        log=False,
    )
