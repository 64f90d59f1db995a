"""Image folders and archives, against arrays that were saved losslessly."""

from __future__ import annotations

import os
import shutil
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from stepwell.data import images
from stepwell.data.dataset import DataSet
from stepwell.data.decoding import DecodedImages, ImageFiles
from stepwell.data.images import ImageData, load, read_new
from stepwell.errors import UserError

RNG = np.random.default_rng(0)
CLASSES = ("cat", "dog", "öwl")


def picture(height=6, width=8, channels=3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path, array: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.squeeze()).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Ten pictures a class, CLASS/N.png; their pixels by name are in `folder.pixels`."""

    def make(root="pets", classes=CLASSES, count=10, **shape) -> dict[str, np.ndarray]:
        pixels = {f"{name}/{n:02}.png": picture(**shape) for name in classes for n in range(count)}
        for name, array in pixels.items():
            save(tmp_path / root / name, array)
        return pixels

    return make


def check(data: DataSet, pixels: dict[str, np.ndarray]) -> None:
    """Every picture is in one part, with its pixels, channels first, and its class."""
    seen = []
    for part in (data.train, data.validation, data.test):
        assert isinstance(part.inputs, DecodedImages | ImageFiles)
        values, labels = part.gather(torch.arange(len(part)))
        assert values.dtype == torch.uint8 and values.is_contiguous()
        for i, file in enumerate(part.inputs.files):
            name = "/".join(file.split("/")[-2:])
            np.testing.assert_array_equal(values[i].permute(1, 2, 0), pixels[name])
            assert data.classes[int(labels[i])] == name.split("/")[0]
            seen.append((int(part.rows[i]), file))
    assert [row for row, _ in sorted(seen)] == list(range(len(pixels)))
    assert [file for _, file in sorted(seen)] == sorted(file for _, file in seen)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("workers", [1, 3])
def test_class_folders_are_split(folder, tmp_path, in_memory, workers):
    """Every picture once, statistics from training; memory, files and threads make no difference."""
    pixels = folder()
    data = load(ImageData(name=str(tmp_path / "pets"), in_memory=in_memory, workers=workers))
    check(data, pixels)
    assert data.train.inputs.resident == in_memory
    assert (data.kind, data.task, data.classes, data.input_shape) == (
        "image",
        "multi-class",
        ["cat", "dog", "öwl"],
        (3, 6, 8),
    )
    x = data.train.inputs.gather(torch.arange(len(data.train))).double()
    assert data.input_shift is not None and data.input_scale is not None
    torch.testing.assert_close(data.input_shift.flatten(), x.mean((0, 2, 3)).float())
    torch.testing.assert_close(data.input_scale.flatten(), 1 / x.std((0, 2, 3), correction=0).float())
    order = torch.randperm(len(data.train))
    assert torch.equal(data.train.gather(order)[0], data.train.gather(torch.arange(len(order)))[0][order])


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("kind", ["folder", "zip", "gztar"])
@pytest.mark.parametrize("wrapper", ["", "a/b/"])
def test_parts_are_found_below_single_folders(folder, tmp_path, monkeypatch, in_memory, kind, wrapper):
    """train/ and val/, on disk or in an archive, with folders around them; what is no image is left out."""
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    pixels = folder(f"root/{wrapper}train", count=6)
    for n in range(3):
        for name in CLASSES:
            pixels[f"{name}/v{n}.png"] = picture()
            save(tmp_path / "root" / wrapper / "val" / name / f"v{n}.png", pixels[f"{name}/v{n}.png"])
    (tmp_path / "root" / wrapper / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "root" / wrapper / "train" / "cat" / "._00.png").write_text("hidden")
    path = str(tmp_path / "root")
    if kind != "folder":
        path = shutil.make_archive(path, kind, path)
    data = load(ImageData(name=path, in_memory=in_memory))
    check(data, pixels)
    assert len(data.validation) == 9
    assert data.notes == ["1 files that are not images are left out", "1 hidden files are left out"]


def test_fingerprint_and_split_follow_from_content_and_seed(folder, tmp_path):
    """Same folder, same fingerprint and rows; another file, another fingerprint."""
    folder()
    config = ImageData(name=str(tmp_path / "pets"))
    a, b = load(config), load(config)
    assert a.fingerprint == b.fingerprint and torch.equal(a.test.rows, b.test.rows)
    assert not torch.equal(a.test.rows, load(config.model_copy(update={"split_seed": 1})).test.rows)
    save(tmp_path / "pets" / "cat" / "new.png", picture())
    assert load(config).fingerprint != a.fingerprint


def test_grey_pictures_have_one_channel(folder, tmp_path):
    """All grey: one channel. A coloured one that the probe misses: three, in memory and from files."""
    pixels = folder(channels=1, count=50)
    data = load(ImageData(name=str(tmp_path / "pets")))
    assert data.input_shape == (1, 6, 8) and data.preparation["mode"] == "L"
    check(data, pixels)
    for in_memory in (True, False):
        name = data.train.inputs.files[1]  # pyright: ignore[reportAttributeAccessIssue]
        pixels[name] = picture()
        save(tmp_path / "pets" / name, pixels[name])
        grey = {k: np.broadcast_to(v, (6, 8, 3)) for k, v in pixels.items()}
        check(load(ImageData(name=str(tmp_path / "pets"), in_memory=in_memory)), grey)


def test_new_pictures_are_read_as_in_training(folder, tmp_path):
    """A flat folder, class folders with targets, an archive and one file; rows by file name."""
    folder()
    preparation = load(ImageData(name=str(tmp_path / "pets"))).preparation
    pixels = folder("new", classes=("öwl", "cat"), count=3)
    new = read_new(preparation, str(tmp_path / "new"), targets=True)
    assert new.table["file"].to_list() == sorted(pixels)
    assert new.targets is not None and new.targets.tolist() == [0, 0, 0, 2, 2, 2]
    values = new.inputs.gather(torch.arange(6)).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(values, [pixels[name] for name in sorted(pixels)])
    flat = read_new(preparation, str(tmp_path / "new" / "cat"), targets=False)
    assert flat.table["file"].to_list() == ["00.png", "01.png", "02.png"] and flat.targets is None
    one = read_new(preparation, str(tmp_path / "new" / "cat" / "01.png"), targets=False)
    assert one.table["file"].to_list() == ["01.png"]
    assert torch.equal(one.inputs.gather(torch.tensor([0]))[0], new.inputs.gather(torch.tensor([1]))[0])
    with pytest.raises(UserError, match=r"not in a folder named after a class"):
        read_new(preparation, str(tmp_path / "new" / "cat"), targets=True)
    save(tmp_path / "new" / "cat" / "99.png", picture(5, 5))
    with pytest.raises(UserError, match=r"99.png: the image is 5 × 5 pixels, but the training images 8 × 6"):
        read_new(preparation, str(tmp_path / "new"), targets=False)


def _cut(root):
    file = root / "dog" / "03.png"
    file.write_bytes(file.read_bytes()[:100])


def _bomb(root):
    Image.new("1", (20000, 20000)).save(root / "dog" / "03.png")


def _keep_one_class(root):
    for name in ("dog", "öwl"):
        shutil.rmtree(root / name)


def _into_test(root):
    (root / "train").mkdir()
    for name in CLASSES:
        (root / name).rename(root / "train" / name)
    save(root / "test" / "rat" / "0.png", picture())


def _flat(root):
    for name in CLASSES:
        shutil.rmtree(root / name)
    save(root / "0.png", picture())


CASES = {
    "cut short": (_cut, "pets/dog/03.png: the image is damaged or cut short"),
    "no image": (lambda r: (r / "cat" / "00.png").write_text("x"), "pets/cat/00.png: the image is damaged"),
    "empty file": (lambda r: (r / "cat" / "00.png").write_text(""), "cat/00.png: the image is damaged"),
    "bomb": (_bomb, "pets/dog/03.png: the image claims more than"),
    "mixed": (lambda r: save(r / "dog" / "03.png", picture(5, 5)), "the image is 5 × 5 pixels, but"),
    "empty class": (lambda r: (r / "rat").mkdir(), "pets/rat: there are no images in this class folder"),
    "one class": (_keep_one_class, "one class only ('cat')"),
    "new class in test": (_into_test, "test/rat/0.png: the test part has class 'rat'"),
    "flat": (_flat, "have no class folders"),
    "nothing": (lambda r: [shutil.rmtree(r / name) for name in CLASSES], "there are no images in it"),
    "missing": (lambda r: shutil.rmtree(r), "no such file or folder"),
}


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_folders_are_refused(folder, tmp_path, case, in_memory):
    """One sentence that names the file or folder; from files at the latest when the image is fetched."""
    folder()
    spoil, said = CASES[case]
    spoil(tmp_path / "pets")
    with pytest.raises(UserError) as refused:
        load(ImageData(name=str(tmp_path / "pets"), in_memory=in_memory, workers=2)).train.gather(
            torch.arange(18)
        )
        if case == "cut short":  # which part holds it is chance
            data = load(ImageData(name=str(tmp_path / "pets"), in_memory=in_memory))
            for part in (data.validation, data.test):
                part.inputs.gather(torch.arange(len(part)))
    assert said in str(refused.value)


def test_mixed_sizes_name_two_files_and_the_remedy(folder, tmp_path):
    """The message says both files, both sizes and data.size, with which they can be read."""
    folder()
    save(tmp_path / "pets" / "dog" / "03.png", picture(5, 7))
    with pytest.raises(UserError, match=r"dog/03.png.* 7 × 5 .*/\d\d.png 8 × 6; .* data.size=32"):
        load(ImageData(name=str(tmp_path / "pets")))
    data = load(ImageData(name=str(tmp_path / "pets"), size=4))
    assert data.input_shape == (3, 4, 4) and data.preparation["size"] == 4


def test_folders_without_labels(folder, tmp_path):
    """A test folder without classes is left out, and told; one without a train folder is refused."""
    folder("pets/train")
    for n in range(4):
        save(tmp_path / "pets" / "test" / f"{n}.png", picture())
    data = load(ImageData(name=str(tmp_path / "pets")))
    assert data.notes == ["the 4 images in test/ have no class folders and are left out"]
    assert [len(part) for part in (data.train, data.validation, data.test)] == [20, 4, 6]
    (tmp_path / "pets" / "train").rename(tmp_path / "pets" / "val")
    with pytest.raises(UserError, match="no 'train' beside it"):
        load(ImageData(name=str(tmp_path / "pets")))


@pytest.mark.parametrize("in_memory", [True, False])
def test_statistics_of_many_files_are_a_sample(folder, tmp_path, monkeypatch, in_memory):
    """Of many images evenly spread ones stand for all, in memory and from files, and a note says so."""
    pixels = folder()
    monkeypatch.setattr(images, "STATISTICS_FROM", 5)
    data = load(ImageData(name=str(tmp_path / "pets"), in_memory=in_memory))
    files = data.train.inputs.files  # pyright: ignore[reportAttributeAccessIssue]
    some = [pixels[files[i]] for i in np.linspace(0, len(files) - 1, 5).round().astype(int)]
    assert data.input_shift is not None
    np.testing.assert_allclose(data.input_shift.flatten(), np.mean(some, (0, 1, 2)), rtol=1e-5)
    assert "those of 5 training images" in data.notes[0]


def test_a_seed_that_decides_nothing_is_refused(folder, tmp_path):
    """Without a validation and a test part there is nothing to draw."""
    folder()
    with pytest.raises(UserError, match=r"data\.split_seed=3 has no effect"):
        load(ImageData(name=str(tmp_path / "pets"), validation=0, test=0, split_seed=3))


def test_pipes_and_sockets_in_a_folder_are_left_out(folder, tmp_path, monkeypatch):
    """They are counted with the other files that are no images, and nobody waits for them."""
    folder()
    os.mkfifo(tmp_path / "pets/cat/pipe.png")
    monkeypatch.chdir(tmp_path / "pets/dog")  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.png")
        data = load(ImageData(name=str(tmp_path / "pets")))
    assert data.notes == ["2 files that are not images are left out"]
    assert len(data.train) + len(data.validation) + len(data.test) == 30


def test_names_that_are_not_utf8_are_refused(folder, tmp_path):
    """A class before anything is trained, and a new image, whose name goes into the table."""
    folder()
    data = load(ImageData(name=str(tmp_path / "pets")))
    bad = os.fsencode(tmp_path) + b"/pets/\xff\xfe"
    os.rename(tmp_path / "pets" / "cat", bad)
    for read in (load, lambda config: read_new(data.preparation, config.name, False)):
        with pytest.raises(UserError, match=r"the name '\\udcff\\udcfe.*' is not UTF-8; rename it"):
            read(ImageData(name=str(tmp_path / "pets")))
