"""What every source has in common: which file is whose, and the notes on the parts."""

from __future__ import annotations

import os
import re

import numpy as np
import polars as pl
import pytest

from stepwell.data import sources
from stepwell.data.npz import NpzData
from stepwell.data.table import TableData
from stepwell.errors import UserError


@pytest.mark.parametrize("absent", [0, 1, 5, 12])
@pytest.mark.parametrize("part", ["test", "validation"])
def test_classes_without_a_sample_are_noted(tmp_path, part, absent):
    """One plain sentence for each part that lacks classes: five by name, the others counted."""
    y = np.repeat(np.arange(20), 3)
    arrays = {
        f"{kind}_{name}": y[:, None] * 1.0 if kind == "x" else y
        for kind in "xy"
        for name in ("test", "validation")
    }
    arrays[f"x_{part}"], arrays[f"y_{part}"] = y[: 60 - 3 * absent, None] * 1.0, y[: 60 - 3 * absent]
    np.savez(
        tmp_path / "a.npz", allow_pickle=False, x=np.random.default_rng(0).normal(size=(60, 1)), y=y, **arrays
    )
    notes = sources.load(NpzData(name=str(tmp_path / "a.npz"))).notes
    told = [note for note in notes if "no sample" in note]
    names = [str(k) for k in range(20 - absent, 20)]
    assert len(told) == bool(absent) and all(f"in the {part} part" in note for note in told)
    assert re.findall(r"'(\d+)'", " ".join(told)) == names[:5]
    assert ("and 7 more have no sample" in " ".join(told)) == (absent == 12)
    assert (f"class '19' has no sample in the {part} part, so its recall is undefined there." in told) == (
        absent == 1
    )


def test_a_rare_class_of_a_table_is_noted_and_numbers_are_not(tmp_path):
    """A class of three rows can be missing from a part of five; an empty part and regression have no note."""
    table = pl.DataFrame(
        {"x": [7 * i % 50 for i in range(50)], "y": ["a"] * 24 + ["b"] * 24 + ["rare"] * 2}
    ).with_columns(n=pl.col("x") * 1.5)
    table.write_csv(tmp_path / "t.csv")

    def told(**options):
        notes = sources.load(TableData(name=str(tmp_path / "t.csv"), **options)).notes
        return [note for note in notes if "no sample" in note]

    for test in (0.1, 0.0):
        data = sources.load(TableData(name=str(tmp_path / "t.csv"), target="y", ignore=["n"], test=test))
        for name, part in (("test", data.test), ("validation", data.validation)):
            missing = len(part) > 0 and set(part.targets.tolist()) != {0, 1, 2}
            assert any(f"'rare' has no sample in the {name} part" in note for note in data.notes) == missing
    assert told(target="y", ignore=["n"], test=0.1) and not told(target="n", task="regression", ignore=["y"])


@pytest.mark.parametrize("source", ["npz", "images", "table", "text", "bundled"])
@pytest.mark.parametrize("name", ["pipe", "pipe.csv", "pipe.npz", "pipe.png"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name, source):
    """Opening it would wait for ever; a shell's <(…) is one too."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: this is a pipe: save it as a file first"):
        sources.source_of(str(tmp_path / name))
    with pytest.raises(UserError, match="this is a pipe"):
        sources.read_new({"source": source}, str(tmp_path / name))
    with pytest.raises(UserError, match="this is a device"):
        sources.read_new({"source": source}, os.devnull)


def test_a_file_of_nearly_the_name_is_suggested(tmp_path):
    """In training and for new data; without one in the folder there is nothing to suggest."""
    (tmp_path / "homes.csv").write_text("a,b")
    for name in ("homes.cvs", "home.csv"):
        for find in (sources.source_of, lambda path: sources.read_new({"source": "table"}, path)):
            with pytest.raises(UserError, match=r"no .*file.*did you mean .*homes\.csv\?$"):
                find(str(tmp_path / name))
    with pytest.raises(UserError, match=r"no such file$"):
        sources.source_of(str(tmp_path / "entirely-different.npz"))
    with pytest.raises(UserError, match=r"no such file$"):
        sources.source_of(str(tmp_path / "none" / "homes.csv"))


@pytest.mark.parametrize(
    ("source", "names", "said"),
    [
        ("npz", ["new.csv", "new.txt", "."], "trained on arrays, so give a .npz or .npy file"),
        ("images", ["new.csv", "new.npz", "new.TXT"], "trained on images, so give an image, or a folder"),
    ],
)
def test_a_file_of_another_source_is_refused(tmp_path, source, names, said):
    """The refusal says what the run was trained on, and not that the file is damaged."""
    for name in names:
        if name != ".":
            (tmp_path / name).write_text("a,b\n1,2\n")
        with pytest.raises(UserError, match=said):
            sources.read_new({"source": source}, str(tmp_path / name))
