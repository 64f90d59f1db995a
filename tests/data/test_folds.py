"""Folds hold out each row once, keep groups together, and learn nothing from what they hold out."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn import model_selection

from stepwell.data import decoding, folds, sources
from stepwell.data.bundled import BundledData
from stepwell.data.images import ImageData
from stepwell.data.npz import NpzData
from stepwell.data.split import SplitConfig, split, split_by
from stepwell.data.table import TableData
from stepwell.errors import UserError

SEEDS = st.integers(0, 2**32 - 1)


def _labels(n: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(classes, size=n)


@settings(max_examples=60)
@given(
    n=st.integers(8, 120),
    count=st.integers(2, 8),
    repeats=st.integers(1, 3),
    classes=st.integers(1, 4),
    groups=st.integers(0, 12),
    seed=SEEDS,
)
def test_every_row_is_held_out_once_a_repeat(n, count, repeats, classes, groups, seed):
    """Whatever the classes and groups: a repeat holds out every row, and learns from all others."""
    labels = None if classes == 1 else _labels(n, classes, seed)
    group = None if groups == 0 else _labels(n, groups, seed + 1)
    try:
        found = folds.splits(n, labels, group, count, repeats, seed)
    except UserError:
        assume(False)
        return
    assert len(found) == count * repeats
    for repeat in range(repeats):
        some = found[repeat * count : (repeat + 1) * count]
        assert sorted(np.concatenate([held for _, held in some]).tolist()) == list(range(n))
    for learn, held in found:
        assert sorted([*learn, *held]) == list(range(n)) and len(held) and len(learn)
        assert learn.dtype == held.dtype == np.int64 and (np.diff(held) > 0).all()
        assert group is None or not set(group[learn]) & set(group[held])


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("stratified", [True, False])
def test_folds_are_those_of_scikit_learn(repeats, stratified):
    """The folds of the Repeated… classes with the same seed; one repeat is that of the plain classes."""
    y = _labels(97, 3, 0)
    name = "StratifiedKFold" if stratified else "KFold"
    theirs = getattr(model_selection, f"Repeated{name}")(n_splits=4, n_repeats=repeats, random_state=7)
    expected = list(theirs.split(np.zeros((97, 1)), y))
    if repeats == 1:
        plain = getattr(model_selection, name)(n_splits=4, shuffle=True, random_state=7)
        expected += list(plain.split(np.zeros((97, 1)), y))
    found = folds.splits(97, y if stratified else None, None, 4, repeats, 7)
    for (learn, held), (theirs_learn, theirs_held) in zip(
        found * (1 + (repeats == 1)), expected, strict=True
    ):
        assert np.array_equal(learn, theirs_learn) and np.array_equal(held, theirs_held)


@pytest.mark.parametrize("stratified", [True, False])
def test_grouped_folds_are_those_of_scikit_learn(stratified):
    """With groups they are StratifiedGroupKFold's and GroupKFold's, whatever the groups are called."""
    y, groups = _labels(90, 2, 0), _labels(90, 11, 1)
    kind = model_selection.StratifiedGroupKFold if stratified else model_selection.GroupKFold
    expected = list(kind(n_splits=3, shuffle=True, random_state=5).split(np.zeros((90, 1)), y, groups))
    names = np.array([f"group {k:02}" for k in groups])
    found = folds.splits(90, y if stratified else None, names, 3, 1, 5)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(found, expected, strict=True))


@given(n=st.integers(12, 100), groups=st.integers(3, 12), test=st.floats(0.1, 0.4), seed=SEEDS)
def test_a_plain_split_keeps_groups_together(n, groups, test, seed):
    """No group is in two of the three parts, every row is in one, and the test part is near its share."""
    group = np.concatenate([np.arange(groups), _labels(n - groups, groups, seed)])
    try:
        parts = split(n, None, test, 0.2, seed, group)
    except UserError:
        assume(False)
        return
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    train, validation, held = (set(group[part]) for part in parts)
    assert not train & validation and not train & held and not validation & held
    assert abs(len(parts[2]) - test * n) <= np.bincount(group).max()


def test_the_validation_part_comes_from_the_other_rows():
    """data.fold is the test part, and the validation part is that of `split` of the other rows."""
    y = _labels(80, 2, 3)
    config = SplitConfig(name="x", fold="2/4", split_seed=9)
    train, validation, test = split_by(config, 80, y)
    learn, held = folds.splits(80, y, None, 4, 1, 9)[1]
    expected = split(60, y[learn], 0.0, 0.15, 9)
    assert np.array_equal(test, held) and np.array_equal(train, learn[expected[0]])
    assert np.array_equal(validation, learn[expected[1]]) and len(validation) == 9
    third = split_by(config.model_copy(update={"fold": "2/4:3"}), 80, y)[2]
    assert np.array_equal(third, folds.splits(80, y, None, 4, 3, 9)[9][1])


# ---- nothing is learnt from what is held out


def _write_table(path, spoilt: np.ndarray) -> None:
    """60 rows with numbers, gaps, dates and categories; those in `spoilt` have quite other ones."""
    draw = np.random.default_rng(0)
    size, kind, age = draw.normal(10, 2, 60), draw.integers(3, size=60), draw.integers(20, 60, 60)
    gap, day, target = draw.random(60) < 0.2, draw.integers(1, 28, 60), draw.normal(100, 5, 60)
    size[spoilt] *= 1000
    target[spoilt] -= 5000
    day[spoilt] = 28
    pl.DataFrame(
        {
            "size": size,
            "kind": ["new" if i in set(spoilt.tolist()) else "abc"[k] for i, k in enumerate(kind)],
            "age": [None if g else int(a) for g, a in zip(gap, age, strict=True)],
            "day": [f"2024-03-{d:02}" for d in day],
            "price": target,
        }
    ).write_csv(path)


def test_a_table_fold_learns_from_its_training_rows_alone(tmp_path):
    """Wild values in held-out and validation rows change nothing that is learnt; by hand it is the same."""
    config: dict[str, Any] = {"name": str(tmp_path / "t.csv"), "target": "price", "fold": "3/5"}
    _write_table(config["name"], np.zeros(0, int))
    before: Any = sources.load(TableData(**config))
    unseen = np.concatenate([before.test.rows.numpy(), before.validation.rows.numpy()])
    _write_table(config["name"], unseen)
    after: Any = sources.load(TableData(**config))
    assert after.preparation == before.preparation and len(unseen) == 19
    for name in ("input_shift", "input_scale", "target_mean", "target_std"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    assert not torch.equal(before.test.targets, after.test.targets)
    table, train = pl.read_csv(config["name"]), before.train.rows.numpy()
    assert before.target_mean.item() == pytest.approx(table["price"].to_numpy()[train].mean())
    about = {column["name"]: column for column in before.preparation["columns"]}
    assert about["age"]["fill"] == np.nanmedian(table["age"].cast(pl.Float64).to_numpy()[train])
    assert set(about["kind"]["values"]) == set(table["kind"].to_numpy()[train]) <= set("abc")
    place = before.preparation["features"].index("size")
    assert before.input_shift[place].item() == pytest.approx(table["size"].to_numpy()[train].mean(), rel=1e-5)


@pytest.mark.parametrize("fold", ["1/3", "3/3"])
def test_array_and_bundled_folds_standardize_by_their_training_rows(tmp_path, fold):
    """Mean and deviation are NumPy's of the fold's training rows; its held-out rows are scikit-learn's."""
    from sklearn.datasets import load_wine

    x, y = load_wine(return_X_y=True)
    np.savez(tmp_path / "w.npz", x=x, y=y)
    for config in (BundledData(name="wine", fold=fold), NpzData(name=str(tmp_path / "w.npz"), fold=fold)):
        data: Any = sources.load(config)
        rows = data.train.rows.numpy()
        assert np.allclose(data.input_shift.numpy(), x[rows].mean(0), rtol=1e-5)
        assert np.allclose(1 / data.input_scale.numpy(), x[rows].std(0), rtol=1e-5)
        held = list(model_selection.StratifiedKFold(3, shuffle=True, random_state=0).split(x, y))
        assert np.array_equal(data.test.rows.numpy(), held[int(fold[0]) - 1][1])
        assert np.array_equal(data.test.targets.numpy(), y[data.test.rows.numpy()])


