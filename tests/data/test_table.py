"""Whole tables: what is learnt from training rows alone fits new files, in memory and on disk."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch

from stepwell.data import tablefile
from stepwell.data.table import TableData, load, read_new
from stepwell.errors import UserError

RNG = np.random.default_rng(0)
N = 300


def passengers() -> pl.DataFrame:
    """A table as they come: an id, names, gaps, dates, categories, a constant, texts in other scripts."""
    age = [f"{a:.1f}" if a > 10 else "NA" for a in RNG.normal(35, 15, N)]
    return pl.DataFrame(
        {
            "PassengerId": [str(i + 1) for i in range(N)],
            "Name": [f'Møller, "{i}"\nthe elder' for i in range(N)],
            "age": age,
            "class": RNG.choice(["1st", "2nd", "3rd", " "], N),
            "joined": [f"20{i % 20:02d}-{1 + i % 12:02d}-{1 + i % 28:02d}" for i in range(N)],
            "member": RNG.choice(["True", "False"], N),
            "町": RNG.choice(["東京", "大阪", "京都"], N),
            "fare": [f"{f:.3e}" for f in RNG.exponential(30, N)],
            "ship": ["Titanic"] * N,
            "survived": RNG.choice(["no", "yes"], N, p=[0.7, 0.3]),
            "cost": [f"{c:.2f}" for c in RNG.normal(100, 20, N)],
        }
    )


@pytest.fixture
def path(tmp_path):
    passengers().write_csv(tmp_path / "p.csv")
    return tmp_path / "p.csv"


def config(path, **options) -> TableData:
    return TableData.model_validate({"name": str(path), "target": "survived", **options})


def whole(part) -> torch.Tensor:
    return part.inputs.gather(torch.arange(len(part)))


def known(value: torch.Tensor | None) -> torch.Tensor:
    assert value is not None
    return value


def test_a_real_looking_table_is_classified(path):
    """Task, classes, features and notes are what a reader of the file would say."""
    data = load(config(path))
    assert (data.name, data.kind, data.task, data.classes) == ("p", "features", "binary", ["no", "yes"])
    assert (data.outputs, data.targets, data.target_mean) == (2, ["survived"], None)
    names = data.preparation["features"]
    assert names[:2] == ["age", "age (missing)"] and data.input_shape == (len(names),)
    assert {"class = (missing)", "member", "町 = 東京", "joined days", "cost"} <= set(names)
    for column in ("PassengerId", "Name", "ship"):
        assert any(f"column {column!r} is left out" in note for note in data.notes)
    x = (whole(data.train) - known(data.input_shift)) * known(data.input_scale)
    torch.testing.assert_close(x.mean(0), torch.zeros(len(names)), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(len(names)), atol=1e-4, rtol=0)
    held = data.test.targets.double().mean()
    assert abs(held - data.train.targets.double().mean()) < 0.02  # stratified


def test_read_new_gives_what_training_saw(path):
    """Through JSON, the same file gives every part's rows to the bit, in the file's order."""
    data = load(config(path))
    new = read_new(json.loads(json.dumps(data.preparation)), str(path), targets=True)
    assert new.table.collect().equals(pl.read_csv(path, infer_schema=False))
    for part in (data.train, data.validation, data.test):
        assert torch.equal(new.inputs.gather(part.rows), whole(part))
        assert torch.equal(known(new.targets)[part.rows], part.targets)


def test_only_training_rows_are_learnt_from(path, tmp_path):
    """Other values in validation and test rows change neither preparation nor standardization."""
    first = load(config(path))
    frame = passengers()
    train = set(first.train.rows.tolist())
    texts = path.read_text()
    frame = pl.read_csv(path, infer_schema=False)
    changes = {"PassengerId": "7", "age": "999", "fare": "", "町": "名古屋", "joined": "1999-12-31"}
    for name, value in (changes | {"cost": "unknown", "member": "maybe"}).items():
        frame = frame.with_columns(
            pl.Series(name, [v if i in train else value for i, v in enumerate(frame[name].to_list())])
        )
    frame.write_csv(tmp_path / "p.csv")
    second = load(config(tmp_path / "p.csv"))
    assert (tmp_path / "p.csv").read_text() != texts
    assert second.preparation == first.preparation and torch.equal(whole(second.train), whole(first.train))
    assert torch.equal(known(second.input_shift), known(first.input_shift))
    assert second.fingerprint != first.fingerprint


def test_larger_than_memory_is_the_same_to_the_bit(path, tmp_path, monkeypatch):
    """Read in batches and mapped from disk, as text and as Parquet: the same parts and statistics."""
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    pl.read_csv(path, try_parse_dates=True, null_values=["NA"]).write_parquet(tmp_path / "p.parquet")
    for file in (path, tmp_path / "p.parquet"):
        monkeypatch.setattr(tablefile, "IN_MEMORY_BYTES", 1 << 30)
        inside = load(config(file))
        monkeypatch.setattr(tablefile, "IN_MEMORY_BYTES", 5_000)
        monkeypatch.setattr(tablefile, "BATCH_CELLS", 100)
        for _ in range(2):  # written, then found again
            outside = load(config(file))
            assert inside.preparation == outside.preparation
            for a, b in ((inside.train, outside.train), (inside.test, outside.test)):
                assert a.inputs.resident and not b.inputs.resident and b.inputs.shape == outside.input_shape
                assert torch.equal(whole(a), whole(b)) and torch.equal(a.targets, b.targets)
            assert torch.equal(known(inside.input_shift), known(outside.input_shift))
            assert torch.equal(known(inside.input_scale), known(outside.input_scale))
        new = read_new(outside.preparation, str(file), targets=False)
        assert not new.inputs.resident
        assert torch.equal(new.inputs.gather(outside.test.rows), whole(outside.test))


def test_regression_has_the_training_targets_mean_and_deviation(path):
    data = load(config(path, target=["cost", "fare"], ignore=["survived"], task="regression"))
    y = data.train.targets.double().numpy()
    assert data.outputs == 2 and y.shape == (len(data.train), 2)
    np.testing.assert_allclose(known(data.target_mean).numpy(), y.mean(0), rtol=1e-6)
    np.testing.assert_allclose(known(data.target_std).numpy(), y.std(0), rtol=1e-6)
    frame = pl.read_csv(path, infer_schema=False)
    np.testing.assert_allclose(
        y[:, 0], frame["cost"].cast(pl.Float64).to_numpy()[data.train.rows.numpy()], rtol=1e-6
    )
    assert not any("survived" in name for name in data.preparation["features"])


@pytest.mark.parametrize("target", ["n", "text"])
def test_columns_may_have_any_name(tmp_path, target):
    """Those that we use for counts of our own too, as a target of texts or numbers, and as categories."""
    names = ["n", "text", "count", "literal", "len", "index", "", " row_nr"]
    for texts in (True, False):
        rows = [[f"{'v' * texts}{i * (k + 3) % 7 % 3}" for k in range(len(names))] for i in range(60)]
        pl.DataFrame(rows, schema=names, orient="row").write_csv(tmp_path / "t.csv")
        data = load(TableData(name=str(tmp_path / "t.csv"), target=target, task="classification"))
        new = read_new(data.preparation, str(tmp_path / "t.csv"), targets=True)
        assert data.task == "multi-class" and torch.equal(new.inputs.gather(data.test.rows), whole(data.test))


def test_a_new_file_may_differ_in_form(path, tmp_path):
    """Other order, more columns, no target, semicolons, tabs or Parquet: the same features."""
    data = load(config(path, ignore=["cost"]))
    frame = pl.read_csv(path, infer_schema=False)
    other = frame.drop("survived", "cost").reverse()
    other = other.select(reversed(other.columns)).with_columns(extra=pl.lit("x"))
    other.write_csv(tmp_path / "a.csv", separator=";", include_bom=True, line_terminator="\r\n")
    other.write_csv(tmp_path / "b.tsv", separator="\t")
    other.write_parquet(tmp_path / "c.parquet")
    truth = read_new(data.preparation, str(path), targets=False).inputs
    for name in ("a.csv", "b.tsv", "c.parquet"):
        new = read_new(data.preparation, str(tmp_path / name), targets=False)
        assert torch.equal(new.inputs.gather(torch.arange(N)), truth.gather(torch.arange(N)).flip(0)), name
        assert new.targets is None and "extra" in new.table.collect_schema().names()


def test_one_new_row_with_gaps_and_new_categories(path, tmp_path):
    """A single row, all gaps and news: medians, zeros, and no refusal."""
    data = load(config(path))
    used = [c["name"] for c in data.preparation["columns"]]
    cells = ["新" if name == "町" else "" for name in used]
    (tmp_path / "n.csv").write_text(f"{','.join(used)}\n{','.join(cells)}\n", encoding="utf-8")
    new = read_new(data.preparation, str(tmp_path / "n.csv"), targets=False)
    got = dict(
        zip(data.preparation["features"], new.inputs.gather(torch.tensor([0]))[0].tolist(), strict=True)
    )
    assert got["age (missing)"] == got["class = (missing)"] == 1
    assert got["町 = 東京"] == got["町 = 大阪"] == got["町 = 京都"] == 0
    frame = pl.read_csv(path, infer_schema=False)["age"].cast(pl.Float64, strict=False)
    assert got["age"] == pytest.approx(float(np.nanmedian(frame.to_numpy()[data.train.rows.numpy()])))


@pytest.mark.parametrize("bound", [1 << 30, 1000])
def test_new_categories_are_noted(path, tmp_path, monkeypatch, bound):
    """One note a column, with the rows counted; where the features come from the cache too."""
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    data = load(config(path))
    frame = pl.read_csv(path, infer_schema=False).head(40)
    news = {"町": ["名古屋" if i % 4 == 1 else "東京" for i in range(40)], "class": ["4th"] + ["1st"] * 39}
    frame.with_columns(pl.Series(k, v) for k, v in news.items()).write_csv(tmp_path / "n.csv")
    monkeypatch.setattr(tablefile, "IN_MEMORY_BYTES", bound)
    monkeypatch.setattr(tablefile, "BATCH_CELLS", 0)
    for _ in range(2):
        notes = read_new(data.preparation, str(tmp_path / "n.csv"), targets=False).notes
        assert notes == [
            "column 'class': 1 of 40 rows has a value that training did not have, such as '4th';"
            " it counts as none of the categories.",
            "column '町': 10 of 40 rows have a value that training did not have, such as '名古屋';"
            " it counts as none of the categories.",
        ]
    assert not read_new(data.preparation, str(path), targets=True).notes


def test_each_row_of_a_new_file_has_its_prediction(path, tmp_path):
    """Rows of empty cells at the end count for predictions; evaluation, which needs targets, drops them."""
    data = load(config(path))
    frame = pl.read_csv(path, infer_schema=False)
    text = frame.head(3).write_csv() + 2 * ("," * (frame.width - 1) + "\n") + "\n"
    (tmp_path / "n.csv").write_text(text, encoding="utf-8")
    new = read_new(data.preparation, str(tmp_path / "n.csv"), targets=False)
    assert len(new.inputs) == len(new.table.collect()) == 5
    assert len(read_new(data.preparation, str(tmp_path / "n.csv"), targets=True).inputs) == 3


@pytest.mark.parametrize(
    ("change", "targets", "sentence"),
    [
        (lambda f: f.drop("age"), False, "has no column 'age'"),
        (lambda f: f.rename({"age": "Age"}), False, "nearest is 'Age'"),
        (lambda f: f.drop("survived"), True, "no column 'survived'.* predict does without"),
        (lambda f: f.with_columns(age=pl.lit("old")), False, "'age', row 2: 'old' is not a number"),
        (lambda f: f.with_columns(joined=pl.lit("soon")), False, "'joined', row 2: 'soon' is not a date"),
        (
            lambda f: f.with_columns(joined=pl.lit("9999-12-31")),
            False,
            "'joined', row 2: '9999-12-31' is of the year 9999, and dates are read from 1600 to 2299: mend",
        ),
        (lambda f: f.with_columns(member=pl.lit("maybe")), False, "'member', row 2: 'maybe' is not true or"),
        (
            lambda f: f.with_columns(survived=pl.lit("perhaps")),
            True,
            "'perhaps', which is none of the classes",
        ),
        (lambda f: f.with_columns(fare=pl.lit("1e99")), False, "infinite or too large"),
    ],
)
def test_new_files_that_do_not_fit_are_refused(path, tmp_path, change, targets, sentence):
    """One sentence with the new file's name, the column and the row."""
    data = load(config(path))
    change(pl.read_csv(path, infer_schema=False)).write_csv(tmp_path / "new.csv")
    with pytest.raises(UserError, match=sentence) as refusal:
        read_new(data.preparation, str(tmp_path / "new.csv"), targets)
    assert str(tmp_path / "new.csv") in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("a,y\n1,p\n2,q\n", {}, "too few"),
        ("y\n" + "p\nq\n" * 20, {}, "no column besides the target"),
        ("a,y\n" + "1,p\n1,q\n" * 20, {}, "no column to learn from .*it is 1 in every"),
        ("a,y\n" + "1,p\n2,q\n" * 20, {"ignore": ["b"]}, "no column 'b'.*data.ignore"),
        ("a,y\n" + "1,p\n2,q\n" * 20, {"ignore": ["y"]}, "data.ignore names the target"),
        ("a,y\n" + "1,p\n2,q\n" * 20 + "inf,p\n", {}, "t.csv, column 'a', row 42: inf is infinite"),
        ("a,b\n" + "1,p\n2,q\n" * 20, {}, "which column is to be predicted"),
        ("a,y\n" + "1,p\n2,q\n3,\n" * 20, {}, "missing in rows 4, 7"),
        ("a,y\n" + "1,p\n2,q\n" * 20, {"target": "why"}, "it has 'a', 'y'"),
    ],
)
def test_tables_that_cannot_be_learnt_from_are_refused(tmp_path, text, options, sentence):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=sentence) as refusal:
        load(config(tmp_path / "t.csv", **({"target": None} | options)))
    assert "\n" not in str(refusal.value)


def test_a_full_disk_is_said(path, tmp_path, monkeypatch):
    """Where the cache cannot be written, the sentence says how to use another folder."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(tablefile, "IN_MEMORY_BYTES", 5_000)
    with pytest.raises(UserError, match="STEPWELL_CACHE"):
        load(config(path))


def test_a_seed_that_decides_nothing_is_refused(path):
    """Without a validation and a test part there is nothing to draw."""
    with pytest.raises(UserError, match=r"data\.split_seed=3 has no effect"):
        load(config(path, validation=0, test=0, split_seed=3))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_columns_without_a_name_are_noted(tmp_path, ending):
    """In training and for new data, where they come back under the name that they are given."""
    rows = {"": ["k", "l"] * 20, "a": [0.5, 3.5] * 20, "y": ["p", "q"] * 20}
    frame, path = pl.DataFrame(rows), tmp_path / f"t{ending}"
    frame.write_csv(path) if ending == ".csv" else frame.write_parquet(path)
    data = load(config(path, target="y"))
    new = read_new(data.preparation, str(path), False)
    for notes in (data.notes, new.notes):
        assert f"t{ending}: a column without a name is called 'column 1'." in notes
    assert new.table.collect_schema().names() == ["column 1", "a", "y"]
