"""Dead and saturated units over time, and in words."""

from __future__ import annotations

import numpy as np

from stepwell.report.figure import Figure, label, rounded
from stepwell.report.layers import MAX_LABELS, binned, rows_of_layers
from stepwell.report.run_folder import RunFolder, UnitHistory
from stepwell.report.wording import counted, percent

SHOWN = 0.005  # a share that is never higher needs no figure
MOST = 0.5
KINDS = {
    "dead": (
        "Dead units by layer",
        "dead",
        "The share of a layer's units that were zero for the last 1,000 samples looked at, or more; white "
        "where fewer have been. Such a unit gets no gradient and hardly comes back. That a unit is zero for "
        "most samples is healthy, and not counted.",
    ),
    "saturated": (
        "Saturated outputs by layer",
        "saturated",
        "The share of a layer's outputs in the flat region of tanh or sigmoid, where the slope is below a "
        "twentieth of the steepest: little gradient passes there.",
    ),
}


def unit_maps(run: RunFolder) -> list[Figure]:
    """A heat map, layers against time, for each kind of share that is ever above SHOWN."""
    known = ((kind, run.units.get(kind)) for kind in KINDS)
    return [_map(kind, units, run.last_update) for kind, units in known if units and _highest(units) > SHOWN]


def unit_sentences(run: RunFolder) -> list[str]:
    """What there is to say of each kind in the end: most units of a layer, or none at all."""
    said = []
    for kind, words in (("dead", "units are dead"), ("saturated", "outputs are saturated")):
        units = run.units.get(kind)
        if not units or not np.isfinite(units.shares).any():
            continue
        last = _last(units)
        most = [(name, share) for name, share in zip(units.names, last, strict=True) if share > MOST]
        if most:
            named = ", ".join(f"{name} ({percent(share)})" for name, share in most[:5])
            more = f" and {counted(len(most) - 5, 'other layer')}" if len(most) > 5 else ""
            said.append(
                f"In the end most {words} in {named}{more}: these layers hardly learn. {_REMEDY[kind]}"
            )
        elif _highest(units) <= SHOWN:
            said.append(
                f"Hardly any {words} in the {counted(len(units.names), 'layer')} that could have some."
            )
    return said


_REMEDY = {
    "dead": "A lower learning rate, a smaller start of the weights or a leaky ReLU keeps units alive.",
    "saturated": "Smaller weights at the start, standardized inputs or a normalization keep outputs from it.",
}


def _highest(units: UnitHistory) -> float:
    return float(np.nanmax(units.shares, initial=0.0))


def _last(units: UnitHistory) -> list[float]:
    """Each layer's newest known share, 0 where none is known."""
    found = []
    for column in units.shares.T:
        known = column[np.isfinite(column)]
        found.append(float(known[-1]) if len(known) else 0.0)
    return found


def _map(kind: str, units: UnitHistory, end: float) -> Figure:
    title, word, caption = KINDS[kind]
    updates, means = binned(units.updates, units.shares)
    names = units.names
    return Figure(
        id=f"units-{kind}",
        title=title,
        caption=caption,
        data=[
            {
                "type": "heatmap",
                # A lone column would be one update wide: too narrow to be seen, so it gets edges.
                "x": rounded(updates if len(updates) > 1 else updates[0] * np.array([0.9, 1.1]), 12),
                "y": [label(name) for name in names],
                "z": [rounded(row, 4) for row in means.T],
                "colorscale": "Cividis",
                "zmin": 0,
                "zmax": 1,
                "hovertemplate": "%{y}<br>update %{x:,}<br>" + word + " = %{z:.1%}<extra></extra>",
                "xgap": 0,
                "ygap": 1 if len(names) <= MAX_LABELS else 0,
                "colorbar": {
                    "thickness": 12,
                    "outlinewidth": 0,
                    "tickvals": [0, 0.25, 0.5, 0.75, 1],
                    "tickformat": ".0%",
                },
            }
        ],
        **rows_of_layers(names, end),
    )
