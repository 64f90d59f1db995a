"""The task and the targets that a table's columns say, case by case."""

from __future__ import annotations

import polars as pl
import pytest

from stepwell.data.tablefile import open_table
from stepwell.data.targets import Wish, learn_targets, read_targets, target_names
from stepwell.errors import UserError


@pytest.fixture
def opened(tmp_path):
    """Opens a CSV with the columns given, each a list of texts, or a Parquet file of a frame."""

    def opened(columns):
        if isinstance(columns, pl.DataFrame):
            columns.write_parquet(tmp_path / "t.parquet")
            return open_table(tmp_path / "t.parquet")
        pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)).write_csv(tmp_path / "t.csv")
        return open_table(tmp_path / "t.csv")

    return opened


def many(*values, n=120):
    return [values[i % len(values)] for i in range(n)]


TASKS = {
    "texts": (many("no", "yes"), "binary", ["no", "yes"]),
    "three texts": (many("b", "ä", "a b"), "multi-class", ["a b", "b", "ä"]),
    "booleans": (many("True", "False"), "binary", ["False", "True"]),
    "two whole numbers": (many("1", "0", n=6), "binary", ["0", "1"]),
    "few whole numbers": (many("10", "9", "-1"), "multi-class", ["-1", "9", "10"]),
    "written as floats": (many("1.0", "2.0", "3.0"), "multi-class", ["1.0", "2.0", "3.0"]),
    "written both ways": (many("1", "2.0", "2", "1.0"), "binary", ["1", "2"]),
    "whole numbers, many for the rows": (many("1", "2", "3", n=12), "regression", []),
    "21 whole numbers": ([str(i % 21) for i in range(900)], "regression", []),
    "floats": (many("0.5", "1.5"), "regression", []),
    "None is a class": (many("None", "Apnea", "Insomnia"), "multi-class", ["Apnea", "Insomnia", "None"]),
    "codes": (many("A1", "2", "3"), "multi-class", ["2", "3", "A1"]),
}


@pytest.mark.parametrize("case", TASKS)
def test_the_task_is_told_from_the_values(opened, case):
    """Texts, booleans and few whole numbers are classes; names are the file's, numbers by value."""
    values, task, classes = TASKS[case]
    table = opened({"y": values})
    memory, found, y, notes = learn_targets(table, ["y"], "auto")
    assert (found, memory["classes"]) == (task, classes)
    if classes:
        names = [memory["classes"][i] for i in y.tolist()]
        assert names == values or [float(n) for n in names] == [float(v) for v in values]
        assert bool(notes) == all(v.lstrip("-").replace(".", "").isdigit() for v in values)
    else:
        assert y[:, 0].tolist() == pytest.approx([float(v) for v in values])
    assert read_targets(table, table.read(["y"]), memory).equal(y)


def test_the_wish_goes_before_the_guess(opened):
    table = opened({"y": many("1", "2", "3")})
    assert learn_targets(table, ["y"], "regression")[1] == "regression"
    table = opened({"y": many("0.5", "1.5")})
    assert learn_targets(table, ["y"], "classification")[0]["classes"] == ["0.5", "1.5"]


def test_several_targets_are_labels_or_numbers(opened):
    """All 0 and 1: labels (N, L); otherwise numbers (N, O)."""
    table = opened({"a": many("0", "1"), "b": many("1", "1.0", "0"), "c": many("0.5", "7", "8")})
    memory, task, y, _ = learn_targets(table, ["a", "b"], "auto")
    assert (task, memory["classes"], y[:3].tolist()) == ("multi-label", ["a", "b"], [[0, 1], [1, 1], [0, 0]])
    assert learn_targets(table, ["a", "b"], "regression")[1] == "regression"
    _, task, y, _ = learn_targets(table, ["a", "c"], "auto")
    assert task == "regression" and y[:2].tolist() == [[0, 0.5], [1, 7]]


