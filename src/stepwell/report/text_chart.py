"""A curve in the letters of a terminal."""

from __future__ import annotations

from collections.abc import Sequence

EIGHTHS = " ▁▂▃▄▅▆▇█"


def text_chart(
    values: Sequence[float], x_end: str, rows: int = 8, blocks: bool = True, x_begin: str = "0"
) -> list[str]:
    """Returns the lines of a chart: a column a value, filled from 0 up to it; the axes say 0 and the highest.

    x_begin, x_end: what stands at the ends of the x axis. blocks: in eighths of a line, with block letters,
    which some terminals do not have; else in whole lines of "#".
    """
    high = max(values)
    filled = [round(value / high * rows * 8) if high > 0 else 0 for value in values]  # in eighths of a line
    lines = []
    for row in reversed(range(rows)):
        eighths = [min(max(height - 8 * row, 0), 8) for height in filled]
        letters = (EIGHTHS[n] if blocks else " #"[n >= 4] for n in eighths)
        label = f"{high:.3g}" if row == rows - 1 else "0" if row == 0 else ""
        lines.append(f"{label:>8} |{''.join(letters)}".rstrip())
    width = max(len(values), len(x_begin) + 1 + len(x_end))
    return [*lines, f"{'':>10}{x_begin}{x_end:>{width - len(x_begin)}}"]
