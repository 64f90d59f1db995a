"""Ctrl-C and SIGTERM ask the loop to stop; a second one stops at once."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from stepwell.errors import Interrupted


class StopRequest:
    """`signal` is the number of the signal that came, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def raise_if_asked(self, folder: Path) -> None:
        """Ends a run whose state is saved in `folder`, if a signal came."""
        if self.signal is not None:
            command = f"stepwell train --resume {shlex.quote(str(folder))}"
            raise Interrupted(f"stopped and saved; go on with: {command}", self.signal)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """While active, the first SIGINT or SIGTERM is noted; the next has its usual effect.

    Python lets only the main thread handle signals: elsewhere nothing is caught.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    caught = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in caught}

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = number
        for each in caught:
            signal.signal(each, before[each])

    for number in caught:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number in caught:
            signal.signal(number, before[number])
