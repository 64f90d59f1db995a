"""Figures of single predictions: confusion, calibration, predicted against true, residuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stepwell.report.figure import Figure, Trace, axis, label, layout, rounded
from stepwell.report.run_folder import RunFolder
from stepwell.report.wording import elide_middle, significant

MAX_CLASSES_NUMBERED = 30
MAX_CLASSES_DRAWN = 200
MAX_TARGETS_DRAWN = 6

# Zero is the page itself; small shares get visible tints early, since mistakes are what one looks for.
SHARE_COLORS = [
    [0, "var(--heat-0)"],
    [0.02, "var(--heat-1)"],
    [0.15, "var(--heat-2)"],
    [0.5, "var(--heat-3)"],
    [1, "var(--heat-4)"],
]


def confusion_counts(run: RunFolder) -> np.ndarray | None:
    """Returns (C, C) counts, rows true; None where the evaluation has no square matrix."""
    counts = np.asarray(run.evaluation.get("confusion") or [], dtype=np.float64)
    return counts if counts.ndim == 2 and counts.shape[0] == counts.shape[1] and counts.size else None


def class_names(run: RunFolder, n: int) -> list[str]:
    """The names of n classes; their numbers where the run has other names."""
    names = run.classes
    return names if len(names) == n else [str(i) for i in range(n)]


def confusion_matrix(run: RunFolder) -> Figure | None:
    """Counts of true against predicted, coloured by the share of the true class."""
    counts = confusion_counts(run)
    if counts is None or len(counts) > MAX_CLASSES_DRAWN:
        return None
    n = len(counts)
    names = [label(name) for name in class_names(run, n)]
    short = [label(elide_middle(name, 22)) for name in class_names(run, n)]
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    step = -(-n // 40)
    ticks: dict[str, Any] = {"tickvals": list(range(0, n, step)), "ticktext": short[::step]}
    cell = 44 if n <= 12 else 30 if n <= MAX_CLASSES_NUMBERED else 700 / n
    trace: Trace = {
        "type": "heatmap",
        "z": [rounded(row, 4) for row in share],
        "customdata": [
            [[int(counts[t, p]), names[t], names[p]] for p in range(n)]
            if n <= 100
            else counts[t].astype(int).tolist()
            for t in range(n)
        ],
        "zmin": 0,
        "zmax": 1,
        "colorscale": SHARE_COLORS,
        "xgap": 2 if n <= MAX_CLASSES_NUMBERED else 0,
        "ygap": 2 if n <= MAX_CLASSES_NUMBERED else 0,
        "hovertemplate": "true <b>%{customdata[1]}</b>, predicted <b>%{customdata[2]}</b><br>"
        "%{customdata[0]:,} samples, %{z:.1%} of the true class<extra></extra>"
        if n <= 100
        else "true %{y}, predicted %{x}<br>%{customdata:,} samples, %{z:.1%} of its class<extra></extra>",
        "colorbar": {
            "thickness": 12,
            "outlinewidth": 0,
            "tickformat": ".0%",
        },
    }
    if n <= MAX_CLASSES_NUMBERED:
        trace["text"] = [[f"{int(count):,}" if count else "" for count in row] for row in counts]
        trace["texttemplate"] = "%{text}"
        trace["textfont"] = {"size": 13 if n <= 12 else 11}
    side = max(int(cell * n), 200)
    return Figure(
        id="confusion",
        title="Confusion matrix",
        caption="Rows are the true classes, columns the network's answers; colour is the share of the row. "
        "Off the diagonal are the mistakes: a strong colour names two classes that are taken for each other.",
        data=[trace],
        layout=layout(
            axis("predicted", showgrid=False, ticks="", side="bottom", **ticks),
            axis("true", showgrid=False, ticks="", autorange="reversed", **ticks),
            margin={"l": 64, "r": 18, "t": 10, "b": 52},
        ),
        height=side + 110,
        max_width=side + 380,
    )


Confusion = tuple[str, str, int, float]  # true, predicted, count, share of the true class


def frequent_confusions(run: RunFolder, limit: int = 5) -> tuple[list[Confusion], int]:
    """Returns the `limit` most frequent mistakes, and how many more are as frequent as the last of them."""
    counts = confusion_counts(run)
    if counts is None:
        return [], 0
    names = class_names(run, len(counts))
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(flat), len(counts)) for flat in order]
    found = [
        (names[t], names[p], int(wrong[t, p]), wrong[t, p] / counts[t].sum())
        for t, p in pairs
        if wrong[t, p] > 0
    ]
    if not found:
        return [], 0
    last = found[-1][2]
    return found, int((wrong == last).sum()) - sum(count == last for _, _, count, _ in found)


def only_answer(run: RunFolder) -> str | None:
    """The class that the network gives whatever it sees; None where it gives several."""
    counts = confusion_counts(run)
    if counts is None or np.count_nonzero(counts.sum(0)) != 1:
        return None
    return class_names(run, len(counts))[int(counts.sum(0).argmax())]


def per_class(run: RunFolder) -> tuple[list[str], list[tuple[str, list[Any]]]]:
    """Returns column names and (class, values): the evaluation's table, else from the confusion."""
    table = run.evaluation.get("per_class")
    if isinstance(table, dict) and table:
        names = class_names(run, len(next(iter(table.values()))))
        return list(table), [(name, [column[i] for column in table.values()]) for i, name in enumerate(names)]
    counts = confusion_counts(run)
    if counts is None:
        return [], []
    right, true, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = right / predicted, right / true
        f1 = 2 * right / (true + predicted)
    rows = zip(
        class_names(run, len(counts)), np.stack([precision, recall, f1, true], 1).tolist(), strict=True
    )
    return ["precision", "recall", "f1", "support"], list(rows)