def _images(folder, count: int = 12) -> None:
    draw = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(draw.integers(0, 255, (6, 5, 3), dtype=np.uint8)).save(
                folder / name / f"{k:02}.png"
            )


@pytest.mark.parametrize("in_memory", [True, False])
def test_images_are_decoded_once_for_all_folds(tmp_path, monkeypatch, in_memory):
    """Parts drawn again and again are those of `load`; in memory no file is decoded a second time."""
    _images(tmp_path / "pets")
    config = ImageData(name=str(tmp_path / "pets"), in_memory=in_memory)
    alone: list[Any] = [sources.load(config.model_copy(update={"fold": f"{k}/3"})) for k in (1, 2, 3)]
    decoded, decode = [], decoding.Decoder.decode
    monkeypatch.setattr(
        decoding.Decoder, "decode", lambda self, name: decoded.append(name) or decode(self, name)
    )
    opened = sources.opened(config)
    for k, data in enumerate(alone, 1):
        again: Any = opened.load(config.model_copy(update={"fold": f"{k}/3"}))
        if k > 1 and in_memory:
            assert len(decoded) == 24
        for part in ("train", "validation", "test"):
            one, two = getattr(data, part), getattr(again, part)
            every = torch.arange(len(one))
            assert torch.equal(one.rows, two.rows) and torch.equal(one.targets, two.targets)
            assert torch.equal(one.gather(every)[0], two.gather(every)[0])
        assert torch.equal(data.input_shift, again.input_shift)


