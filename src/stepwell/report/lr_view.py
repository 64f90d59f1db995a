"""A range test as text and as a figure: `stepwell find-lr`."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any

import numpy as np

from stepwell.populations.range_test import Array, RangeTest
from stepwell.report.line_chart import ticks
from stepwell.report.text_chart import text_chart
from stepwell.training import files

COLUMNS = 60  # of the text curve
WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 68, 24, 64, 48  # room around the plotted area, in pixels

# Light by default; a browser that is dark shows the report's dark colours.
STYLE = """
.back{fill:#ffffff}.text{fill:#1f2328}.grid{stroke:#dddad2}.axis{stroke:#1f2328}.line{stroke:#0072b2}
.band{fill:#009e73}.pick{stroke:#d55e00}.chosen{fill:#b34a00}
@media (prefers-color-scheme:dark){
.back{fill:#1a1d23}.text{fill:#e6e6e3}.grid{stroke:#272b32}.axis{stroke:#a2a9b4}.line{stroke:#56b4e9}
.band{fill:#14b88a}.pick{stroke:#e69f00}.chosen{fill:#e69f00}}
"""


def title(recipe: Any, data: str) -> str:
    """Of what the test was made."""
    return f"{recipe.optimizer.name}, {recipe.model.name.rpartition(':')[2]} on {data}"


def lines(found: RangeTest, heading: str, blocks: bool) -> list[str]:
    """What is shown in a terminal: the median of the smoothed losses over the rates, and marks below it."""
    seeds, updates = found.losses.shape
    low, high = found.rates[0], found.rates[-1]
    places = np.linspace(0, updates - 1, COLUMNS).round().astype(int)
    curve = median(found)
    shown = np.where(np.isfinite(curve), curve, np.nanmax(curve, initial=0.0))  # blown up: to the top
    chart = text_chart(
        np.maximum(shown, 0.0)[places].tolist(), f"{high:.2g}", blocks=blocks, x_begin=f"{low:.2g}"
    )
    many = f"median of {seeds} seeds" if seeds > 1 else "one seed"
    said = [
        heading,
        f"loss over {updates} updates while the rate rises from {low:.2g} to {high:.2g}, {many}",
        "",
    ]
    if found.rate is None or found.low is None or found.high is None:
        return [*said, *chart]
    marks = [" "] * COLUMNS
    start, stop, pick = (_column(found, rate) for rate in (found.low, found.high, found.rate))
    marks[start : stop + 1] = "-" * (stop + 1 - start)
    marks[start], marks[stop], marks[pick] = "[", "]", "^"
    spread = ""
    if found.spread is not None and seeds > 1:
        spread = f"; of single seeds {found.spread[0]:g} to {found.spread[1]:g}"
    return [
        *said,
        *chart[:-1],
        f"{'':>10}{''.join(marks).rstrip()}",
        chart[-1],
        "",
        f"^ optimizer.lr={found.rate:g}, where nine tenths of the fall are done{spread}.",
        f"[ ] usable: {found.low:g} to {found.high:g}; below, the loss hardly falls, above, it rises.",
    ]


def median(found: RangeTest) -> Array:
    """The median of the seeds' smoothed losses at each rate; NaN where half of them have blown up."""
    values = np.where(np.isfinite(found.smoothed), found.smoothed, math.inf)
    middle = np.median(np.sort(values, axis=0), axis=0)
    return np.where(np.isfinite(middle), middle, math.nan)


def write_figure(path: Path, found: RangeTest, heading: str) -> None:
    """Loss against rate on a logarithmic axis: a line a seed, their median, the pick and the usable rates."""
    x0, x1 = np.log10(found.rates[[0, -1]])
    top = float(np.nanmax(found.smoothed, initial=0.0))
    low = min(float(np.nanmin(found.smoothed, initial=0.0)), 0.0)
    heights = [y + low for y in ticks(max(top - low, 1e-12), 6)] if low < 0 else ticks(top or 1.0, 6)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    bottom = TOP + height

    def across(rate: float) -> float:
        return LEFT + (math.log10(rate) - x0) / (x1 - x0) * width

    def up(loss: float) -> float:
        return bottom - (loss - heights[0]) / (heights[-1] - heights[0]) * height

    def curve(losses: Array, look: str) -> str:
        points = [
            f"{across(r):.1f},{up(y):.1f}"
            for r, y in zip(found.rates.tolist(), losses.tolist(), strict=True)
            if math.isfinite(y)
        ]
        return f'<polyline points="{" ".join(points)}" fill="none" class="line" {look}/>'

    decades = range(math.ceil(x0 - 1e-9), math.floor(x1 + 1e-9) + 1)
    seeds, updates = found.losses.shape
    parts = [
        *(f'<path d="M{LEFT} {up(y):.1f}h{width}" class="grid"/>' for y in heights),
        *(f'<text x="{LEFT - 8}" y="{up(y):.1f}" dy="4" text-anchor="end">{y:.4g}</text>' for y in heights),
        *(_decade(across(10.0**k), bottom, k) for k in decades[:: max(1, math.ceil(len(decades) / 12))]),
    ]
    if found.rate is not None and found.low is not None and found.high is not None:
        left, right, pick = across(found.low), across(found.high), across(found.rate)
        parts += [
            f'<rect x="{left:.1f}" y="{TOP}" width="{max(right - left, 1):.1f}" height="{height}" '
            'class="band" fill-opacity="0.13"/>',
            f'<path d="M{pick:.1f} {TOP}v{height}" class="pick" stroke-width="2" stroke-dasharray="6 4"/>',
            f'<text x="{pick:.1f}" y="{TOP - 8}" text-anchor="middle" class="chosen" font-weight="bold">'
            f"{found.rate:g}</text>",
            f'<text x="{WIDTH - RIGHT}" y="42" text-anchor="end">'
            f"shaded: usable, {found.low:g} to {found.high:g}</text>",
        ]
    parts += [curve(row, 'stroke-width="1" stroke-opacity="0.6"') for row in found.smoothed if seeds > 1]
    parts.append(curve(median(found), 'stroke-width="2.5" stroke-linejoin="round"'))
    below = f"learning rate, rising over {updates} updates"
    what = (
        f"smoothed loss; thin: each of {seeds} seeds, thick: their median" if seeds > 1 else "smoothed loss"
    )
    parts += [
        f'<path d="M{LEFT} {bottom}h{width}" class="axis"/>',
        f'<text x="{LEFT}" y="24" font-size="14" font-weight="bold">{html.escape(heading)}</text>',
        f'<text x="{LEFT}" y="42">{what}</text>',
        f'<text x="{LEFT + width / 2}" y="{HEIGHT - 8}" text-anchor="middle">{below}</text>',
        f'<text transform="translate(14 {TOP + height / 2}) rotate(-90)" text-anchor="middle">loss</text>',
    ]
    files.write_text(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" class="text">'
        f"<style>{STYLE}</style>\n"
        f'<rect width="{WIDTH}" height="{HEIGHT}" class="back"/>\n' + "\n".join(parts) + "\n</svg>\n",
    )


def _decade(x: float, bottom: float, power: int) -> str:
    exponent = f'<tspan dy="-5" font-size="9">{power}</tspan>'.replace(">-", ">−")
    return (
        f'<path d="M{x:.1f} {bottom}v5" class="axis"/>'
        f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">10{exponent}</text>'
    )


def _column(found: RangeTest, rate: float) -> int:
    """Where a rate stands among the columns of the text curve."""
    x = np.log10(found.rates)
    return int(np.clip(round((math.log10(rate) - x[0]) / (x[-1] - x[0]) * (COLUMNS - 1)), 0, COLUMNS - 1))
