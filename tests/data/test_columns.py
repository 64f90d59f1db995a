"""What is learnt of a column, and the features it becomes, against plain Python."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import statistics

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.data.columns import (
    DATE_FORMATS,
    MOST_RARE,
    dates,
    feature_names,
    features,
    learn,
    numbers,
    unseen,
)
from stepwell.errors import UserError


def row(index: int) -> int:
    return index + 2


def learnt(values, train=None, separator=",", name="c"):
    raw = values if isinstance(values, pl.Series) else pl.Series(values, dtype=pl.String)
    mask = pl.Series([True] * len(raw) if train is None else train)
    column, notes = learn(name, raw, mask, separator, row)
    return json.loads(json.dumps(column)), notes, raw


def table(values, *args, **options):
    """The features of a column learnt from `values`, by name."""
    column, _, raw = learnt(values, *args, **options)
    return dict(zip(feature_names(column), features(column, raw, row).T.tolist(), strict=True))


def test_numbers_with_gaps_get_the_training_median_and_an_indicator():
    """The median is the training rows' alone; every spelling of "no value" is one."""
    gaps = ["", " NA ", "n/a", "NaN", "NULL", "None", "?", "<NA>"]
    values = ["1", "2.5", "-3e2", "+4", *gaps, "1000"]
    train = [True] * 12 + [False]
    got = table(values, train)
    middle = statistics.median([1, 2.5, -300, 4])
    assert got == {"c": [1, 2.5, -300, 4, *[middle] * 8, 1000], "c (missing)": [0.0] * 4 + [1.0] * 8 + [0.0]}


def test_no_indicator_without_gaps_in_training():
    """A gap that only a later row has is the median, with no feature of its own."""
    assert table(["1", "3", "8", ""], [True, True, True, False]) == {"c": [1, 3, 8, 3]}


@given(st.lists(st.floats(-(2.0**66), 2.0**66, width=32), min_size=3, max_size=30))
def test_floats_pass_unchanged(values):
    """Where float32 holds a column well enough, its features are the file's numbers to the bit."""
    column, _, raw = learnt([repr(v) for v in values])
    if column and not column["offset"]:
        got = features(column, raw, row)[:, 0]
        np.testing.assert_array_equal(got, np.array(values, np.float32))


def test_large_numbers_close_together_keep_their_differences():
    """Unix times a second apart are equal in float32; less the median they are not."""
    got = table([str(1_700_000_000 + 3 * i) for i in range(9)])
    assert np.diff(got["c"]).tolist() == [3.0] * 8


@pytest.mark.parametrize(
    ("values", "separator", "truth"),
    [
        (["3,14", "2", "-0,5"], ";", [3.14, 2, -0.5]),
        (["1,234", "12", "1,234,567.5"], ",", [1234, 12, 1234567.5]),
        (["1.5", "2", "1.25"], ";", [1.5, 2, 1.25]),
        (["1.234,5", "12,5", "3"], ";", [1234.5, 12.5, 3]),
        (["3,14", "2,7", "1"], ",", [3.14, 2.7, 1]),
        (["$1,200.50", "$3", "-$1"], ",", [1200.5, 3, -1]),
    ],
)
def test_commas_in_numbers(values, separator, truth):
    """A comma is the decimal mark between semicolons, and groups thousands between commas; both are noted."""
    column, notes, raw = learnt(values, separator=separator)
    np.testing.assert_allclose(features(column, raw, row)[:, 0] + column["offset"], truth, rtol=1e-6)
    assert bool(notes) == any("," in v for v in values)


def test_a_few_texts_among_numbers_are_gaps():
    """'unknown' among numbers is missing, wherever it stands, and said so; a new text is refused by row."""
    values = [str(i % 17) for i in range(40)] + ["unknown", "-"]
    column, notes, raw = learnt(values)
    assert column["strays"] == ["-", "unknown"] and "'-', 'unknown'" in notes[0]
    assert features(column, raw, row)[-2:].tolist() == [[column["fill"], 1], [column["fill"], 1]]
    with pytest.raises(UserError, match="'c', row 3: 'new' is not a number"):
        features(column, pl.Series(["1", "new"]), row)


@pytest.mark.parametrize("value", ["1", "2020-01-01", "true"])
def test_a_text_outside_the_training_rows_is_a_gap_there_and_not_learnt(value):
    """Validation and test rows change a note and no more: the text is missing, in a new file refused."""
    others = {"1": "2", "2020-01-01": "2021-05-05", "true": "false"}
    train = [value, others[value]] * 20
    alone, no_notes, _ = learnt(train)
    column, notes, raw = learnt([*train, "unknown", *"abcdefg"], [True] * 40 + [False] * 8)
    assert column == alone and notes[:-1] == no_notes
    assert "8 of the validation and test rows' values, such as 'unknown'" in notes[-1]
    got = features(column, raw, row, unseen_missing=True)
    assert (got[40:] == features(column, pl.Series([""]), row)).all()
    with pytest.raises(UserError, match="row 42: 'unknown' is not"):
        features(column, raw, row)