def calibration(run: RunFolder) -> Figure | None:
    """Share that came true against the probability the network gave, with intervals where there are some."""
    table = run.evaluation.get("calibration") or {}
    if not table.get("predicted"):
        return None
    given, observed = (np.array(table[key], dtype=np.float64) for key in ("predicted", "observed"))
    count = np.array(table["count"], dtype=np.int64)
    dots: Trace = {
        "type": "scatter",
        "name": "this network",
        "mode": "lines+markers",
        "x": rounded(given, 4),
        "y": rounded(observed, 4),
        "customdata": count.tolist(),
        "marker": {
            "color": "var(--train)",
            "opacity": 1,
            "line": {"width": 0},
            "size": rounded(6 + 8 * np.sqrt(count / count.max()), 3),
        },
        "line": {"color": "var(--train)", "width": 1.5},
        "cliponaxis": False,
        "hovertemplate": "given %{x:.1%}, came true %{y:.1%}<br>%{customdata:,} answers<extra></extra>",
    }
    whiskers = ""
    if "low" in table and "high" in table:
        low, high = (np.array(table[key], dtype=np.float64) for key in ("low", "high"))
        dots["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": rounded(high - observed, 4),
            "arrayminus": rounded(observed - low, 4),
            "color": "var(--train)",
            "thickness": 1,
            "width": 3,
        }
        whiskers = " Whiskers are 95 % intervals: only dots whose whiskers miss the diagonal tell something."
    of = label(elide_middle(str(table.get("of") or "the answer"), 40))
    return Figure(
        id="calibration",
        title="Is it as sure as it should be?",
        caption="Dots below the diagonal: it came true less often than the network claimed, so it is too "
        "sure of itself; above: too cautious." + whiskers,
        data=[_diagonal(0.0, 1.0, "perfectly calibrated"), dots],
        layout=layout(
            axis(f"probability given to {of} (%)", tickformat="~%", range=[0, 1.02]),
            axis("share that came true (%)", tickformat="~%", range=[0, 1.02]),
        ),
        height=400,
        max_width=760,
    )


@dataclass(frozen=True)
class Target:
    """One target of a regression: true and predicted (N,), in the target's own units."""

    name: str
    true: np.ndarray
    predicted: np.ndarray

    @property
    def residuals(self) -> np.ndarray:
        return self.true - self.predicted

    @property
    def rmse(self) -> float:
        return float(np.sqrt(np.mean(self.residuals**2)))

    @property
    def spread(self) -> float:
        """Standard deviation of the truth: the RMSE of always answering its mean."""
        return float(self.true.std())

    @property
    def deviation(self) -> float:
        """Mean absolute deviation of the truth: the mean absolute error of always answering its mean."""
        return float(np.abs(self.true - self.true.mean()).mean())

    @property
    def r2(self) -> float:
        return 1 - (self.rmse / self.spread) ** 2 if self.spread > 0 else float("nan")


def regression_targets(run: RunFolder) -> list[Target]:
    """Reads evaluation["true"] and ["predicted"], one list per target, without the points that are null."""
    columns = [run.evaluation.get(key) or [] for key in ("targets", "true", "predicted")]
    targets = []
    for name, *values in zip(*columns, strict=False):
        true, predicted = (np.array(column, dtype=np.float64) for column in values)
        known = np.isfinite(true) & np.isfinite(predicted)
        if known.any():
            targets.append(Target(str(name), true[known], predicted[known]))
    return targets


