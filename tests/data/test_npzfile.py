"""Arrays read from .npz and .npy files, against the arrays that were written."""

from __future__ import annotations

import errno
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stepwell.data import npzfile
from stepwell.data.npzfile import read_array, read_members, read_npy
from stepwell.errors import UserError

RNG = np.random.default_rng(0)
ARRAYS = {
    "numbers": RNG.normal(3, 2, (60, 4)),
    "columns first": np.asfortranarray(RNG.normal(3, 2, (60, 4))),
    "big-endian": RNG.normal(3, 2, (60, 4)).astype(">f8"),
    "pixels": RNG.integers(0, 256, (60, 5, 7, 3), dtype=np.uint8),
    "texts": np.array(["cat", "ärger", "dog"] * 20),
    "none": np.zeros((0, 4)),
}


@pytest.fixture
def save(tmp_path):
    def save(compress=False, **arrays) -> str:
        (np.savez_compressed if compress else np.savez)(tmp_path / "data.npz", **arrays)
        return str(tmp_path / "data.npz")

    return save


def read(path: str) -> dict[str, np.ndarray]:
    members = read_members(path)
    return {name: read_array(path, members, name) for name in members}


@pytest.mark.parametrize("compress", [False, True])
def test_what_numpy_writes_is_read_back(save, tmp_path, compress):
    """Values, type and shape of each array of a .npz file, and of a .npy file."""
    found = read(save(compress, **ARRAYS))
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.save(tmp_path / "data.npy", array)
        for again in (found[name], read_npy(str(tmp_path / "data.npy"))):
            assert again.dtype == array.dtype
            np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize("compress", [False, True])
def test_large_arrays_stay_on_disk(save, tmp_path, monkeypatch, compress):
    """Stored members are mapped inside the zip, compressed ones through one file in the cache."""
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(npzfile, "MAP_BYTES_FROM", 1000)
    arrays = {name: ARRAYS[name] for name in ("numbers", "columns first")}
    path = save(compress, **arrays)
    for _ in range(2):
        for name, array in read(path).items():
            assert isinstance(array, np.memmap)
            np.testing.assert_array_equal(array, arrays[name])
        cache = sorted((tmp_path / "cache").iterdir()) if compress else []
        assert len(cache) == (2 if compress else 0)
    save(compress, **{name: array + 1 for name, array in arrays.items()})  # outdated copies are replaced
    np.testing.assert_array_equal(read(path)["numbers"], arrays["numbers"] + 1)
    assert not compress or len(list((tmp_path / "cache").iterdir())) == 2


def test_bad_files_are_refused(save, tmp_path):
    """Missing, not a zip, cut short, damaged inside, without arrays."""
    whole = Path(save(True, x=ARRAYS["numbers"])).read_bytes()
    cases = {"text.npz": b"x,y\n1,2\n", "cut.npz": whole[: len(whole) // 2], "empty.npz": b""}
    middle = len(whole) // 4
    cases["damaged.npz"] = whole[:middle] + bytes(64) + whole[middle + 64 :]
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "none.npz", "w") as file:
        file.writestr("readme.txt", "nothing")
    with zipfile.ZipFile(tmp_path / "header.npz", "w") as file:
        file.writestr("x.npy", b"\x93NUMPY\x01\x00 nonsense")
    for name in [*cases, "none.npz", "header.npz", "missing.npz"]:
        with pytest.raises(UserError, match=name):
            read(str(tmp_path / name))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (ARRAYS["numbers"].astype(object), "Python objects"),
        (np.zeros(3, dtype=[("a", float), ("b", int)]), "named fields"),
    ],
)
@pytest.mark.parametrize("bound", [0, 2**30])
def test_arrays_that_are_not_plain_are_refused(save, tmp_path, monkeypatch, array, said, bound):
    """Objects, before anything is unpickled, and records; in memory and on disk, .npz and .npy."""
    monkeypatch.setattr(npzfile, "MAP_BYTES_FROM", bound)
    with pytest.raises(UserError, match=f"data.npz: array 'x' .*{said}"):
        read(save(x=array))
    np.save(tmp_path / "data.npy", array)
    with pytest.raises(UserError, match=f"data.npy.*{said}"):
        read_npy(str(tmp_path / "data.npy"))


