"""Decoding of images, against arrays that were saved losslessly."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stepwell.data import decoding
from stepwell.data.archive import SingleFile, open_archive
from stepwell.data.dataset import Inputs
from stepwell.data.decoding import Decoder, Mode, decode_new, decode_parts
from stepwell.errors import UserError

RNG = np.random.default_rng(0)


def picture(height=6, width=8) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, array: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """30 pictures of 144 bytes each."""
    for n in range(30):
        save(tmp_path / "pets" / f"{n:02}.png", picture())
    return tmp_path / "pets"


def decode(path: Path, size=None, workers=1, in_memory=None) -> tuple[Inputs, Decoder]:
    archive = open_archive(str(path))
    inputs, decoder = decode_parts(archive, {"train": archive.names}, size, workers, in_memory)
    return inputs["train"], decoder


def decoded(path: Path, size=None, mode: Mode = "RGB", height=6, width=8) -> torch.Tensor:
    decoder = Decoder(SingleFile(str(path)), mode, size, width, height, reference="the others")
    return decoder.decode_all([path.name], workers=1)[0]


def test_orientation_is_honoured(tmp_path):
    """A camera's picture that says that it lies on its side is turned, scaled or not."""
    upright = picture(48, 32) // 8 + np.arange(48, dtype=np.uint8)[:, None, None] * 4
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    lying = np.rot90(upright, 1)
    for name in ("a.png", "a.tif", "a.jpg"):
        Image.fromarray(lying).save(tmp_path / name, exif=exif, quality=100, subsampling=0)
        found = decoded(tmp_path / name, height=48, width=32).permute(1, 2, 0).numpy()
        assert np.abs(found.astype(int) - upright).max() <= (8 if name == "a.jpg" else 0)
    (tmp_path / "x").mkdir()
    for name in ("x/1.jpg", "x/2.jpg", "x/3.jpg"):
        Image.fromarray(lying).save(tmp_path / name, exif=exif)
    _, decoder = decode(tmp_path / "x", in_memory=False)
    assert decoder.shape == (3, 48, 32)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_unusual_pixels(tmp_path, mode):
    """Transparency shows white, 16 bits become 8, palettes and CMYK colours, animations a first frame."""
    rgb, white = picture(), np.full((6, 8, 3), 255, np.uint8)
    half = np.concatenate([rgb, np.zeros((6, 8, 1), np.uint8)], 2)
    half[:3, :, 3] = 255
    Image.fromarray(half).save(tmp_path / "clear.png")
    Image.fromarray((rgb[..., 0].astype(np.uint16) << 8) + 77).save(tmp_path / "deep.png")
    Image.fromarray(white - rgb).convert("CMYK").save(tmp_path / "print.tif")
    frames = [Image.fromarray(np.full((6, 8), level, np.uint8)) for level in (40, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(rgb).quantize(256).save(tmp_path / "palette.png")
    truth = {
        "clear.png": np.where(half[..., 3:] > 0, rgb, white),
        "deep.png": np.repeat(rgb[..., :1], 3, 2),
        "print.tif": white - rgb,
        "moving.gif": np.full((6, 8, 3), 40, np.uint8),
        "palette.png": rgb,
    }
    for name, expected in truth.items():
        expected = np.asarray(Image.fromarray(expected).convert(mode)).reshape(6, 8, -1)
        found = decoded(tmp_path / name, mode=mode).permute(1, 2, 0).numpy()
        assert np.abs(found.astype(int) - expected).max() <= (2 if name == "palette.png" else 0), name


def test_scaling_crops_the_longer_side(tmp_path):
    """data.size brings any measures to a square, the middle kept, without distortion."""
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = (200, 100, 50)
    for name in ("wide.png", "wide.jpg"):
        save(tmp_path / name, wide, quality=100, subsampling=0)
        found = decoded(tmp_path / name, size=8, height=8, width=8)[:, 1:-1, 1:-1]
        assert (found - torch.tensor([200, 100, 50])[:, None, None]).abs().max() <= 3
    for n, shape in enumerate([(30, 40), (50, 20), (8, 8)]):
        save(tmp_path / "mixed" / f"{n}.png", picture(*shape))
    inputs, _ = decode(tmp_path / "mixed", size=8)
    assert inputs.shape == (3, 8, 8) and len(inputs) == 3


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("workers", [1, 3])
def test_parts_keep_their_files(folder, in_memory, workers):
    """Each part has its own files' pixels, in its order; memory, files and threads make no difference."""
    names = {"train": [f"{n:02}.png" for n in range(20)], "validation": [], "test": ["29.png", "25.png"]}
    inputs, decoder = decode_parts(open_archive(str(folder)), names, None, workers, in_memory)
    assert decoder.shape == (3, 6, 8) and list(inputs) == list(names)
    for part, files in names.items():
        values = inputs[part].gather(torch.arange(len(files)))
        assert inputs[part].resident == in_memory and values.dtype == torch.uint8
        for value, file in zip(values, files, strict=True):
            np.testing.assert_array_equal(value.permute(1, 2, 0), np.asarray(Image.open(folder / file)))


def test_more_than_memory_holds(folder, monkeypatch):
    """Images that take more than half of the free memory stay in their files; all at once are refused."""
    _, decoder = decode(folder)
    names = open_archive(str(folder)).names
    monkeypatch.setattr(decoding, "free_memory", lambda: 8640)
    assert decode(folder)[0].resident and decode_new(decoder, names).resident
    monkeypatch.setattr(decoding, "free_memory", lambda: 8639)
    assert not decode(folder)[0].resident and not decode_new(decoder, names).resident
    assert decode(folder, in_memory=True)[0].resident
    monkeypatch.setattr(decoding, "free_memory", lambda: 4000)
    with pytest.raises(UserError, match="30 images do not fit into memory"):
        decode(folder, in_memory=True)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(
    ("limit", "free"), [("5000000", 4000000), ("900000", 0), ("max", None), (2**63, None)]
)
def test_a_containers_limit_bounds_the_free_memory(tmp_path, monkeypatch, version, limit, free):
    """What the limit leaves beside what is used, in both versions of cgroups; without one the machine's."""
    files = [(tmp_path / "none",) * 3] * 2
    monkeypatch.setattr(decoding, "_CONTAINER_MEMORY", files)
    assert 2**24 < decoding.free_memory() < 2**50
    files[version] = (tmp_path / "limit", tmp_path / "used", tmp_path / "stat")
    files[version][2].write_text("anon 800000\ninactive_file 200000\nactive_file 1\n")
    files[version][0].write_text(f"{limit}\n")
    files[version][1].write_text("1200000\n")
    found = decoding.free_memory()
    assert found > 2**24 if free is None else found == free


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_decoding_goes_on_after_a_fork(folder):
    """A forked process makes threads of its own."""
    inputs, _ = decode(folder, workers=2, in_memory=False)
    inputs.gather(torch.arange(10))
    child = os.fork()
    if child == 0:
        try:
            inputs.gather(torch.arange(10))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
