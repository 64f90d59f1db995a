"""Curves as an SVG file: one panel or several, without a plotting library."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

# The report's light colours; the line is Okabe and Ito's blue, dark with every kind of colour blindness.
LINE, TEXT, GRID = "#0072b2", "#1f2328", "#dddad2"
LEFT, RIGHT, TOP, BOTTOM = 68, 24, 30, 44  # room around the plotted area, in pixels


class Panel(NamedTuple):
    """One curve with its title; x counts something, from 0 on; y is not negative."""

    title: str
    x: Sequence[float]
    y: Sequence[float]


def svg(
    panels: Sequence[Panel],
    x_label: str,
    y_label: str,
    right: float,
    columns: int = 1,
    size: tuple[int, int] = (640, 360),
) -> str:
    """Returns the SVG text of panels in rows, each `size` pixels wide and high, with the same axes.

    right: where the x axis ends; the y axis goes from 0 to the first round number above all curves.
    """
    ys = ticks(max(max(panel.y) for panel in panels) or 1.0, 5)
    xs = [x for x in ticks(right, (size[0] - LEFT) // 80) if x <= right and x % 1 == 0]
    places = [(k % columns * size[0], k // columns * size[1]) for k in range(len(panels))]
    width, height = min(columns, len(panels)) * size[0], places[-1][1] + size[1]
    drawn = "".join(
        f'<g transform="translate({x} {y})">{_panel(panel, xs, ys, right, x_label, y_label, size)}</g>\n'
        for panel, (x, y) in zip(panels, places, strict=True)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="{TEXT}">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n{drawn}</svg>\n'
    )


def _panel(
    panel: Panel,
    xs: list[float],
    ys: list[float],
    right: float,
    x_label: str,
    y_label: str,
    size: tuple[int, int],
) -> str:
    width, height = size[0] - LEFT - RIGHT, size[1] - TOP - BOTTOM
    bottom, center, middle = TOP + height, LEFT + width / 2, TOP + height / 2
    title, x_label, y_label = (html.escape(text) for text in (panel.title, x_label, y_label))

    def across(x: float) -> str:
        return f"{LEFT + x / right * width:.1f}"

    def up(y: float) -> str:
        return f"{bottom - y / ys[-1] * height:.1f}"

    points = " ".join(f"{across(x)},{up(y)}" for x, y in zip(panel.x, panel.y, strict=True))
    parts = [
        *(f'<path d="M{LEFT} {up(y)}h{width}" stroke="{GRID}"/>' for y in ys),
        *(f'<text x="{LEFT - 7}" y="{up(y)}" dy="4" text-anchor="end">{y:g}</text>' for y in ys),
        *(f'<path d="M{across(x)} {bottom}v4" stroke="{TEXT}"/>' for x in xs),
        *(f'<text x="{across(x)}" y="{bottom + 17}" text-anchor="middle">{x:,.0f}</text>' for x in xs),
        f'<path d="M{LEFT} {bottom}h{width}" stroke="{TEXT}"/>',
        f'<polyline points="{points}" fill="none" stroke="{LINE}" stroke-width="2" stroke-linejoin="round"/>',
        f'<text x="{LEFT}" y="{TOP - 11}" font-size="14" font-weight="bold">{title}</text>',
        f'<text x="{center}" y="{size[1] - 8}" text-anchor="middle">{x_label}</text>',
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{y_label}</text>',
    ]
    return "".join(parts)


def ticks(high: float, most: int) -> list[float]:
    """Round numbers from 0 to the first at or above `high`, at most `most` steps of 1, 2 or 5 times 10^k."""
    power = math.floor(math.log10(high / most))
    factor, k = next((f, k) for k in (power, power + 1) for f in (1, 2, 5) if f * 10.0**k * most >= high)
    count = math.ceil(high / (factor * 10.0**k) * (1 - 1e-12))
    return [float(f"{n * factor}e{k}") for n in range(count + 1)]  # read from text: 0.3, not 0.1 · 3