def test_parquet_targets(opened):
    """Typed booleans, integers, categories and floats, with NaN as missing."""
    frame = pl.DataFrame({"b": many(True, False), "i": many(3, 1), "f": many(0.5, 1.25)})
    table = opened(frame.with_columns(c=pl.Series(many("u", "v"), dtype=pl.Categorical)))
    for name, classes in {"b": ["false", "true"], "i": ["1", "3"], "c": ["u", "v"], "f": []}.items():
        assert learn_targets(table, [name], "auto")[0]["classes"] == classes
    table = opened(pl.DataFrame({"f": [0.5, float("nan"), 1.5, None]}))
    with pytest.raises(UserError, match=r"missing in rows 2, 4"):
        learn_targets(table, ["f"], "auto")


def test_the_usual_names(opened):
    table = opened({"a": ["1"], "Label": ["1"]})
    assert target_names(table, None) == ["Label"]
    assert target_names(table, "a") == ["a"] and target_names(table, ["a", "Label"]) == ["a", "Label"]


REFUSED: dict[str, tuple[dict, list[str], Wish, str]] = {
    "gap": ({"y": ["a", "", "b", "NA"]}, ["y"], "auto", r"missing in rows 3, 5"),
    "gaps": ({"y": [""] * 9 + ["1", "2"]}, ["y"], "auto", r"rows 2, 3, 4, 5, 6 and 4 more"),
    "all gaps": ({"x": ["1"] * 3, "y": [""] * 3}, ["y"], "auto", r"missing in rows 2"),
    "one class": ({"y": ["a"] * 5}, ["y"], "auto", r"'a' in every row"),
    "one number": ({"y": ["1.5"] * 5}, ["y"], "auto", r"1.5 in every row"),
    "names": ({"y": [f"n{i}" for i in range(50)]}, ["y"], "auto", r"50 different values in 50 rows"),
    "numbers as classes": ({"y": [f"{i}" for i in range(50)]}, ["y"], "classification", r"task=regression"),
    "text in regression": ({"y": ["1", "2", "x"]}, ["y"], "regression", r"row 4 is 'x' and not a finite"),
    "infinite": ({"y": ["1.5", "inf", "2.5"]}, ["y"], "auto", r"row 3 is 'inf' and not a finite"),
    "too large": ({"y": ["1.5", "1e39", "2.5"]}, ["y"], "auto", r"row 3 is '1e39'"),
    "labels of text": ({"a": ["0", "1"], "b": ["0", "x"]}, ["a", "b"], "auto", r"'b' in row 3 is 'x'"),
    "labels of 2": ({"a": ["0", "1"], "b": ["0", "2"]}, ["a", "b"], "classification", r"each 0 or 1"),
    "label gap": ({"a": ["0", "1"], "b": ["0", "NA"]}, ["a", "b"], "auto", r"'b' is missing in row 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_targets_that_cannot_be_learnt_are_refused(opened, case):
    columns, names, wish, sentence = REFUSED[case]
    table = opened(columns)
    with pytest.raises(UserError, match=sentence) as refusal:
        learn_targets(table, names, wish)
    assert str(table.path) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("columns", "wanted", "sentence"),
    [
        (["a", "b"], None, "which column .* 'a', 'b'"),
        (["y", "label"], None, "more than one of 'y', 'label'"),
        (["age", "Price"], "price", "nearest is 'Price'"),
        (["age", "Price"], ["age", "rice"], "nearest is 'Price'"),
        (["5.1", "3.5"], "species", "looks like data"),
        (["a", "b"], [], "empty list"),
        (["a", "b"], ["a", "a"], "more than once"),
    ],
)
def test_targets_that_are_not_there_are_refused(opened, columns, wanted, sentence):
    with pytest.raises(UserError, match=sentence):
        target_names(opened({name: ["1"] for name in columns}), wanted)


def test_new_targets_must_be_known(opened):
    """A class that training did not have is refused by row; 1.0 is the class 1."""
    memory = learn_targets(opened({"y": many("1", "2")}), ["y"], "auto")[0]
    new = opened({"y": ["2.0", "1"]})
    assert read_targets(new, new.read(["y"]), memory).tolist() == [1, 0]
    new = opened({"y": ["2", "3"]})
    with pytest.raises(UserError, match="row 3 is '3', which is none of the classes learnt"):
        read_targets(new, new.read(["y"]), memory)
