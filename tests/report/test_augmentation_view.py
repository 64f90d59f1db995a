"""The picture of what the network sees: the samples, their changes, and the words beside them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from stepwell.data import counter, sources
from stepwell.data.augment import units
from stepwell.data.augment.draws import Draws
from stepwell.data.augment.flip import flip
from stepwell.errors import UserError
from stepwell.recipe import read_recipe
from stepwell.report import augmentation_view as view
from stepwell.report.augmentation_view import write_picture


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def tiles(picture):
    """The images on the sheet: squares within a grey outline whose upper left corner lies on white."""
    grey, white = (picture == 0xDD).all(-1), (picture == 255).all(-1)
    corners = grey[1:, 1:] & white[:-1, 1:] & white[1:, :-1]
    found = []
    for i, j in zip(*(corners.nonzero()), strict=True):
        i, j = i + 1, j + 1
        size = int(np.argmin(grey[i, j:]))
        if size > 50 and grey[i : i + size, j].all():
            found.append(picture[i + 1 : i + size - 1, j + 1 : j + size - 1])
    return found


def test_every_sample_and_its_changes_are_drawn(tmp_path):
    """Digits, flipped: five originals of five classes, and their flips in training's first epochs."""
    about = write_picture(tmp_path / "seen.png", None, {"augment.flip": 0.5, "seed": 3})
    data, picture = sources.load(read_recipe().data), pixels(tmp_path / "seen.png")
    index = view._different(data, view.ROWS)
    assert about["samples"] == len(index) == len(set(data.train.targets[index].tolist())) == 5
    x, key = data.train.gather(index)[0], counter.key(counter.key(3, 2), 4, 1)
    found = tiles(picture)
    assert len(found) == 5 * 9
    fifth = flip(x, Draws(key, index), share=0.5)
    assert not torch.equal(fifth, x)
    for row in range(5):
        for column, image in ((0, x[row]), (5, fifth[row])):
            drawn = found[9 * row + column]
            assert np.array_equal(drawn, _tile(image, len(drawn) + 2)[1:-1, 1:-1])
    assert picture.shape[1] == 1280 and tuple(picture[0, 0]) == (255, 255, 255)
    assert "augment.flip may change the label" in about["notes"][0]


def _tile(image, size):
    return np.asarray(view._tile(image, 0.0, 16.0, size, size)).astype(int)


@pytest.mark.parametrize(
    "changes",
    [
        {"augment.mixup": 0.4, "augment.cutmix": 1.0},
        {"data": "iris", "augment.noise": 0.1, "augment.mixup": 0.3},
        {"data": "diabetes", "augment.mixup": 0.3},
        {"data": "SEQUENCES", "augment.noise": 0.2},
        {"data": "WIDE", "augment.jitter": 0.5, "augment.cutmix": 1.0},
    ],
    ids=str,
)
def test_every_kind_of_data_has_a_picture(changes, tmp_path):
    """Mixed digits, a table, numbers, sequences, two wide color images: a picture that is not blank."""
    generator = np.random.default_rng(0)
    steps = generator.normal(size=(30, 6, 2))
    np.savez(tmp_path / "SEQUENCES.npz", x=steps, y=np.arange(30) % 3)
    wide = generator.integers(0, 256, (30, 5, 20, 3), dtype=np.uint8)
    np.savez(
        tmp_path / "WIDE.npz", x=wide, y=np.array(["a rather long name of a class", "b"])[np.arange(30) % 2]
    )
    if changes.get("data", "").isupper():
        changes = {**changes, "data": str(tmp_path / f"{changes['data']}.npz")}
    write_picture(tmp_path / "seen.png", None, changes)
    picture = pixels(tmp_path / "seen.png")
    assert picture.shape[1] == 1280 and 300 < picture.shape[0] < 1100
    ink = (picture != 255).any(-1)
    assert not ink[:, :8].any() and not ink[:, -8:].any() and not ink[:8].any() and not ink[-8:].any()


def test_both_names_and_shares_are_said():
    """The larger share first; what rounds to nothing is left out."""
    sheet = view.Sheet([], ["cat", "dog"], torch.tensor([[0.3, 0.999]]))
    assert view._both(sheet, 1, 0) == ["70 % dog", "30 % cat"]
    assert view._both(sheet, 1, 1) == ["100 % dog"]


def test_nothing_to_see_is_said(tmp_path):
    """A recipe without augmentation has no picture, and no file is left."""
    for changes in ({}, {"augment.test_time": "flip"}):
        with pytest.raises(UserError, match="nothing to see"):
            write_picture(tmp_path / "seen.png", None, changes)
    assert not list(tmp_path.iterdir())


def test_the_range_of_values(tmp_path):
    """uint8 is 0 … 255 without looking; of floats the least and the largest value."""
    assert units.extremes(sources.load(read_recipe().data).train.inputs) == (0.0, 16.0)
    np.savez(tmp_path / "x.npz", x=np.full((20, 9, 9, 3), 7, np.uint8), y=np.arange(20) % 2)
    data = sources.load(read_recipe(None, {"data": str(tmp_path / "x.npz")}).data)
    assert units.extremes(data.train.inputs) == (0.0, 255.0)


def test_the_verb(tmp_path):
    """`stepwell inspect … --augmentation FILE.png --json` writes the file and says what is on it."""
    command = [sys.executable, "-m", "stepwell", "inspect", "augment.crop=1", "--json"]
    run = subprocess.run(
        [*command, "--augmentation", "seen.png"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert said == {"file": "seen.png", "samples": 5, "epochs": 8, "methods": ["crop"], "notes": []}
    assert (tmp_path / "seen.png").exists()