def test_row_numbers_are_told_from_the_training_rows():
    """A column that counts the training rows numbers the rows, whatever the others hold, and the reverse."""
    train = [True, False, True, True, False, True]
    assert learnt(["1", "x", "3", "4", "77", "6"], train)[0] is None
    assert learnt(["1", "2", "3", "4", "5", "7"], train)[0] is not None
    assert learnt(["7", "3", "9", "4", "9", "5"], train, name="id")[0] is None


def test_numbers_and_many_texts_are_categories():
    """Half numbers, half texts: categories, with a note that says why."""
    column, notes, _ = learnt(["1", "2", "3", "x", "y"] * 4)
    assert column["kind"] == "category" and "most of its values are numbers" in notes[0]


@pytest.mark.parametrize("bad", ["inf", "-Infinity", "1e400", "1.01e20", "-3e38"])
def test_infinite_numbers_are_refused_by_row(bad):
    with pytest.raises(UserError, match=r"row 4: .* is infinite or too large"):
        learnt(["1", "2", bad])


def test_categories_are_one_hot_and_the_unseen_are_zero():
    """Most frequent first, ties by the alphabet; missing is a category; what is new is 0 everywhere."""
    values = ["b", "a", "b", " a", "ü, x", "b", "NA", "new"]
    got = table(values, [True] * 7 + [False])
    assert list(got) == ["c = b", "c = a", "c = ü, x", "c = (missing)"]
    assert [sum(v) for v in zip(*got.values(), strict=True)] == [1] * 7 + [0]
    assert got["c = a"] == [0, 1, 0, 1, 0, 0, 0, 0] and got["c = (missing)"][6] == 1


def test_rare_categories_share_one_feature():
    """Beyond the 32 most frequent there is "other", for what is new as well."""
    values = [f"k{i:02d}" for i in range(40) for _ in range(3)] + ["k00", "new", ""]
    column, notes, raw = learnt(values, [True] * 121 + [False, False])
    got = features(column, raw, row)
    assert (
        got.shape[1] == 33 and feature_names(column)[-1] == "c = (other)" and "32 most frequent" in notes[0]
    )
    assert got[:96].argmax(1).tolist() == [i for i in range(32) for _ in range(3)]
    assert (got[96:120, 32] == 1).all() and got[121].tolist() == [0] * 32 + [1] and not got[122].any()


def test_new_categories_are_told_from_rare_ones():
    """New is what no training row has, however rare it is there; nothing is said where too many are rare."""
    new = pl.Series(["a", "zz", " k30 ", "", "zz", None, "k03"])
    column, _, _ = learnt(["a", "b", "a", "b", "zz"], [True] * 4 + [False])
    assert unseen(column, new).to_list() == ["zz", "k30", "zz", "k03"]
    for distinct in (40, MOST_RARE + 33):
        values = ["a", *(f"k{i:02d}" for i in range(distinct) for _ in range(3))]
        column, _, _ = learnt(values)
        assert column["other"] and unseen(column, new).to_list() == (["zz", "zz"] if distinct == 40 else [])


def test_booleans():
    """True and false in any case are 1 and 0; with a third text they are categories."""
    assert table(["True", "false", "TRUE", "", "true"])["c"] == [1, 0, 1, 1, 1]
    assert "c = maybe" in table(["True", "False", "maybe"] * 5)


LEFT_OUT = {
    "it is 'x' in every": ["x"] * 5,
    "it is 7 in every": ["7", "7.0", "7"],
    "it is empty": ["", "NA", "?"],
    "different texts": [f"name {i}" for i in range(5)],
    "it is 2020-01-01": ["2020-01-01"] * 3,
    "numbers the rows": [str(i) for i in range(1, 9)],
}


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_useless_columns_are_left_out_with_a_note(reason):
    column, notes, _ = learnt(LEFT_OUT[reason])
    assert column is None and reason in notes[0] and "'c'" in notes[0]


def test_identifiers_are_left_out_and_years_are_not():
    """Different whole numbers under a name that ends in id identify; those under other names may tell."""
    values = ["17", "3", "99", "4"]
    assert learnt(values, name="customer_id")[0] is None and learnt(values, name="PassengerId")[0] is None
    assert learnt(values, name="acid")[0] is not None
    assert learnt([str(1950 + i) for i in range(50)], name="year")[0] is not None


@pytest.mark.parametrize("form", DATE_FORMATS)
def test_every_date_format_is_read_as_python_reads_it(form):
    """Moments written by strftime in each format come back to the part of a second that it keeps."""
    moments = [
        dt.datetime(2019 + i % 5, 1 + i % 12, 13 + i % 15, i % 24, 7 * i % 60, 3 * i % 60) for i in range(24)
    ]
    python = form.replace("%.f", "").replace("%#z", "+0200")
    texts = [m.strftime(python) for m in moments]
    shift = dt.timedelta(hours=2) if "%#z" in form else dt.timedelta()
    truth = [dt.datetime.strptime(t, python) - shift for t in texts]
    assert dates(pl.Series(texts), form).to_list() == truth


