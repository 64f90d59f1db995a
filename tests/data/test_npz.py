"""Arrays from .npz files, against the arrays that were written."""

from __future__ import annotations

import numpy as np
import polars
import pytest
import torch

from stepwell.data import npzfile
from stepwell.data.dataset import DataSet, Part, TensorInputs
from stepwell.data.npz import NpzData, load, read_new
from stepwell.errors import UserError

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (60, 4))
Y = np.arange(60) % 3
PIXELS = RNG.integers(0, 256, (60, 5, 7, 3), dtype=np.uint8)


@pytest.fixture
def save(tmp_path):
    def save(compress=False, name="data.npz", **arrays):
        path = tmp_path / name
        (np.savez_compressed if compress else np.savez)(path, **arrays)
        return str(path)

    return save


def values(part: Part) -> torch.Tensor:
    return part.gather(torch.arange(len(part)))[0]


def parts(data: DataSet) -> list[Part]:
    return [data.train, data.validation, data.test]


def test_split_off_parts_hold_every_row_once(save):
    """x and y alone: three disjoint parts with the rows that `rows` names, statistics from training."""
    data = load(NpzData(name=save(x=X, y=Y)))
    assert sorted(torch.cat([part.rows for part in parts(data)]).tolist()) == list(range(60))
    for part in parts(data):
        torch.testing.assert_close(values(part), torch.tensor(X[part.rows.numpy()]).float())
        assert part.targets.tolist() == Y[part.rows.numpy()].tolist()
    assert [len(part) for part in parts(data)] == [41, 7, 12]
    assert (data.kind, data.task, data.classes, data.outputs) == (
        "features",
        "multi-class",
        ["0", "1", "2"],
        3,
    )
    train = X[data.train.rows.numpy()]
    torch.testing.assert_close(data.input_shift, torch.tensor(train.mean(0)).float())
    torch.testing.assert_close(data.input_scale, torch.tensor(1 / train.std(0)).float())


def test_parts_of_the_file_are_kept(save):
    """With x_test and x_validation nothing is split off; with x_test alone only validation is."""
    arrays = {"x_train": X[:40], "y_train": Y[:40], "x_test": X[40:50], "y_test": Y[40:50]}
    both = load(NpzData(name=save(**arrays, x_val=X[50:], y_val=Y[50:])))
    for part, rows in zip(parts(both), (slice(0, 40), slice(50, 60), slice(40, 50)), strict=True):
        torch.testing.assert_close(values(part), torch.tensor(X[rows]).float())
    one = load(NpzData(name=save(**arrays)))
    assert [len(part) for part in parts(one)] == [34, 6, 10]
    torch.testing.assert_close(values(one.test), torch.tensor(X[40:50]).float())
    assert one.test.rows.tolist() == list(range(10))


@pytest.mark.parametrize(
    ("x", "kind", "shape", "dtype"),
    [
        (X[:, 0], "features", (1,), torch.float32),
        (X.astype(">f8"), "features", (4,), torch.float32),
        (np.asfortranarray(X), "features", (4,), torch.float32),
        (PIXELS[:, 0, :, 0], "features", (7,), torch.float32),
        (PIXELS[..., 0], "image", (1, 5, 7), torch.uint8),
        (PIXELS, "image", (3, 5, 7), torch.uint8),
        (PIXELS.transpose(0, 3, 1, 2), "image", (3, 5, 7), torch.uint8),
        (RNG.random((60, 9, 9)), "image", (1, 9, 9), torch.float32),
        (PIXELS / 255, "image", (3, 5, 7), torch.float32),
        (RNG.random((60, 20, 3)), "sequence", (20, 3), torch.float32),
    ],
)
@pytest.mark.parametrize("bound", [0, 2**30])
def test_shape_and_type_say_the_kind(save, monkeypatch, x, kind, shape, dtype, bound):
    """Features, images channel first, sequences; the same from memory and from disk."""
    monkeypatch.setattr(npzfile, "MAP_BYTES_FROM", bound)
    data = load(NpzData(name=save(x=x, y=Y)))
    assert (data.kind, data.input_shape) == (kind, shape)
    channels_first = np.moveaxis(x, 3, 1) if x.ndim == 4 and x.shape[3] == 3 else x
    for part in parts(data):
        assert part.inputs.resident == (bound > 0)
        expected = torch.from_numpy(channels_first[part.rows.numpy()].astype(float)).reshape(-1, *shape)
        assert values(part).dtype == dtype
        torch.testing.assert_close(values(part), expected.to(dtype))
    axes = {"features": (0,), "image": (0, 2, 3), "sequence": (0, 1)}[kind]
    x = values(data.train).double()
    assert data.input_shift is not None and data.input_scale is not None
    torch.testing.assert_close(data.input_shift, x.mean(axes, keepdim=True)[0].float())
    torch.testing.assert_close(data.input_scale, 1 / x.std(axes, correction=0, keepdim=True)[0].float())


