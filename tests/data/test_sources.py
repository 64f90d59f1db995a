"""What every source has in common: the notes on the parts, whichever source they come from."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from stepwell.data import sources
from stepwell.data.npz import NpzData
from stepwell.data.table import TableData


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