def test_dates_become_calendar_parts_and_days():
    """Parts that varied in training, and days since its first date; a gap is its median date."""
    texts = ["2020-01-31", "2021-03-01", "2020-02-01", ""]
    got = table(texts)
    assert list(got) == ["c year", "c month", "c day", "c weekday", "c days", "c (missing)"]
    days = [dt.date.fromisoformat(t) for t in texts[:3]] + [dt.date(2020, 2, 1)]
    assert got["c days"] == [(d - dt.date(2020, 1, 31)).days for d in days]
    assert got["c weekday"] == [d.isoweekday() for d in days] and got["c (missing)"] == [0, 0, 0, 1]
    timed = table(["2020-01-01T06:00:00Z", "2020-01-01T18:00:00+00:00", "2020-01-01T18:30:00+01:00"])
    assert timed == {"c hour": [6, 18, 17], "c days": pytest.approx([0, 0.5, 11.5 / 24])}


def test_months_and_days_are_told_apart_where_they_can_be():
    """13/02 can only be the 13th of February; where nothing tells, the note does."""
    column, notes, _ = learnt(["13/02/2020", "01/03/2020"])
    assert column["format"] == "%d/%m/%Y" and not notes
    column, notes, _ = learnt(["02/03/2020", "01/03/2020"])
    assert column["format"] == "%m/%d/%Y" and "month is taken to stand first" in notes[0]
    with pytest.raises(UserError, match="row 2: '13/02/2020' is not a date"):
        features(column, pl.Series(["13/02/2020"]), row)
    assert learnt(["1-2-3", "2-3-4", "1-2-3"])[0]["kind"] == "category"


def test_dates_in_mixed_forms_are_noted():
    """Whether they become categories or are left out, the note shows two forms; few dates are no matter."""
    days = [dt.date(2024, 1, 1) + dt.timedelta(days=i) for i in range(300)]
    for share in (2, 12):  # half of each form; one of twelve, so that one form has more than 90 %
        mixed = [d.strftime("%d.%m.%Y") if i % share == 0 else d.isoformat() for i, d in enumerate(days)]
        for values in (mixed, [*mixed, *mixed], ["", "NA", *mixed], mixed[:96] * 10):
            column, notes, _ = learnt(values)
            assert column is None or column["kind"] == "category"
            assert re.search(r"'\d{4}-\d\d-\d\d'.*'\d\d\.\d\d\.\d{4}'|'\d\d\..*-\d\d'", notes[-1])
            assert "write all of them in one form" in notes[-1]
    few = [*(f"version {i}" for i in range(100)), "2024-01-31", "31.01.2024"]
    for values in (few, few * 2, [d.isoformat() for d in days], ["1.2", "a", "b"] * 9):
        assert not any("one form" in note for note in learnt(values)[1])


def test_parquet_types():
    """Typed columns need no guessing: numbers, booleans, dates, times, categories; lists are left out."""
    when = [dt.datetime(2020, 1, 1, h) for h in (1, 5, 9)]
    assert table(pl.Series([1.5, None, math.nan]))["c (missing)"] == [0, 1, 1]
    assert table(pl.Series([True, False, True])) == {"c": [1, 0, 1]}
    assert table(pl.Series(when).dt.replace_time_zone("Europe/Paris"))["c hour"] == [0, 4, 8]
    assert table(pl.Series([w.time() for w in when])) == {"c": [1, 5, 9]}
    assert table(pl.Series([w - when[0] for w in when]))["c"] == pytest.approx([0, 4 / 24, 8 / 24])
    assert list(table(pl.Series(["a", "b", "a"], dtype=pl.Categorical))) == ["c = a", "c = b"]
    assert "lists" in learnt(pl.Series([[1], [2], [3]]))[1][0]


def test_text_and_parquet_read_alike():
    """A column learnt from one kind of file fits the other: numbers, dates, booleans, categories."""
    pairs = [
        (["1", "", "3.5"], pl.Series([1.0, None, 3.5])),
        (["2020-01-05", "2021-06-07", ""], pl.Series([dt.date(2020, 1, 5), dt.date(2021, 6, 7), None])),
        (["True", "False", "True"], pl.Series([True, False, True])),
        (["a", "b", "a"], pl.Series(["a", "b", "a"], dtype=pl.Enum(["b", "a"]))),
    ]
    for texts, typed in pairs:
        for one, other in ((pl.Series(texts), typed), (typed, pl.Series(texts))):
            column, _, _ = learnt(one)
            np.testing.assert_array_equal(features(column, one, row), features(column, other, row))


def test_styles_of_numbers():
    """Only whole groups of three are thousands; with points as groups, 1.5 is no number."""
    texts = pl.Series(
        ["1,23", "1,234", "12,34,567", "1 234 567.5", "1.234,5", "1.5", "\u22125%", "$ 7", None]
    )
    anglo = [None, 1234, None, 1234567.5, None, 1.5, -5, 7, None]
    assert numbers(texts, "1,000.5").to_list() == anglo
    assert numbers(texts, ",").to_list() == [1.23, 1.234, None, None, None, 1.5, -5, 7, None]
    assert numbers(texts, "1.000,5").to_list() == [1.23, 1.234, None, None, 1234.5, None, -5, 7, None]
