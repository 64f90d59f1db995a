"""What a figure is, and the layout that all of them share.

Colours are names of CSS variables (`var(--train)`), which the page's script looks up in the style
sheet: the palette is written once there, for light and dark.
"""

from __future__ import annotations

import html
import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Trace = dict[str, Any]
MAX_POINTS = 2000
MAX_SINGLE_TICKS = 12  # updates, each with its own tick


@dataclass(frozen=True)
class Figure:
    """One Plotly figure with what stands around it.

    caption: one sentence that tells a student how to read it. log: whether the y axis begins
    logarithmic; a button switches it. None: no button. log_step: spacing of logarithmic ticks,
    Plotly's "D2" (1, 2, 5) or decades. height and max_width in CSS pixels.
    """

    id: str
    title: str
    caption: str
    data: list[Trace]
    layout: dict[str, Any]
    height: int = 340
    width: Literal["full", "half", "third"] = "full"
    log: bool | None = None
    log_step: Literal["D2", 1] = 1
    max_width: int | None = None


def axis(title: str, **more: Any) -> dict[str, Any]:
    """A plotly axis in the page's own colours."""
    return {
        "title": {"text": title, "standoff": 10, "font": {"size": 13}},
        "gridcolor": "var(--grid)",
        "linecolor": "var(--axis)",
        "tickcolor": "var(--axis)",
        "ticks": "outside",
        "ticklen": 4,
        "zeroline": False,
        "automargin": True,
        "exponentformat": "power",
        **more,
    }


def updates_axis(end: float, **more: Any) -> dict[str, Any]:
    """The x axis of all curves over time: from 0 to a little past the run's last update `end`.

    It is the same for all figures of a run, so that they can be compared; the little past `end` is
    room for its label and for the mark of the final test.
    """
    if end <= MAX_SINGLE_TICKS:
        more["dtick"] = 1  # there are no half updates
    return axis("updates", tickformat=",~d", range=[0, 1.02 * max(end, 1)], **more)


def layout(x: dict[str, Any], y: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A plotly layout in the page's own colours."""
    return {
        "xaxis": x,
        "yaxis": y,
        "margin": {"l": 64, "r": 18, "t": 34, "b": 52},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--muted)"},
        "hoverlabel": {
            "bgcolor": "var(--surface)",
            "bordercolor": "var(--axis)",
            "font": {"color": "var(--text)", "size": 13},
            "align": "left",
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.01, "xanchor": "left", "yanchor": "bottom"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--axis)", "activecolor": "var(--accent)"},
        "hovermode": "closest",
        "uirevision": "keep",  # a zoom survives a change of theme
        **more,
    }


def label(text: str) -> str:
    """Text for Plotly, which renders a little HTML: `<b>` in a class name must be shown, not obeyed."""
    return html.escape(text, quote=False)


def rounded(values: np.ndarray | list[float], digits: int = 6) -> list[float | None]:
    """JSON numbers of `digits` significant digits; None for what is not finite, which JSON cannot say."""
    return [
        float(f"{v:.{digits}g}") if math.isfinite(v) else None
        for v in np.asarray(values, dtype=float).tolist()
    ]


def thinned(values: np.ndarray, limit: int = MAX_POINTS) -> np.ndarray:
    """Returns at most `limit` indices of a long curve: each bucket's lowest and highest point, and both ends.

    Taking every k-th point would hide the very spikes that one looks for.
    """
    if len(values) <= limit:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), (limit - 2) // 2 + 1).astype(int)
    kept = {0, len(values) - 1}
    for start, stop in itertools.pairwise(edges.tolist()):
        kept.add(start + int(np.argmin(values[start:stop])))
        kept.add(start + int(np.argmax(values[start:stop])))
    return np.array(sorted(kept))


def log_axis(values: np.ndarray, begins: bool = True) -> dict[str, Any]:
    """Returns a Figure's `log` and `log_step` for these values: none for zeros and negatives.

    begins: start logarithmic where that reads better, which is once values span a factor of 20.
    """
    if not len(values) or values.min() <= 0:
        return {}
    span = values.max() / values.min()
    return {"log": bool(begins and span > 20), "log_step": "D2" if span < 200 else 1}
