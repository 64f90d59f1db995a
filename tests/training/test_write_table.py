"""A table written some rows at a time is the one that polars writes whole, or is not there at all."""

import datetime as dt
import errno
import io
import json
import os
import resource
import signal

import polars
import pytest

from stepwell.errors import Interrupted, UserError
from stepwell.training.write_table import ENDINGS, text, write_table

ROWS = 997
TABLE = polars.DataFrame(
    {
        "größe": [None if i % 9 == 0 else i / 7 for i in range(ROWS)],
        "a,b": [
            None if i % 5 == 0 else ['"quoted"', "São, Paulo", "two\nlines", ""][i % 4] for i in range(ROWS)
        ],
        "day": [None if i % 3 == 0 else dt.date(2000 + i % 20, 1 + i % 12, 1) for i in range(ROWS)],
        "moment": [dt.datetime(2020, 1, 1, i % 24, 3, 4, i) for i in range(ROWS)],
        "odd": [float("nan") if i % 2 else float("inf") for i in range(ROWS)],
        "none": [None] * ROWS,
    }
)


def whole(ending):
    """The bytes that polars writes of the table in one piece."""
    to = io.BytesIO()
    {
        ".csv": TABLE.write_csv,
        ".tsv": lambda to: TABLE.write_csv(to, separator="\t"),
        ".parquet": TABLE.write_parquet,
        ".json": TABLE.write_json,
        ".jsonl": TABLE.write_ndjson,
    }[ending](to)
    return to.getvalue()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("height", [1, 100, ROWS])
def test_pieces_make_the_whole(ending, height, tmp_path):
    """To the byte, for quotes, other scripts, gaps, dates and NaN, however many rows come at a time."""
    write_table(TABLE.iter_slices(height), tmp_path / f"t{ending}")
    assert (tmp_path / f"t{ending}").read_bytes() == whole(ending)
    if ending != ".parquet":
        assert "".join(text(TABLE.iter_slices(height), ending)).encode() == whole(ending)


NESTED = polars.DataFrame(
    {
        "took": [dt.timedelta(hours=25, microseconds=1), None, dt.timedelta(days=-1)],
        "list": [[1, None], None, []],
        "deep": [[{"s, t": 'ü"\n', "v": [None]}], [None], None],
        "struct": [{"u": dt.date(2024, 2, 29), "v": None}, None, {"u": None, "v": [1.5]}],
        "array": polars.Series([[1, 2], [3, None], None], dtype=polars.Array(polars.Int64, 2)),
        "none": polars.Series([[None], None, []], dtype=polars.List(polars.Null)),
    }
)


def test_durations_lists_and_structs_in_a_table_of_text(tmp_path):
    """A CSV has them as JSON has them: a duration as ISO 8601, the others as JSON text, gaps empty."""
    write_table(NESTED.iter_slices(2), tmp_path / "t.json")
    expected = json.loads((tmp_path / "t.json").read_text())
    assert expected[0]["took"] == "PT90000.000001S"
    for ending, mark in ((".csv", ","), (".tsv", "\t")):
        write_table(NESTED.iter_slices(2), tmp_path / f"t{ending}")
        cells = polars.read_csv(tmp_path / f"t{ending}", separator=mark, infer_schema=False)
        for name in NESTED.columns:
            for cell, row in zip(cells[name], expected, strict=True):
                assert (cell if name == "took" or cell is None else json.loads(cell)) == row[name]
    write_table(NESTED.iter_slices(2), tmp_path / "t.parquet")
    assert polars.read_parquet(tmp_path / "t.parquet").equals(NESTED)


@pytest.mark.parametrize("values", [[b"\xff", None], [[b"\xff"], None], [{"a": [b"\xff"]}, None]])
def test_bytes_are_refused_but_in_parquet(values, tmp_path):
    """The sentence names the column and the format that can hold it."""
    frame = polars.DataFrame({"x": [1, 2], "raw": values})
    for ending in set(ENDINGS) - {".parquet"}:
        with pytest.raises(UserError, match=r"column 'raw' holds bytes.*\.parquet"):
            write_table([frame], tmp_path / f"t{ending}")
    write_table([frame], tmp_path / "t.parquet")
    assert os.listdir(tmp_path) == ["t.parquet"]


def broken(after, failure):
    """Frames of the table, again and again, and after some of them a failure."""
    for number in range(1000):
        if number == after:
            failure()
        yield TABLE


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def refuse():
    raise ValueError("row 3,000 is wrong")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("after", [0, 1, 30])
@pytest.mark.parametrize(("failure", "error"), [(refuse, ValueError), (interrupt, Interrupted)])
def test_what_ends_early_leaves_the_older_file(ending, after, failure, error, tmp_path):
    """After an error in a later row, or Ctrl-C, there is the file of before and nothing else."""
    path = tmp_path / f"t{ending}"
    path.write_text("older")
    with pytest.raises(error):
        write_table(broken(after, failure), path)
    assert path.read_text() == "older" and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("size", [0, 3, 20_000, 60_000])
def test_a_full_disk_is_an_error_of_the_system(ending, size, tmp_path):
    """Wherever in the file the disk ends, it is an OSError that names the path, and nothing is left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(OSError) as refused:
            write_table((TABLE for _ in range(500)), tmp_path / f"t{ending}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.errno == errno.EFBIG and refused.value.filename == str(tmp_path / f"t{ending}")
    assert not os.listdir(tmp_path)
