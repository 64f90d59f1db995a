"""Reading a table's text, against what was written and against the sentence for what is broken."""

from __future__ import annotations

import csv
import os
import resource
import signal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.data import tablefile
from stepwell.data.tablefile import open_table
from stepwell.errors import UserError


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "t.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6)


@given(
    rows=st.lists(st.tuples(CELL, CELL, st.just("end")), min_size=1, max_size=8),
    mark=st.sampled_from(",;\t|"),
)
def test_what_csv_writes_is_read_back(tmp_path_factory, rows, mark):
    """Quotes, line ends, blanks and separators inside cells survive, under each separator."""
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=mark).writerows([("a", "ü b", "z"), *rows])
    table = open_table(path)
    if table.separator == mark:  # texts full of another separator can outvote it
        assert table.names == ["a", "ü b", "z"]
        assert table.read(table.names).rows() == rows


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_separator_is_found(write, mark):
    """By counting cells, whatever other marks the texts have; named in a note if it is unusual."""
    rows = [["name", "size", "note"], ["x", "1,5", "a; b"], ["y", "2,5", "c | d"], ["z", "3", "e"]]
    text = "\n".join(mark.join(f'"{c}"' if any(m in c for m in ",;|") else c for c in row) for row in rows)
    table = open_table(write(text))
    assert table.separator == mark and table.read(["note"])["note"].to_list() == ["a; b", "c | d", "e"]
    assert bool(table.notes) == (mark in ";|")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks(write, end, mark):
    table = open_table(write(mark + end.join(["a,b", "1,é", "2,日本"]) + end))
    assert table.names == ["a", "b"]
    assert table.read(["a", "b"]).rows() == [("1", "é"), ("2", "日本")]


def test_a_quotation_mark_within_a_cell_is_text(write):
    """5" is five inches: a mark that does not open the cell is a letter like others."""
    table = open_table(write('size,n\n5" pipe,1\n6" x 2",2\n'))
    assert table.read(["size"])["size"].to_list() == ['5" pipe', '6" x 2"']


def test_empty_lines_are_skipped_and_rows_still_counted(write, tmp_path, monkeypatch):
    """Rows are numbered as in an editor; a sheet's tail of empty cells is no data; in batches too."""
    path = write("\n\na,b\n1,2\n\n \n,\n3,4\n,\n\n,\n")
    for bound in (1 << 30, 1):
        monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path))
        monkeypatch.setattr(tablefile, "IN_MEMORY_BYTES", bound)
        table = open_table(path)
        assert table.read(["a", "b"]).rows() == [("1", "2"), ("", ""), ("3", "4")]
        assert [table.file_row(i) for i in range(3)] == [4, 7, 8]


def test_a_tail_of_empty_cells_is_kept_where_rows_are_asked_for(write, tmp_path, monkeypatch):
    """With `empty_tail` a line with a separator is a row, a blank line is none; else a note counts them."""
    path = write("a,b\n1,2\n,\n\n3,4\n,\n\n,\n\n")
    for bound in (1 << 30, 1):
        monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path))
        monkeypatch.setattr(tablefile, "IN_MEMORY_BYTES", bound)
        table = open_table(path, empty_tail=True)
        empty = ("", "")
        assert table.read(["a", "b"]).rows() == [("1", "2"), empty, ("3", "4"), empty, empty]
        assert [table.file_row(i) for i in range(5)] == [2, 3, 5, 6, 8] and open_table(path).rows == 3
    monkeypatch.setattr(tablefile, "IN_MEMORY_BYTES", 1 << 30)
    assert "2 rows of empty cells" in open_table(path).notes[0] and not open_table(path, True).notes
    assert open_table(write('a\n1\n\n2\n""\n\n'), True).read(["a"])["a"].to_list() == ["1", "", "2", ""]


