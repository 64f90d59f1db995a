"""Sizes by layer as an SVG file: panels one below the other, each with a logarithmic axis."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from stepwell.report.line_chart import GRID, LINE, TEXT
from stepwell.report.wording import elide_middle

LEFT, RIGHT, TOP, HEIGHT, BETWEEN = 74, 24, 64, 190, 44  # pixels; HEIGHT of a panel's plotted area
STEP = (14, 40)  # pixels from one layer to the next, at least and at most
LETTERS = 24  # of a layer's name
NARROWEST, WIDEST = 540, 1400
X_LABEL = "layer, in order of execution"
ZERO = "#d55e00"  # Okabe and Ito's vermilion: a layer at exactly 0, which has no place on the axis


class Point(NamedTuple):
    """A layer: y is None where nothing is known; a strong one has a matrix, and the line goes through it."""

    name: str
    y: float | None
    strong: bool


class Panel(NamedTuple):
    """A title and the layers in order, the same ones in every panel."""

    title: str
    points: Sequence[Point]


def svg(panels: Sequence[Panel], title: str, below: str) -> str:
    """Returns the SVG text. below: a sentence or two, folded to the figure's width."""
    points = panels[0].points
    step = min(max((WIDEST - LEFT - RIGHT) / max(len(points), 1), STEP[0]), STEP[1])
    plot = max(step * len(points), NARROWEST)
    width, step = LEFT + plot + RIGHT, plot / max(len(points), 1)
    tops = [TOP + k * (HEIGHT + BETWEEN) for k in range(len(panels))]
    end = tops[-1] + HEIGHT
    names = [elide_middle(point.name, LETTERS) for point in points]
    text_top = end + 52 + 5.3 * max(map(len, names), default=0)  # below names of 6 pixels a letter, at 60°
    folded = textwrap.wrap(below, int(width / 6.6))
    height = text_top + 17 * len(folded) + 4
    heading = _text(elide_middle(title, int(width / 8)))
    parts = [
        f'<text x="16" y="24" font-size="14" font-weight="bold">{heading}</text>',
        _key(LEFT, 44),
        *(_panel(panel, top, plot, step) for panel, top in zip(panels, tops, strict=True)),
        *(
            _name(name, LEFT + (k + 0.5) * step, end + 12, points[k].strong)
            for k, name in enumerate(names)
            if k % math.ceil(STEP[0] / step) == 0
        ),
        f'<text x="{LEFT + plot / 2:.1f}" y="{text_top - 24:.0f}" text-anchor="middle">{X_LABEL}</text>',
        *(f'<text x="16" y="{text_top + 17 * k:.0f}">{_text(line)}</text>' for k, line in enumerate(folded)),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="12" fill="{TEXT}">\n'
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _panel(panel: Panel, top: float, plot: float, step: float) -> str:
    sizes = [p.y for p in panel.points if p.y is not None and 0 < p.y < math.inf]
    low, high = _decades(sizes)
    bottom = top + HEIGHT

    def up(y: float) -> float:
        return bottom - (math.log10(y) - low) / (high - low) * (HEIGHT - 12)

    parts = []
    for power in range(low, high + 1, max(1, math.ceil((high - low) / 6))):
        y, shown = up(10.0**power), f"{power}".replace("-", "−")
        parts.append(f'<path d="M{LEFT} {y:.1f}h{plot:.1f}" stroke="{GRID}"/>')
        exponent = f'<tspan dy="-5" font-size="9">{shown}</tspan>'
        parts.append(f'<text x="{LEFT - 8}" y="{y:.1f}" dy="4" text-anchor="end">10{exponent}</text>')
    parts.append(f'<path d="M{LEFT} {bottom}h{plot:.1f}M{LEFT} {top}v{HEIGHT}" stroke="{TEXT}" fill="none"/>')
    places = [(LEFT + (k + 0.5) * step, p) for k, p in enumerate(panel.points)]
    line = " ".join(
        f"{x:.1f},{up(p.y):.1f}" for x, p in places if p.strong and p.y is not None and 0 < p.y < math.inf
    )
    parts.append(f'<polyline points="{line}" fill="none" stroke="{LINE}" stroke-width="1.5"/>')
    for x, p in places:
        if p.y is None or not math.isfinite(p.y):
            continue
        if p.y <= 0:
            parts.append(_cross(x, bottom - 6))
        else:
            parts.append(_dot(x, up(p.y), p.strong))
    turned = f"translate(16 {top + HEIGHT / 2}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">{_text(panel.title)}</text>')
    return "".join(parts)


def _name(name: str, x: float, y: float, strong: bool) -> str:
    colour = TEXT if strong else "#5c636b"
    turned = f"translate({x + 4:.1f} {y}) rotate(-60)"
    return f'<text transform="{turned}" text-anchor="end" font-size="11" fill="{colour}">{_text(name)}</text>'


def _key(x: float, y: float) -> str:
    return (
        f'{_dot(x + 4, y - 4, True)}<text x="{x + 14}" y="{y}">layer with a matrix</text>'
        f'{_dot(x + 144, y - 4, False)}<text x="{x + 154}" y="{y}">other</text>'
        f'{_cross(x + 204, y - 4)}<text x="{x + 214}" y="{y}">exactly 0</text>'
    )


def _dot(x: float, y: float, strong: bool) -> str:
    look = f'r="4" fill="{LINE}"' if strong else f'r="3" fill="#ffffff" stroke="{LINE}"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" {look}/>'


def _cross(x: float, y: float) -> str:
    return f'<path d="M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m0 -7l-7 7" stroke="{ZERO}" stroke-width="2"/>'


def _decades(sizes: Sequence[float]) -> tuple[int, int]:
    """Whole powers of ten around all sizes; three decades at least, or what is harmless would look steep."""
    if not sizes:
        return -3, 0
    low, high = math.floor(math.log10(min(sizes)) + 1e-9), math.ceil(math.log10(max(sizes)) - 1e-9)
    while high - low < 3:
        low, high = (low - 1, high) if (high - low) % 2 else (low, high + 1)
    return low, high


def _text(text: str) -> str:
    return html.escape(text)
