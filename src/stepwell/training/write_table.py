"""Writes a table that comes some rows at a time, as CSV, TSV, JSON, JSON lines or Parquet."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import polars as pl

from stepwell.data.parquet import write_parquet
from stepwell.errors import Interrupted, UserError
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
    """Yields the frames' text: together what polars writes of the table, `as_text`, in one piece."""
    for number, frame in enumerate(as_text(frame, ending) for frame in frames):
        if ending == ".jsonl":
            yield frame.write_ndjson()
        elif ending == ".json":
            yield ("," if number else "[") + frame.write_json()[1:-1]
        else:
            yield frame.write_csv(include_header=not number, separator="\t" if ending == ".tsv" else ",")
    if ending == ".json":
        yield "]"


def as_text(frame: pl.DataFrame, ending: str) -> pl.DataFrame:
    """Returns the frame as a text format can say it: in CSV durations as ISO 8601, lists and structs as JSON.

    Raises UserError for bytes, which no text format holds.
    """
    for name, kind in frame.schema.items():
        if _holds_bytes(kind):
            raise UserError(
                f"column {name!r} holds bytes, which only a .parquet file can hold: write to one"
                " (--out FILE.parquet), or leave the column out of the new file"
            )
    if ending in (".json", ".jsonl"):
        return frame
    return frame.with_columns(_cell(name, kind) for name, kind in frame.schema.items() if _is_no_cell(kind))


def _holds_bytes(kind: pl.DataType) -> bool:
    if isinstance(kind, (pl.List, pl.Array)):
        return _holds_bytes(kind.inner)  # type: ignore[arg-type]
    if isinstance(kind, pl.Struct):
        return any(_holds_bytes(field.dtype) for field in kind.fields)  # type: ignore[arg-type]
    return kind == pl.Binary


def _is_no_cell(kind: pl.DataType) -> bool:
    return kind.is_nested() or isinstance(kind, pl.Duration)


def _cell(name: str, kind: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    # polars encodes structs alone: {"":[1,2]} without what stands around the value.
    json = pl.struct(column.alias("")).struct.json_encode().str.strip_prefix('{"":').str.strip_suffix("}")
    if isinstance(kind, pl.Duration):
        json = json.str.strip_chars('"')
    return pl.when(column.is_not_null()).then(json).alias(name)


def _until(stop: StopRequest, frames: Iterable[pl.DataFrame], path: Path) -> Iterator[pl.DataFrame]:
    for frame in frames:
        if stop.signal is not None:
            raise _stopped(path, stop.signal)
        yield frame


def _stopped(path: Path, number: int) -> Interrupted:
    return Interrupted(f"stopped; {path} is not written", number)
