"""Opens a CSV, TSV or Parquet file as one polars frame, or says in which row it is broken."""

from __future__ import annotations

import csv
import re
import sys
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TextIO

import numpy as np
import polars as pl

from stepwell.data.archive import cached
from stepwell.data.parquet import write_parquet
from stepwell.errors import UserError
from stepwell.progress import SILENT_SECONDS, Progress

IN_MEMORY_BYTES = 1 << 30  # larger tables are read in batches, and their numbers kept on disk
BATCH_CELLS = 2_000_000  # cells a batch: Python holds some 60 bytes for each while it parses text

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass
class TableFile:
    """A table whose columns can be read some at a time, and whose rows can be read in batches.

    names: of the columns, stripped of surrounding blanks. Text files hold all values as text.
    rows: N, without the header. bytes: what the whole table needs in memory, roughly.
    gaps: numbers of the data rows before which the file has an empty line.
    """

    path: Path
    names: list[str]
    rows: int
    bytes: int
    lazy: pl.LazyFrame
    separator: str | None = None
    gaps: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def read(self, names: list[str]) -> pl.DataFrame:
        with reading(self.path):
            return self.lazy.select(names).collect()

    def groups(self, names: list[str]) -> Iterator[pl.DataFrame]:
        """Yields whole columns, as many at a time as fit in memory."""
        parts = min(-(-self.bytes // IN_MEMORY_BYTES), max(len(names), 1))
        width = max(-(-len(names) // max(parts, 1)), 1)
        for start in range(0, len(names), width):
            yield self.read(names[start : start + width])

    def batches(self, names: list[str]) -> Iterator[pl.DataFrame]:
        """Yields the rows in the file's order, some at a time."""
        height = batch_rows(len(self.names))
        lazy = self.lazy.select(names)
        with reading(self.path):
            if self.bytes <= IN_MEMORY_BYTES:
                yield from lazy.collect().iter_slices(height)
            else:
                yield from lazy.collect_batches(chunk_size=height, maintain_order=True)

    def file_row(self, index: int) -> int:
        """Row in the file as an editor or a spreadsheet counts: from 1, the header included."""
        return index + 2 + bisect_right(self.gaps, index) if self.separator else index + 1

    def require(self, names: list[str], what: str) -> None:
        for name in names:
            if name not in self.names:
                raise UserError(f"{self.path} has no column {name!r}{nearest(name, self.names)}: {what}")


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Says in one sentence what polars finds damaged in a file while it reads it."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:  # it panics at some damage
        reason = str(error).split("\n")[0]
        raise UserError(f"{path} is a damaged Parquet file ({reason}): write it again.") from None


def batch_rows(columns: int) -> int:
    """How many rows of a table this wide make a batch."""
    return max(BATCH_CELLS // max(columns, 1), 256)


def nearest(name: str, names: list[str]) -> str:
    """Returns " (the nearest is 'x'; it has 'x', 'y')", for the middle of a sentence."""
    folded = {n.casefold(): n for n in reversed(names)}
    close = get_close_matches(name.casefold(), list(folded), 1, 0.6)
    first = f"the nearest is {folded[close[0]]!r}; " if close else ""
    return f" ({first}it has {listing(names)})"


def listing(values: list[str], most: int = 12) -> str:
    """The values in quotes, the first few of many, for a message."""
    shown = ", ".join(repr(v) for v in values[:most])
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")


def open_table(path: str | Path, empty_tail: bool = False) -> TableFile:
    """Opens a table; the content, not the file's name, tells text from Parquet.

    empty_tail: keep the rows of empty cells that may end a text table (`,,`), for predictions row by
    row; else they are dropped with a note, as a spreadsheet writes them for no reason. A line without
    anything in it is no row, unless the table has one column and further rows.

    Raises UserError for anything that is not a table with a header and at least one row: a missing,
    empty, compressed or wrongly encoded file, a name that stands twice, a row of another length.
    """
    path = Path(path).expanduser()
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder, not a table: name a .csv, .tsv or .parquet file.")
        with path.open("rb") as file:
            start = file.read(4096)
        return _open_parquet(path) if start[:4] == b"PAR1" else _open_text(path, start, empty_tail)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check data.name (the file to read).") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def _open_parquet(path: Path) -> TableFile:
    with reading(path):
        lazy = pl.scan_parquet(path, glob=False)
        found = lazy.collect_schema().names()
        rows = int(lazy.select(pl.len()).collect().item())
    notes: list[str] = []
    names = _column_names(path, found, notes)
    if not rows:
        raise UserError(f"{path} has columns but no rows: there is nothing to learn from.")
    lazy = lazy.select(pl.col(old).alias(new) for old, new in zip(found, names, strict=True))
    size = max(path.stat().st_size, 8 * rows * len(names))
    return TableFile(path, names, rows, size, lazy, notes=notes)


def _open_text(path: Path, start: bytes, empty_tail: bool) -> TableFile:
    _check_text(path, start)
    separator = _separator(path)
    size = path.stat().st_size
    notes = (
        [] if separator in ",\t" else [f"{path.name}: the columns are separated by {_SEPARATORS[separator]}."]
    )
    names = _header(path, separator, notes)
    gaps: list[int] = []
    if size > IN_MEMORY_BYTES:
        lazy, rows, gaps = _converted(path, separator, names, empty_tail)
    else:
        frames = list(_parse(path, separator, names, gaps, empty_tail, notes))
        rows = sum(len(f) for f in frames)
        lazy = pl.concat(frames).lazy() if frames else pl.LazyFrame()
    if not rows:
        raise UserError(f"{path} has a row of column names but no rows of data below it.")
    return TableFile(path, names, rows, size, lazy, separator, gaps, notes)


def _check_text(path: Path, start: bytes) -> None:
    if not start.strip(b"\xef\xbb\xbf \t\r\n"):
        # A file may begin with more blanks than were read; only a blank file is refused.
        with path.open("rb") as file:
            if not any(line.strip(b"\xef\xbb\xbf \t\r\n") for line in file):
                raise UserError(f"{path} is empty: a table needs a row of column names and rows of data.")
    if start[:4] == b"PK\x03\x04":
        raise UserError(f"{path} is a zip or Excel file, not text: save the sheet as CSV, or unpack it.")
    if start[:2] == b"\x1f\x8b" or start[:6] == b"\xfd7zXZ\x00" or start[:4] == b"\x28\xb5\x2f\xfd":
        raise UserError(f"{path} is compressed: unpack it and name the table inside.")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(
            f"{path} is UTF-16 text, not UTF-8: convert it (iconv -f utf-16 -t utf-8 {path.name} > new.csv)."
        )
    if b"\x00" in start:
        raise UserError(
            f"{path} is not a text table (it has zero bytes): save it as CSV in UTF-8, or as Parquet."
        )


def _wrong_encoding(path: Path) -> UserError:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                bad = line[error.start]
                return UserError(
                    f"{path} is not UTF-8: line {number} has the byte 0x{bad:02X}; convert the file"
                    f" (iconv -f windows-1252 -t utf-8 {path.name} > new.csv)."
                )
    return UserError(f"{path} is not UTF-8: convert it, e.g. with iconv.")


def _separator(path: Path) -> str:
    """Returns the separator under which most of the first rows have as many cells as the header.

    csv.Sniffer guesses from letters' frequencies, and takes a letter for a separator at times.
    """
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    with path.open("rb") as file:
        sample = file.read(1 << 18)
    text = sample.decode("utf-8-sig", "replace").lstrip("\r\n")
    lines = text.splitlines(keepends=True)
    if len(sample) == 1 << 18:
        lines = lines[:-1]  # cut in the middle
    best, score = ",", (False, 0.0, 0)
    for separator in _SEPARATORS:
        try:
            rows = [
                row for row, _ in zip(csv.reader(lines, delimiter=separator), range(200), strict=False) if row
            ]
        except csv.Error:
            continue
        width = len(rows[0]) if rows else 0
        same = sum(len(row) == width for row in rows) / max(len(rows), 1)
        if (width > 1, same, width) > score:
            best, score = separator, (width > 1, same, width)
    return best


def _reader(file, separator: str):
    csv.field_size_limit(sys.maxsize >> 32 or sys.maxsize)  # texts longer than 128 KiB are no error
    # strict: an unclosed quote would otherwise swallow the rest of the file into one cell.
    return csv.reader(file, delimiter=separator, strict=True)


def _header(path: Path, separator: str, notes: list[str]) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            for row in _reader(file, separator):
                if any(cell.strip() for cell in row):
                    return _column_names(path, row, notes)
        except UnicodeDecodeError:
            raise _wrong_encoding(path) from None
        except csv.Error:
            raise UserError(f"{path}, row 1: a quotation mark is not closed, or text follows it.") from None
    raise UserError(f"{path} is empty: a table needs a row of column names and rows of data.")


def looks_like_data(names: list[str]) -> bool:
    """Whether all of the column names are numbers."""
    return all(re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", name) for name in names)


def _column_names(path: Path, found: list[str], notes: list[str]) -> list[str]:
    names = [name.strip() or f"column {i}" for i, name in enumerate(found, 1)]
    unnamed = [called for called, name in zip(names, found, strict=True) if not name.strip()]
    if len(unnamed) == 1:
        notes.append(f"{path.name}: a column without a name is called {unnamed[0]!r}.")
    elif unnamed:
        notes.append(f"{path.name}: columns without names are called {listing(unnamed)}.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        if looks_like_data(twice):
            raise UserError(f"{path}: the first row looks like data, so put a row of column names above it.")
        raise UserError(f"{path} has more than one column named {listing(twice)}: give each its own name.")
    return names


def _parse(
    path: Path, separator: str, names: list[str], gaps: list[int], empty_tail: bool, notes: list[str]
) -> Iterator[pl.DataFrame]:
    """Yields batches of rows, all values as text; appends to `gaps` where empty lines were skipped.

    Appends to `notes` how many rows of empty cells at the end were dropped, unless `empty_tail` keeps them.

    Python's csv module reads the text, since it alone of the two takes quotation marks within a cell
    (5" pipe), a lone carriage return, and tells the row at fault; polars does everything after it.
    """
    width, height = len(names), batch_rows(len(names))
    rows: list[list[str]] = []
    blank: list[list[str]] = []  # rows of empty cells: kept if another row follows, else a sheet's tail
    tail = 0  # how many of these come before the empty lines that end a file of one column
    index, number, header = 0, 0, True
    with path.open(encoding="utf-8-sig", newline="") as file, _shown(file, path):
        try:
            for row in _reader(file, separator):
                number += 1
                if header:
                    header = not any(cell.strip() for cell in row)
                    if not header:
                        gaps.extend([0] * (number - 1))
                    continue
                line = bool(row)
                if len(row) != width:
                    if width > 1 and (not row or (len(row) == 1 and not row[0].strip())):
                        gaps.append(index + len(blank))
                        continue
                    if not row:  # one column: an empty line is an empty cell
                        row = [""]
                    else:
                        raise _ragged(path, number, row, width, separator)
                if not any(row):
                    blank.append(row)
                    if line:
                        tail = len(blank)
                    continue
                if blank:
                    rows += blank
                    index += len(blank)
                    blank, tail = [], 0
                rows.append(row)
                index += 1
                if len(rows) >= height:
                    yield _frame(names, rows)
                    rows = []
        except UnicodeDecodeError:
            raise _wrong_encoding(path) from None
        except csv.Error:
            raise UserError(
                f"{path}, row {number + 1}: a quotation mark is not closed, or text follows the closing one;"
                ' write a quotation mark inside a quoted text twice ("").'
            ) from None
    if empty_tail:
        rows += blank[:tail]
    elif tail:
        notes.append(f"{path.name}: {tail} row{'s' * (tail > 1)} of empty cells at its end left out.")
    if rows:
        yield _frame(names, rows)


def _shown(file: TextIO, path: Path) -> Progress:
    """Shows how far a file has been read, by its bytes."""
    size = path.stat().st_size
    return Progress(
        lambda: {"fraction": file.buffer.tell() / size, "text": f"reading {path.name}"}, after=SILENT_SECONDS
    )


def _ragged(path: Path, number: int, row: list[str], width: int, separator: str) -> UserError:
    cells = "1 cell" if len(row) == 1 else f"{len(row)} cells"
    if any("\n" in cell for cell in row):
        hint = "one of them runs over several lines: is a quotation mark not closed?"
    else:
        hint = f"put texts that hold {_SEPARATORS[separator]} in quotation marks, and fill up short rows."
    return UserError(f"{path}, row {number} has {cells} where the header has {width}: {hint}")


def _frame(names: list[str], rows: list[list[str]]) -> pl.DataFrame:
    columns = zip(*rows, strict=True)
    return pl.DataFrame([pl.Series(n, c, dtype=pl.String) for n, c in zip(names, columns, strict=True)])


def _converted(
    path: Path, separator: str, names: list[str], empty_tail: bool
) -> tuple[pl.LazyFrame, int, list[int]]:
    """Writes a text table that is larger than memory as Parquet into the cache, once.

    Columns can then be read one by one without parsing all of the text again. The column without a
    name has the row in the file of each row.
    """

    def write(to: Path) -> None:
        def frames() -> Iterator[pl.DataFrame]:
            gaps: list[int] = []
            start = 0
            for frame in _parse(path, separator, names, gaps, empty_tail, []):
                index = np.arange(start, start + len(frame))
                rows = index + 2 + np.searchsorted(np.array(gaps, np.int64), index, "right")
                yield frame.with_columns(pl.Series("", rows, dtype=pl.Int64))
                start += len(frame)

        schema = pl.Schema(dict.fromkeys(names, pl.String()) | {"": pl.Int64()})
        write_parquet(frames(), schema, to, "lz4")

    part = "table with its tail" if empty_tail else "table"
    file = cached(str(path), ".parquet", write, part=part, key=f"1{separator}")
    lazy = pl.scan_parquet(file, glob=False)
    number = lazy.select("").collect()[""].to_numpy()
    skipped = np.diff(number - 2 - np.arange(len(number)), prepend=0)
    return lazy, len(number), np.repeat(np.arange(len(number)), skipped).tolist()
