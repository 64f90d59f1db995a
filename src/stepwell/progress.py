"""Shows how far something is: a bar in a terminal or notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

LINE_SECONDS = 5.0  # between plain lines
SILENT_SECONDS = 2.0  # what ends earlier is not worth a word

_quiet: ContextVar[bool] = ContextVar("stepwell_quiet", default=False)


@contextmanager
def quietly(quiet: bool) -> Iterator[None]:
    """While active nothing is shown, if `quiet`, and nothing is said."""
    before = _quiet.get()
    _quiet.set(quiet or before)
    try:
        yield
    finally:
        _quiet.set(before)


@contextmanager
def counted(text: str, total: float) -> Iterator[Callable[[float], None]]:
    """Yields a function to call with how much more of `total` is done; shown after two seconds."""
    done = 0.0

    def advance(more: float) -> None:
        nonlocal done
        done += more

    with Progress(lambda: {"fraction": min(done / max(total, 1), 1.0), "text": text}, after=SILENT_SECONDS):
        yield advance


class Progress:
    """Draws what `state` returns, {"fraction", "text"}: a bar 4 times a second, or a line every 5 seconds.

    after: seconds before the first. Whoever computes does nothing for it: a thread of its own reads
    how far that is. Within it no other is shown: two bars would overwrite each other.
    """

    def __init__(self, state: Callable[[], dict[str, Any]], after: float | None = None) -> None:
        self._state, self._after, self._quiet = state, after, _quiet.get()
        self._bar = _bar(state) if not self._quiet and _has_screen() else None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, name="stepwell-progress", daemon=True)

    def __enter__(self) -> Progress:
        self._was_quiet = _quiet.get()
        _quiet.set(True)
        if self._bar is not None and self._after is None:
            self._bar.start()
        elif not self._quiet:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        _quiet.set(self._was_quiet)
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._bar is not None:
            self._bar.stop()

    def say(self, message: str) -> None:
        """A line that stays."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(message, highlight=False, markup=False)
        else:
            print(message, file=sys.stderr, flush=True)

    def _show(self) -> None:
        """After the first wait the bar, which then draws itself, or lines."""
        wait, before = LINE_SECONDS if self._after is None else self._after, ""
        while not self._ended.wait(wait):
            if self._bar is not None:
                return self._bar.start()
            state, wait = self._state(), LINE_SECONDS
            line = f"{state['fraction']:4.0%}  {state['text']}"
            if line != before:
                self.say(line)
            before = line


def _has_screen() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _bar(state: Callable[[], dict[str, Any]]) -> Any:
    """A rich progress bar whose drawing thread asks `state` for what to show."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column

    class Bar(Progress):
        def get_renderables(self) -> Any:
            now = state()
            for task in self.tasks:
                self.update(task.id, completed=now["fraction"], text=now["text"])
            yield from super().get_renderables()

    bar = Bar(
        BarColumn(20, table_column=Column(min_width=20)),
        TaskProgressColumn(table_column=Column(min_width=4, no_wrap=True)),
        TimeRemainingColumn(table_column=Column(min_width=7, no_wrap=True)),
        # In a narrow terminal the text is cut, not the bar.
        TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=Console(stderr=True),
        refresh_per_second=4,
        transient=True,
    )
    bar.add_task("", total=1.0, text="")
    return bar
