"""Shows how far a run is: a bar in a terminal or notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

LINE_SECONDS = 5.0  # between plain lines


class Progress:
    """Draws what `state` returns, {"fraction", "text"}, at most 4 times a second by a thread of its own.

    The training loop does nothing for it: the drawing thread reads the run's counters.
    """

    def __init__(self, state: Callable[[], dict[str, Any]], quiet: bool) -> None:
        self._state, self._bar = state, None
        self.quiet = quiet
        self._last_line = time.monotonic()
        if not quiet and _has_screen():
            self._bar = _bar(state)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def evaluated(self) -> None:
        """Called after an evaluation: where there is no bar, a plain line from time to time."""
        if not self.quiet and self._bar is None and time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            state = self._state()
            print(f"{state['fraction']:4.0%}  {state['text']}", file=sys.stderr, flush=True)

    def say(self, message: str) -> None:
        """A line that stays."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(message, highlight=False, markup=False)
        else:
            print(message, file=sys.stderr, flush=True)


def _has_screen() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _bar(state: Callable[[], dict[str, Any]]) -> Any:
    """A rich progress bar whose drawing thread asks `state` for what to show."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    class Bar(Progress):
        def get_renderables(self) -> Any:
            now = state()
            for task in self.tasks:
                self.update(task.id, completed=now["fraction"], text=now["text"])
            yield from super().get_renderables()

    bar = Bar(
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
        console=Console(stderr=True),
        refresh_per_second=4,
        transient=True,
    )
    bar.add_task("", total=1.0, text="")
    return bar