def regression_figures(targets: list[Target]) -> list[Figure]:
    """Three figures for each target; of many targets, the worst explained."""
    drawn = targets
    if len(targets) > MAX_TARGETS_DRAWN:
        drawn = sorted(targets, key=lambda target: target.r2)[:MAX_TARGETS_DRAWN]
    figures = []
    for place, target in enumerate(drawn):
        ending = f": {target.name}" if len(targets) > 1 else ""
        figures += [
            _predicted_against_true(target, f"predicted-{place}", ending),
            _residuals_against_predicted(target, f"residuals-{place}", ending),
            _residual_histogram(target, f"histogram-{place}", ending),
        ]
    return figures


def _predicted_against_true(target: Target, id: str, ending: str) -> Figure:
    low = float(min(target.true.min(), target.predicted.min()))
    high = float(max(target.true.max(), target.predicted.max()))
    margin = 0.04 * (high - low or 1.0)
    span = [low - margin, high + margin]
    name = label(elide_middle(target.name))
    return Figure(
        id=id,
        title="Predicted against true" + ending,
        caption="Each dot is a test sample. On the line the prediction is exact; a cloud flatter than the "
        "line means that extremes are pulled towards the mean.",
        data=[
            _diagonal(low - margin, high + margin, "exact"),
            _dots(target.true, target.predicted, "true %{x:.4~g}<br>predicted %{y:.4~g}<extra></extra>"),
        ],
        layout=layout(
            axis(f"true {name}", range=rounded(span)),
            axis(f"predicted {name}", range=rounded(span)),
            showlegend=False,
        ),
        height=360,
        width="third",
    )


def _residuals_against_predicted(target: Target, id: str, ending: str) -> Figure:
    return Figure(
        id=id,
        title="Residuals" + ending,
        caption="True minus predicted. An even band round zero is good; a funnel or a bend shows structure "
        "that the network has not learnt.",
        data=[
            _dots(
                target.predicted, target.residuals, "predicted %{x:.4~g}<br>off by %{y:+.4~g}<extra></extra>"
            )
        ],
        layout=layout(
            axis(f"predicted {label(elide_middle(target.name))}"),
            axis(
                "residual (true − predicted)", zeroline=True, zerolinecolor="var(--axis)", zerolinewidth=1.5
            ),
            showlegend=False,
        ),
        height=360,
        width="third",
    )


def _residual_histogram(target: Target, id: str, ending: str) -> Figure:
    bins = int(np.clip(np.sqrt(len(target.residuals)), 8, 50))
    counts, edges = np.histogram(target.residuals, bins=bins)
    return Figure(
        id=id,
        title="Size of the errors" + ending,
        caption="Narrow and centred on zero is good; off centre is a bias (here "
        f"{significant(target.residuals.mean())} on average); long tails are rare, large errors.",
        data=[
            {
                "type": "bar",
                "x": rounded((edges[:-1] + edges[1:]) / 2),
                "y": counts.tolist(),
                "width": rounded(np.diff(edges) * 0.92),
                "customdata": [
                    [a, b] for a, b in zip(rounded(edges[:-1], 4), rounded(edges[1:], 4), strict=True)
                ],
                "marker": {"color": "var(--train)"},
                "hovertemplate": "residual %{customdata[0]} to %{customdata[1]}<br>"
                "%{y:,} samples<extra></extra>",
            }
        ],
        layout=layout(
            axis(
                "residual (true − predicted)", zeroline=True, zerolinecolor="var(--axis)", zerolinewidth=1.5
            ),
            axis("samples", rangemode="tozero"),
            showlegend=False,
        ),
        height=360,
        width="third",
    )


def _dots(x: np.ndarray, y: np.ndarray, hover: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": rounded(x, 5),
        "y": rounded(y, 5),
        "marker": {"color": "var(--train)", "size": 6 if len(x) <= 1000 else 4, "opacity": 0.55},
        "hovertemplate": hover,
    }


def _diagonal(low: float, high: float, name: str) -> Trace:
    return {
        "type": "scatter",
        "name": name,
        "mode": "lines",
        "x": rounded([low, high]),
        "y": rounded([low, high]),
        "line": {"color": "var(--neutral)", "width": 1.5, "dash": "dash"},
        "hoverinfo": "skip",
    }
