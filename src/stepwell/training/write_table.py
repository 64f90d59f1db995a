"""Writes a table that comes some rows at a time, as CSV, TSV, JSON, JSON lines or Parquet."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import polars as pl

from stepwell.data.parquet import write_parquet
from stepwell.errors import Interrupted
from stepwell.training import files
from stepwell.training.signals import StopRequest, stop_on_signals

ENDINGS = (".csv", ".tsv", ".parquet", ".json", ".jsonl")


def write_table(frames: Iterable[pl.DataFrame], path: Path) -> None:
    """Writes one frame or more, one below the other, by the path's ending: all of them or no file.

    Ctrl-C and SIGTERM end it between two frames. Raises OSError with the path where the disk is full.
    """

    def write(temporary: Path) -> None:
        with stop_on_signals() as stop:
            watched = _until(stop, frames, path)
            if path.suffix.lower() == ".parquet":
                first = next(watched)
                write_parquet(chain([first], watched), first.schema, temporary)
                return
            # Python's own file: polars, writing JSON to a full disk, cuts it short and says nothing.
            with temporary.open("wb") as file:
                for piece in text(watched, path.suffix.lower()):
                    file.write(piece.encode())

    try:
        files.write_atomically(path, write)
    except KeyboardInterrupt:
        raise _stopped(path, signal.SIGINT) from None
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def text(frames: Iterable[pl.DataFrame], ending: str) -> Iterator[str]:
    """Yields the frames' text, which is together what polars writes of the table in one piece."""
    for number, frame in enumerate(frames):
        if ending == ".jsonl":
            yield frame.write_ndjson()
        elif ending == ".json":
            yield ("," if number else "[") + frame.write_json()[1:-1]
        else:
            yield frame.write_csv(include_header=not number, separator="\t" if ending == ".tsv" else ",")
    if ending == ".json":
        yield "]"


def _until(stop: StopRequest, frames: Iterable[pl.DataFrame], path: Path) -> Iterator[pl.DataFrame]:
    for frame in frames:
        if stop.signal is not None:
            raise _stopped(path, stop.signal)
        yield frame


def _stopped(path: Path, number: int) -> Interrupted:
    return Interrupted(f"stopped; {path} is not written", number)
