"""The bundled sets, against scikit-learn's own arrays."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch
from sklearn import datasets

from stepwell.data.bundled import BundledData, load, read_new
from stepwell.errors import UserError

NAMES = ["digits", "iris", "wine", "breast_cancer", "diabetes"]


def source(name):
    return getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))


def known(value: torch.Tensor | None) -> torch.Tensor:
    assert value is not None
    return value


def saved(data):
    return json.loads(json.dumps(data.preparation))


@pytest.mark.parametrize("name", NAMES)
def test_parts_hold_scikit_learns_rows(name):
    """Each sample and target is scikit-learn's, at the number in `rows`; statistics are the training's."""
    found, data = source(name), load(BundledData(name=name))
    seen = []
    for part in (data.train, data.validation, data.test):
        x, y = part.gather(torch.arange(len(part)))
        rows = part.rows.numpy()
        np.testing.assert_array_equal(x.flatten(1).numpy(), found.data[rows].astype(np.float32))
        np.testing.assert_array_equal(y.reshape(-1).numpy(), found.target[rows].astype(y.numpy().dtype))
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(found.data)))
    own = found.data[data.train.rows.numpy()]
    if name == "digits":
        assert data.input_shape == (1, 8, 8) and data.kind == "image"
        assert float(known(data.input_shift)) == pytest.approx(own.mean(), rel=1e-5)
        assert float(known(data.input_scale)) == pytest.approx(1 / own.std(), rel=1e-5)
    else:
        np.testing.assert_allclose(known(data.input_shift).numpy(), own.mean(0), rtol=1e-5)
        np.testing.assert_allclose(known(data.input_scale).numpy(), 1 / own.std(0), rtol=1e-4)
    if name == "diabetes":
        own_target = found.target[data.train.rows.numpy()]
        assert float(known(data.target_mean)) == pytest.approx(own_target.mean())
        assert float(known(data.target_std)) == pytest.approx(own_target.std())
    else:
        assert data.classes == [str(c) for c in found.target_names] and data.outputs == len(data.classes)


@pytest.mark.parametrize("name", NAMES)
def test_a_new_file_is_read_as_the_set_itself(tmp_path, name):
    """The set written as .npz, and as CSV with names or without, comes back as the same inputs."""
    found, data = source(name), load(BundledData(name=name))
    shape = data.input_shape
    np.savez(tmp_path / "a.npz", x_test=found.data, y_test=found.target)
    np.savez(tmp_path / "b.npz", x=found.data.reshape(-1, *shape[-2:]))
    frame = pl.DataFrame(found.data, schema=[str(n) for n in found.feature_names])
    labels = found.target if name == "diabetes" else [str(found.target_names[i]) for i in found.target]
    frame.with_columns(target=pl.Series(labels)).reverse().write_csv(tmp_path / "a.csv")
    columns = [f"f{i}" for i in range(frame.width)]
    frame.rename(dict(zip(frame.columns, columns, strict=True))).with_columns(target=found.target).write_csv(
        tmp_path / "b.csv"
    )
    x = torch.from_numpy(found.data.astype(np.float32)).reshape(-1, *shape)
    y = torch.from_numpy(found.target).reshape(-1)
    for file, targets, flip in (
        ("a.npz", True, 0),
        ("b.npz", False, 0),
        ("a.csv", True, 1),
        ("b.csv", True, 0),
    ):
        new = read_new(saved(data), str(tmp_path / file), targets)
        got = new.inputs.gather(torch.arange(len(x)))
        assert torch.equal(got, x.flip(0) if flip else x), file
        assert new.table.lazy().collect().height == len(x)
        if targets:
            assert new.targets is not None and torch.equal(
                new.targets.reshape(-1).double(), y.flip(0).double() if flip else y.double()
            )


def test_new_files_that_do_not_fit_are_refused(tmp_path):
    """One sentence for wrong shapes, missing arrays, unknown classes, pickles, infinities and columns."""
    memory = saved(load(BundledData(name="iris")))
    x = np.ones((3, 4))
    cases: dict[str, dict] = {
        "no array 'x'": {"z": x},
        "4 a sample": {"x": np.ones((3, 5)), "y": [0, 1, 2]},
        "has numbers": {"x": np.array([["a"] * 4]), "y": [0]},
        "x holds inf in row 1": {"x": np.where(np.arange(3)[:, None] == 1, np.inf, x), "y": [0, 1, 2]},
        "has no 'y' beside it": {"x": x},
        "x has 3 rows and y 2": {"x": x, "y": [0, 1]},
        "class '3' .row 2.*'0', '1', '2'": {"x": x, "y": [0, 1, 3]},
        "class 'rosa' .row 1.*'versicolor'": {"x": x, "y": ["setosa", "rosa", "setosa"]},
        "Python objects": {"x": np.array([[None] * 4]), "y": [0]},
    }
    for sentence, arrays in cases.items():
        np.savez(tmp_path / "new.npz", **arrays)
        with pytest.raises(UserError, match=sentence):
            read_new(memory, str(tmp_path / "new.npz"), True)
    (tmp_path / "new.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError, match=r"new\.npz: not a \.npz file, or cut short"):
        read_new(memory, str(tmp_path / "new.npz"), True)
    with pytest.raises(UserError, match=r"none\.npz: there is no such file"):
        read_new(memory, str(tmp_path / "none.npz"), True)
    (tmp_path / "new.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="2 columns besides the target"):
        read_new(memory, str(tmp_path / "new.csv"), False)
    (tmp_path / "new.csv").write_text("a,b,c,d\n1,2,3,x\n")
    with pytest.raises(UserError, match="'d', row 2"):
        read_new(memory, str(tmp_path / "new.csv"), False)


def test_a_seed_that_decides_nothing_is_refused():
    """Without a validation and a test part there is nothing to draw."""
    with pytest.raises(UserError, match=r"data\.split_seed=3 has no effect"):
        load(BundledData(name="iris", validation=0, test=0, split_seed=3))