@pytest.mark.parametrize(
    ("y", "task", "classes", "targets", "outputs"),
    [
        (np.array(["cat", "ärger", "dog"])[Y], "multi-class", ["cat", "dog", "ärger"], ["y"], 3),
        (np.eye(4)[Y] + np.eye(4)[3 - Y], "multi-label", ["0", "1", "2", "3"], ["0", "1", "2", "3"], 4),
        (X[:, :2], "regression", [], ["y[0]", "y[1]"], 2),
    ],
)
def test_targets_go_with_their_rows(save, y, task, classes, targets, outputs):
    """Each part has the targets of its rows, in training and anew; statistics of those to predict."""
    path = save(x=X, y=y)
    data = load(NpzData(name=path))
    assert (data.task, data.classes, data.targets, data.outputs) == (task, classes, targets, outputs)
    again = read_new(data.preparation, path, targets=True).targets
    assert again is not None
    for part in parts(data):
        assert torch.equal(part.targets, again[part.rows])
        truth = y[part.rows.numpy()]
        found = np.array(classes)[part.targets] if task == "multi-class" else part.targets.numpy()
        np.testing.assert_array_equal(found, truth)
    if task == "regression":
        train = data.train.targets
        torch.testing.assert_close(data.target_mean, train.mean(0))
        torch.testing.assert_close(data.target_std, train.std(0, correction=0))


def test_the_recipe_overrules_the_targets_type(save):
    """data.task decides where y may be either, and without it a note says what was taken."""
    path = save(x=X, y=Y / 1.0)
    assert load(NpzData(name=path, task="classification")).task == "multi-class"
    data = load(NpzData(name=path))
    assert data.task == "regression" and "data.task=classification" in data.notes[0]


