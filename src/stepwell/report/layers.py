"""Heat maps over time: what reaches each layer, and how far each layer moves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepwell.report.figure import Figure, axis, label, layout, rounded, updates_axis
from stepwell.report.run_folder import LayerHistory, RunFolder
from stepwell.report.wording import elide_middle, power_of_ten, significant

MAX_COLUMNS = 300
MAX_DECADES = 4  # of colour below the median
DARKEST = 5  # percent of the values that may share the darkest colour
MAX_LABELS = 40


def layer_heat_maps(run: RunFolder) -> list[Figure]:
    """Gradient norm and update-to-weight ratio, layers against time, in logarithmic colour."""
    if run.layers is None:
        return []
    maps = [
        _heat_map(
            run.layers,
            run.layers.gradient,
            run.last_update,
            id="layer-gradients",
            title="Gradient norm ‖g‖₂ by layer",
            quantity="gradient norm",
            caption="One row a layer, the input at the top. Rows that darken towards the top: gradients "
            "vanish on their way back. A row as dark as can be throughout may get no gradient at all.",
        ),
        _heat_map(
            run.layers,
            run.layers.ratio,
            run.last_update,
            id="layer-updates",
            title="Update-to-weight ratio ‖Δw‖₂ / ‖w‖₂ by layer",
            quantity="update / weight",
            caption="How far one update moves a layer, relative to its weights. Around 10⁻³ is customary; "
            "far less hardly learns, more than 10⁻² is restless. Biases that start at zero begin high.",
        ),
    ]
    return [figure for figure in maps if figure]


def _heat_map(
    layers: LayerHistory, values: np.ndarray, end: float, *, id: str, title: str, quantity: str, caption: str
) -> Figure | None:
    updates, means = binned(layers.updates, values)  # (C,), (C, L)
    if not (means > 0).any():
        return None
    z, low, high = _colours(means)
    if (means < 10**low).any():
        caption += f" Below {significant(10**low, 2)}, zero included, all is of the darkest colour."
    names = layers.names
    return Figure(
        id=id,
        title=title,
        caption=caption,
        data=[
            {
                "type": "heatmap",
                # A lone column would be one update wide: too narrow to be seen, so it gets edges.
                "x": rounded(updates if len(updates) > 1 else updates[0] * np.array([0.9, 1.1]), 12),
                "y": [label(name) for name in names],
                "z": [rounded(row, 4) for row in z.T],
                "customdata": [rounded(row, 4) for row in means.T],
                "colorscale": "Cividis",
                "zmin": low,
                "zmax": max(high, low + 1e-6),
                "hovertemplate": "%{y}<br>update %{x:,}<br>"
                + quantity
                + " = %{customdata:.3~g}<extra></extra>",
                "xgap": 0,
                "ygap": 1 if len(names) <= MAX_LABELS else 0,
                "colorbar": {"thickness": 12, "outlinewidth": 0, **_ticks(low, high)},
            }
        ],
        **rows_of_layers(names, end),
    )


def rows_of_layers(names: list[str], end: float) -> dict[str, Any]:
    """Axes and height of a figure with a row a layer, the input at the top, against updates up to `end`."""
    rows = range(0, len(names), math.ceil(len(names) / MAX_LABELS))
    return {
        "layout": layout(
            updates_axis(end, showgrid=False),
            axis(
                "",
                autorange="reversed",
                type="category",
                showgrid=False,
                tickvals=list(rows),
                ticktext=[label(elide_middle(names[row], 40)) for row in rows],
                ticks="",
            ),
            margin={"l": 64, "r": 18, "t": 10, "b": 52},
        ),
        "height": int(min(max(len(names) * 24 + 80, 180), 760)),
    }


def _colours(means: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Returns log₁₀ of the means (C, L) as they are coloured, and the ends of the scale.

    Zeros have the darkest colour, white (NaN) is left to what is not known.
    """
    positive = means > 0
    logarithms = np.log10(means[positive])
    # A schedule that ends at rate 0 makes the last updates vanish: they must not take all the colours.
    low = float(max(np.percentile(logarithms, DARKEST), np.median(logarithms) - MAX_DECADES))
    z = np.full(means.shape, low)
    z[positive] = np.maximum(logarithms, low)
    z[np.isnan(means)] = np.nan
    return z, low, float(logarithms.max())


def _ticks(low: float, high: float) -> dict[str, list[Any]]:
    """Powers of ten beside the colours; three plain numbers where the scale spans less than one."""
    decades = range(math.ceil(low), math.floor(high) + 1, max(1, math.ceil((high - low) / 8)))
    if len(decades) >= 2:
        return {"tickvals": list(decades), "ticktext": [power_of_ten(k) for k in decades]}
    between = np.linspace(low, high, 3).tolist()
    return {"tickvals": between, "ticktext": [significant(10**k, 2) for k in between]}


def binned(updates: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Averages (T,), (T, L) over time to at most MAX_COLUMNS columns; NaN where a column has no value."""
    if len(updates) <= MAX_COLUMNS:
        return updates, values.astype(np.float64)
    parts = np.array_split(np.arange(len(updates)), MAX_COLUMNS)
    means = []
    for part in parts:
        chunk = values[part].astype(np.float64)
        known = np.isfinite(chunk)
        total = np.where(known, chunk, 0.0).sum(0)
        counts = known.sum(0)
        means.append(np.divide(total, counts, out=np.full(len(total), np.nan), where=counts > 0))
    return np.array([updates[part].mean() for part in parts]), np.array(means)
