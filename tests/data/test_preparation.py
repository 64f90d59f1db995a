"""A preparation that is taken can be used, whoever wrote it: a file is read, or one sentence says why not."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from stepwell.data import preparation, sources
from stepwell.errors import UserError
from stepwell.recipe import read_recipe

KEYS = ("kind", "task", "input_shape", "outputs", "classes", "targets", "preparation")
WRONG = (None, "x", -1, 0, 3, 10**30, 1.5, [], ["x", "x"], {}, True)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """A file of each source, the table with a column of each kind."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    rows = [
        f"{'-' if i == 3 else i % 7 + 0.5},{i % 2 == 0},2024-0{i % 9 + 1}-1{i % 5},{'pqr'[i % 3]},"
        f"{'ab'[i % 2]}"
        for i in range(60)
    ]
    (folder / "table.csv").write_text("\n".join(["number,flag,day,word,label", *rows, ""]))
    (folder / "costs.csv").write_text("\n".join(["x,cost", *(f"{i % 7},{i * 2.5}" for i in range(60)), ""]))
    (folder / "text.txt").write_text("so it goes, and on it goes. " * 90)
    x = rng.normal(size=(60, 6, 2))
    np.savez(folder / "sequences.npz", x=x.astype(">f4"), y=np.arange(60) % 3)
    np.savez(folder / "labels.npz", x=x[:, 0, 0], y=rng.integers(0, 2, (60, 3)))
    np.savez(folder / "pixels.npz", x=rng.integers(0, 255, (60, 4, 5, 3), np.uint8), y=np.arange(60) / 7)
    for i in range(20):
        path = folder / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(path)
    iris = sources.load(read_recipe(None, {"data": "iris"}).data)
    values = iris.train.inputs.gather(iris.train.rows[:0].new_tensor(range(20))).numpy()
    pl.DataFrame(values, schema=iris.preparation["features"], orient="row").write_csv(folder / "iris.csv")
    return {path.stem: str(path) for path in folder.iterdir()}


NAMES = ("table", "costs", "text", "sequences", "labels", "pixels", "images", "iris")


def told(name: str, files: dict[str, str]) -> dict[str, Any]:
    """What a model's file would say of this data."""
    keys = {"data": "iris" if name == "iris" else files[name]}
    keys |= {"data.target": "cost"} if name == "costs" else {}
    data = sources.load(read_recipe(None, keys).data)
    about = {key: getattr(data, key) for key in KEYS}
    return json.loads(json.dumps(about))


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place in a JSON value; of a longer list the first two entries."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value))[:2]:
            yield (*path, key)
            yield from places(value[key], (*path, key))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_taken_can_be_used(name, files):
    """Ours are taken. With any value in any place, or a place missing, it is refused, or `read_new` works."""
    about, missing = told(name, files), object()
    assert preparation.is_sound(about)
    taken = tried = 0
    for *path, last in places(about["preparation"]):
        for wrong in (missing, *WRONG):
            forged = copy.deepcopy(about)
            inner = forged["preparation"]
            for step in path:
                inner = inner[step]
            if wrong is missing:
                del inner[last]
            else:
                inner[last] = wrong
            tried += 1
            if preparation.is_sound(forged):
                taken += 1
                try:
                    new = sources.read_new(forged["preparation"], files[name])
                except UserError:
                    continue
                if name != "text":  # a prompt is of any length
                    assert list(new.inputs.shape) == about["input_shape"]
    assert taken < tried / 2


@pytest.mark.parametrize("name", NAMES)
def test_classes_and_targets_are_as_many_as_outputs(name, files):
    """Fewer or more names than outputs, or another kind or shape, do not fit."""
    about = told(name, files)
    key = "targets" if about["task"] == "regression" else "classes"
    for changes in ({key: []}, {key: [*about[key], "more"]}, {"outputs": 99}, {"input_shape": [7] * 3}):
        assert not preparation.is_sound(about | changes)
    assert not preparation.is_sound(about | {"kind": "text" if name != "text" else "image"})