def test_home_folder_is_expanded(save, tmp_path, monkeypatch):
    """~ means the home folder, as in a shell, which does not see it behind `data=`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    save(x=X, y=Y)
    data = load(NpzData(name="~/data.npz"))
    assert len(read_new(data.preparation, "~/data.npz", targets=True).inputs) == 60


def test_new_files_are_read_as_in_training(save, tmp_path):
    """x goes before x_test; .npy works; class names find their numbers; rows stay in order."""
    names = np.array(["cat", "dog", "owl"])
    preparation = load(NpzData(name=save(x=PIXELS, y=names[Y]))).preparation
    expected = torch.from_numpy(PIXELS[:6].transpose(0, 3, 1, 2).copy())
    path = save(name="new.npz", x_test=PIXELS[6:9], x=PIXELS[:6], y=names[[2, 1, 1, 0, 2, 2]])
    new = read_new(preparation, path, targets=True)
    assert isinstance(new.inputs, TensorInputs) and torch.equal(new.inputs.values, expected)
    assert new.targets is not None and new.targets.tolist() == [2, 1, 1, 0, 2, 2]
    assert new.table.equals(polars.DataFrame({"row": range(6)}))
    np.save(tmp_path / "new.npy", PIXELS[:6])
    new = read_new(preparation, str(tmp_path / "new.npy"), targets=False)
    assert torch.equal(new.inputs.gather(torch.arange(6)), expected) and new.targets is None


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": PIXELS[:, :4], "y": Y}, "(4, 7, 3), where training had (5, 7, 3)"),
        ({"x": PIXELS / 255, "y": Y}, "uint8"),
        ({"x": PIXELS}, "has no 'y'"),
        ({"x": PIXELS, "y": Y + 1}, "class '3' (row 2)"),
        ({"images": PIXELS}, "it holds 'images'"),
        ({"x": PIXELS[:0], "y": Y[:0]}, "is empty"),
    ],
)
def test_new_files_that_do_not_fit_are_refused(save, arrays, said):
    """Another shape, type or class than in training."""
    preparation = load(NpzData(name=save(x=PIXELS, y=Y))).preparation
    with pytest.raises(UserError) as refused:
        read_new(preparation, save(name="new.npz", **arrays), targets=True)
    assert said in str(refused.value) and "new.npz" in str(refused.value)


def spoilt(array: np.ndarray, row: int, value: float) -> np.ndarray:
    array = array.astype(float)
    array[row] = value
    return array


@pytest.mark.parametrize("bound", [0, 2**30])
@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"X_train": X, "y_train": Y}, "is 'X_train' meant?"),
        ({"data": X, "labels": Y}, "it holds 'data', 'labels'"),
        ({"x_train": X, "Y_train": Y}, "without 'y_train' (is 'Y_train' meant?)"),
        ({"x": X, "y": Y, "x_test": X}, "'x_test' is there without 'y_test'"),
        ({"x": X, "y": Y[:50]}, "x has 60 rows and y 50"),
        ({"x": X[:0], "y": Y[:0]}, "x is empty"),
        ({"x": X[:, :0], "y": Y}, "x is empty"),
        ({"x": spoilt(X, 41, np.nan), "y": Y}, "x holds nan in row 41"),
        (
            {"x": spoilt(X, 3, 1e300), "y": Y},
            "x holds 1e+300 in row 3 (counted from 0), and the limit is 1e+20",
        ),
        ({"x": spoilt(X, 3, -3e20).astype("f4"), "y": Y}, "e+20 in row 3"),
        ({"x": spoilt(X, 3, -np.inf).astype(np.float16), "y": Y}, "x holds -inf in row 3"),
        ({"x": X, "y": spoilt(Y, 17, np.inf)}, "y holds inf in row 17"),
        ({"x": X.astype(object), "y": Y}, "Python objects"),
        ({"x": X, "y": Y.astype(object)}, "Python objects"),
        ({"x": X.astype(str), "y": Y}, "must hold numbers"),
        ({"x": X + 1j, "y": Y}, "x holds complex numbers (complex128)"),
        ({"x": X, "y": Y + 0j}, "y holds complex numbers (complex128)"),
        (
            {"x": X, "y": np.array(["a", "\udc80", "b"])[Y]},
            "y has class '\\udc80', which is not valid Unicode",
        ),
        (
            {"x": X, "y": np.array([b"a", b"\xff", b"\xfe"])[Y]},
            "has class '\\udcfe', which is not valid Unicode",
        ),
        ({"x": X, "y": (Y + 0x110000).astype("<u4").view("<U1")}, "y holds texts that are damaged"),
        ({"x": PIXELS[..., :2], "y": Y}, "has shape (60, 5, 7, 2)"),
        ({"x": X, "y": Y, "x_test": X[:, :3], "y_test": Y}, "x_test has shape (3), where training had (4)"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1}, "y_test has class '3' (row 2)"),
        (
            {"x": PIXELS / 255, "y": Y, "x_test": PIXELS, "y_test": Y},
            "x_test is uint8, where training had float",
        ),
        ({"x": PIXELS, "y": Y, "x_test": PIXELS / 255, "y_test": Y}, "is float64, where training had uint8"),
        ({"x": X, "y": X[:, 0], "x_test": X, "y_test": X[:, :2]}, "y_test has shape (60, 2), where training"),
    ],
)
def test_bad_arrays_are_refused(save, monkeypatch, arrays, said, bound):
    """One sentence with file, array and row, in memory and on disk."""
    monkeypatch.setattr(npzfile, "MAP_BYTES_FROM", bound)
    with pytest.raises(UserError) as refused:
        load(NpzData(name=save(**arrays)))
    assert said in str(refused.value) and "data.npz" in str(refused.value)


@pytest.mark.parametrize("shape", [(60, 64), (60, 6, 4), (60, 8, 8)], ids=["features", "sequence", "image"])
def test_pixels_and_fractions_are_not_mixed(save, shape):
    """0 to 255 beside 0 to 1 would be nonsense: refused in a part and in new data, both ways."""
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    for x, other in ((pixels, pixels / 255), ((pixels / 255).astype("f4"), pixels)):
        if shape == (60, 6, 4) and x is pixels:
            continue  # uint8 is an image
        match = f"is {other.dtype}, where training had (uint8|float); convert it, with the same range"
        with pytest.raises(UserError, match=match):
            load(NpzData(name=save(x=x, y=Y, x_test=other, y_test=Y)))
        data = load(NpzData(name=save(x=x, y=Y)))
        with pytest.raises(UserError, match=match):
            read_new(data.preparation, save(name="new.npz", x=other), False)
        read_new(data.preparation, save(name="new.npz", x=x), False)


def test_a_seed_that_decides_nothing_is_refused(save):
    """Without a validation and a test part there is nothing to draw."""
    with pytest.raises(UserError, match=r"data\.split_seed=3 has no effect"):
        load(NpzData(name=save(x=X, y=Y), validation=0, test=0, split_seed=3))