def test_batches_are_the_whole_in_order(write, tmp_path, monkeypatch):
    """In memory or not, text or Parquet, the batches put together are the table, and so are the groups."""
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    frame = pl.DataFrame({"i": range(5000), "t": [f"x{i % 7}" for i in range(5000)], "u": [0.5] * 5000})
    frame.write_csv(tmp_path / "t.csv")
    frame.write_parquet(tmp_path / "t.parquet", row_group_size=700)
    monkeypatch.setattr(tablefile, "BATCH_CELLS", 300)
    for name in ("t.csv", "t.parquet"):
        for bound in (1 << 30, 1000):
            monkeypatch.setattr(tablefile, "IN_MEMORY_BYTES", bound)
            table = open_table(tmp_path / name)
            batches = list(table.batches(["i", "u"]))
            assert len(batches) > 1 and pl.concat(batches).equals(table.read(["i", "u"]))
            assert table.rows == 5000 and table.read(["i"])["i"].cast(pl.Int64).to_list() == list(range(5000))
            groups = list(table.groups(["i", "t", "u"]))
            assert len(groups) == (1 if bound > 1000 else 3)
            assert pl.concat(groups, how="horizontal").equals(table.read(["i", "t", "u"]))


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "empty": (b"", "is empty"),
    "blank": ("\n  \n\n", "is empty"),
    "many blanks": ("\n" * 5000, "is empty"),
    "header only": ("a,b\n", "no rows"),
    "header and blanks": ("a,b\n,\n\n", "no rows"),
    "short row": ("a,b\n1,2\n3\n", "row 3 has 1 cell where the header has 2"),
    "long row": ("a,b\n1,2\n\n3,4,5\n", "row 4 has 3 cells where the header has 2"),
    "open quote": ('a,b\n1,"2\n3,4\n', "quotation mark"),
    "open quote, more cells": ('a,b\n1,"2\n3",4\n', "several lines"),
    "text after quote": ('a,b\n"1"x,2\n', "row 2: a quotation mark"),
    "open quote in header": ('a,"b\n1,2\n', "row 1: a quotation mark"),
    "twice": ("a,b, a\n1,2,3\n", "more than one column named 'a'"),
    "no header": ("5.1,1,1\n4.9,0,1\n", "first row looks like data"),
    "latin-1": ("a,b\n1,2\n3,é\n".encode("latin-1"), "line 3 has the byte 0xE9"),
    "latin-1 in header": ("ä,b\n1,2\n".encode("latin-1"), "line 1 has the byte 0xE4"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
    "utf-16 without mark": ("a,b\n1,2\n".encode("utf-16-le"), "zero bytes"),
    "zip": (b"PK\x03\x04....", "Excel"),
    "gzip": (b"\x1f\x8b\x08....", "unpack"),
    "cut parquet": (b"PAR1 cut", "damaged Parquet"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("bound", [1 << 30, 1])
def test_a_broken_file_is_refused_in_one_sentence(write, tmp_path, monkeypatch, case, bound):
    """The sentence names the file and, where there is one, the row; nothing half written stays."""
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tablefile, "IN_MEMORY_BYTES", bound)
    content, sentence = BROKEN[case]
    path = write(content)
    with pytest.raises(UserError, match=sentence) as refusal:
        open_table(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)
    assert not list((tmp_path / "cache").glob("*.part"))


@pytest.mark.parametrize("size", [0, 2000])
def test_a_full_disk_while_a_table_is_converted(write, tmp_path, monkeypatch, size):
    """One sentence that says where there is no room, and nothing half written in the cache."""
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tablefile, "IN_MEMORY_BYTES", 1)
    path = write("a,b\n" + "".join(f"{i},{i**7 % 1009}\n" for i in range(5000)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written \(File too large\); make room"):
            open_table(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "cache").iterdir())


def test_ctrl_c_while_a_table_is_converted(write, tmp_path, monkeypatch):
    """KeyboardInterrupt, once, and nothing half written in the cache."""
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tablefile, "IN_MEMORY_BYTES", 1)
    monkeypatch.setattr(tablefile, "BATCH_CELLS", 0)
    frame = tablefile._frame

    def interrupted(names, rows):
        if rows[0][0] == "2560":
            os.kill(os.getpid(), signal.SIGINT)
        return frame(names, rows)

    monkeypatch.setattr(tablefile, "_frame", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_table(write("a,b\n" + "".join(f"{i},x\n" for i in range(20_000))))
    assert not list((tmp_path / "cache").iterdir())


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(UserError, match="folder"):
        open_table(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        open_table(tmp_path / "none.csv")


def test_a_late_wrong_byte_is_found(write):
    """Far behind the first block that is decoded, the line is still the right one."""
    path = write(b"a,b\n" + b"1,2\n" * 50_000 + b"\xff,1\n")
    with pytest.raises(UserError, match="line 50002 has the byte 0xFF"):
        open_table(path)


def test_a_cell_longer_than_pythons_limit(write):
    assert open_table(write("a,b\n" + "x" * 300_000 + ",1\n")).rows == 1


def test_a_damaged_page_is_one_sentence(tmp_path, monkeypatch):
    """Damage that shows only when a column is read, whichever way that is; polars panics at some."""
    monkeypatch.setattr(tablefile, "BATCH_CELLS", 0)
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": range(2000), "b": [f"t{i % 7}" for i in range(2000)]}).write_parquet(path)
    whole = path.read_bytes()
    found = set()
    for place in [8, *range(4, len(whole) - 8, 97)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        for bound in (1, 1 << 30):
            monkeypatch.setattr(tablefile, "IN_MEMORY_BYTES", bound)
            for way in ("groups", "batches"):
                try:
                    list(getattr(open_table(path), way)(["a", "b"]))
                except UserError as refused:
                    assert str(refused).startswith(f"{path} ") and "\n" not in str(refused)
                    found.add((place, bound, way))
    assert {(8, bound, way) for bound in (1, 1 << 30) for way in ("groups", "batches")} <= found
