"""Writes a Parquet file from frames that come one by one, with polars' streaming writer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Full, Queue
from typing import Literal

import polars as pl
from polars.io.plugins import register_io_source


def write_parquet(
    frames: Iterable[pl.DataFrame],
    schema: pl.Schema,
    path: Path,
    compression: Literal["lz4", "zstd"] = "zstd",
) -> None:
    """Writes the frames one below the other; no more than three of them are in memory.

    polars' writer takes them from a generator in a thread of its own. They are made in this thread: here
    signals arrive, once, and torch's settings (threads, gradients) are each thread's own.

    Raises OSError where the disk is full, and whatever `frames` raises; the file is then half written.
    """
    waiting: Queue[pl.DataFrame | None] = Queue(maxsize=1)

    def taken(*_: object) -> Iterator[pl.DataFrame]:
        while (frame := waiting.get()) is not None:
            yield frame

    def sink() -> None:
        source = register_io_source(taken, schema=schema)
        source.sink_parquet(path, compression=compression, engine="streaming")

    with ThreadPoolExecutor(1) as thread:
        written = thread.submit(sink)

        def hand_over(frame: pl.DataFrame | None) -> None:
            while not written.done():
                with suppress(Full):
                    return waiting.put(frame, timeout=0.1)

        try:
            for frame in frames:
                hand_over(frame)
                if written.done():  # it has failed
                    break
        finally:
            hand_over(None)
        try:
            written.result()
        except pl.exceptions.ComputeError as error:  # the system's number is in its text
            found = re.search(r"os error (\d+)", str(error))
            if found is None:
                raise
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