@pytest.mark.parametrize(
    ("field", "value", "said"), [(6, 1, "'x' is encrypted"), (8, 9, "'x' cannot be unpacked")]
)
def test_members_that_zipfile_cannot_unpack_are_refused(save, tmp_path, field, value, said):
    """Behind a password, or compressed as Windows does (method 9): the bytes are no array."""
    raw = bytearray(Path(save(x=ARRAYS["numbers"])).read_bytes())
    for place in (raw.index(b"PK\x03\x04") + field, raw.index(b"PK\x01\x02") + field + 2):
        raw[place] = value
    (tmp_path / "data.npz").write_bytes(raw)
    with pytest.raises(UserError, match=said):
        read(str(tmp_path / "data.npz"))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("bound", [0, 2**30])
def test_a_file_that_fails_after_its_directory_was_read_is_refused(
    save, tmp_path, monkeypatch, compress, bound
):
    """The disk fails, or the file vanishes: a sentence that names it, and nothing half in the cache."""
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(npzfile, "MAP_BYTES_FROM", bound)
    path = save(compress, x=ARRAYS["numbers"])
    members = read_members(path)

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipExtFile, "read", fail)
        patch.setattr(np, "memmap", fail)
        with pytest.raises(UserError, match=r"data\.npz: the file cannot be read \(Input/output error\)"):
            read_array(path, members, "x")
    assert list(tmp_path.glob("cache/*")) == []
    os.remove(path)
    with pytest.raises(UserError, match=r"data\.npz: the file cannot be read \(No such file"):
        read_array(path, members, "x")


@pytest.mark.parametrize("shape", ["(10000000000000000, 4)", "(4000000000000000000, 4)"])
@pytest.mark.parametrize("bound", [0, 2**30])
def test_sizes_that_a_damaged_header_claims_are_refused(tmp_path, monkeypatch, shape, bound):
    """More bytes than there are, than memory holds and than a machine counts."""
    monkeypatch.setattr(npzfile, "MAP_BYTES_FROM", bound)
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + bytes(80)
    (tmp_path / "data.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"data\.npy: not a \.npy file, or cut short \(80 of"):
        read_npy(str(tmp_path / "data.npy"))
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as file:
        file.writestr("x.npy", content)
    with pytest.raises(UserError, match=r"data\.npz: array 'x' is damaged or cut short \("):
        read(str(tmp_path / "data.npz"))


SHAPED = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize("bound", [0, 2**30])
@pytest.mark.parametrize(
    "header",
    [
        *(SHAPED % shape for shape in ("(True, 4)", "(-1, 4)", "(6.0, 4)", "4", "(1,) * 80")),
        *("[" * 5000, "(" * 200_000, "\0", "'''", "-" * 9000 + "1", "\xff"),
        "{'descr': __import__('os').abort(), 'fortran_order': False, 'shape': (4,)}",
        "{'descr': " + "(" * 3000 + "'<f4'" + ")" * 3000 + ", 'fortran_order': False, 'shape': (4,)}",
        SHAPED % "(4,)" + " " * 20_000,
    ],
    ids=lambda header: header[:60].translate({0: "0"}) if isinstance(header, str) else header,
)
def test_a_header_that_is_no_header_is_one_plain_sentence(tmp_path, monkeypatch, header, bound):
    """Without the parser's own words: no object's address, and no advice to allow pickles."""
    monkeypatch.setattr(npzfile, "MAP_BYTES_FROM", bound)
    encoded = header.encode("latin-1")
    path = tmp_path / "data.npy"
    path.write_bytes(b"\x93NUMPY\x02\0" + struct.pack("<I", len(encoded)) + encoded + bytes(160))
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as file:
        file.write(path, "x.npy")
    for refused_by in (lambda: read_npy(str(path)), lambda: read(str(tmp_path / "data.npz"))):
        with pytest.raises(
            UserError, match=r"cut short \(its header [^()]*(\([^()]*\))?\); write"
        ) as refused:
            refused_by()
        assert "pickle" not in str(refused.value) and "0x" not in str(refused.value)