def test_parts_of_its_own(tmp_path):
    """x_test is in no fold and x_validation validates every fold; data.fold draws from x_train alone."""
    x, y = np.arange(40.0)[:, None], np.arange(40) % 2
    np.savez(
        tmp_path / "p.npz",
        **{"x_train": x, "y_train": y, "x_test": x + 100, "y_test": y},
        **{"x_validation": x + 200, "y_validation": y},
    )
    data = sources.load(NpzData(name=str(tmp_path / "p.npz"), fold="1/4"))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [30, 40, 10]
    assert data.test.inputs.gather(torch.arange(10)).max() < 40
    assert data.validation.inputs.gather(torch.arange(40)).min() == 200
    plain = sources.load(NpzData(name=str(tmp_path / "p.npz")))
    assert plain.test.inputs.gather(torch.arange(40)).min() == 100


def test_a_column_of_groups_is_not_learnt_from(tmp_path):
    """data.groups keeps equal cells in one part, of a fold and of the plain split, and is no feature."""
    draw = np.random.default_rng(0)
    who = draw.integers(12, size=90)
    table = {"x": draw.normal(size=90), "who": who, "label": np.where(draw.random(90) < 0.5, "a", "b")}
    pl.DataFrame(table).write_csv(tmp_path / "g.csv")
    cases: list[dict[str, Any]] = [{"fold": "2/3"}, {}]
    for more in cases:
        data = sources.load(TableData(name=str(tmp_path / "g.csv"), groups="who", **more))
        assert data.preparation["features"] == ["x"]
        train, validation, test = (
            set(who[part.rows.numpy()]) for part in (data.train, data.validation, data.test)
        )
        assert train and validation and test
        assert not train & validation and not train & test and not validation & test


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, None, None, 1), "1 fold: there must be 2 or more"),
        ((10, None, None, 11), "more than the 10 rows there are: give at most 10"),
        ((10, [0] * 5 + [1] * 5, None, 6), "the largest has 5.*give at most 5"),
        ((10, None, [0, 1] * 5, 3), "more than the 2 groups there are: give at most 2"),
    ],
)
def test_too_many_folds_are_refused(arguments, message):
    n, labels, groups, count = arguments
    with pytest.raises(UserError, match=message):
        folds.splits(n, labels, groups, count, 1, 0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"fold": "6/5"}, "there is no fold 6 of 5; give 1/5 to 5/5"),
        ({"fold": "1/500"}, "data.fold=1/500: 500 folds are more than the 40 rows"),
        ({"fold": "1/5", "test": 0.3}, "data.test=0.3 has no effect: data.fold=1/5 says what is tested on"),
    ],
)
def test_a_fold_that_is_none_is_refused(keys, message):
    with pytest.raises(UserError, match=message):
        split_by(SplitConfig(name="x", **keys), 40, None)


def test_a_small_class_is_told(tmp_path):
    """`sparse` names the classes that cannot be in every fold."""
    assert folds.sparse(["a"] * 9 + ["b"] * 2 + ["c"] * 5, 5) == [1]
