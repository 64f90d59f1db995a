"""Archives, fingerprints and the cache, against the files that were written."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stepwell.data import archive
from stepwell.data.archive import Archive, cached, file_fingerprint, open_archive
from stepwell.errors import UserError

RNG = np.random.default_rng(0)
FILES = {f"{folder}/{n}.png": RNG.bytes(500) for folder in ("a", "b/ö") for n in range(3)} | {"x.txt": b""}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder with FILES and with what is hidden; the cache is beside it."""
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    for name, content in (FILES | {"a/._0.png": b"x", "__MACOSX/0.png": b"x"}).items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(content)
    return tmp_path / "root"


def content(source: Archive) -> dict[str, bytes]:
    return {name: source.read(name) for name in source.names}


@pytest.mark.parametrize("kind", ["folder", "zip", "deflated", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_archives_hold_what_the_folder_holds(root, tmp_path, kind):
    """The same names in order, bytes and folders in any container, whatever it is called; hidden ones not."""
    path = tmp_path / "packed" if kind != "folder" else root
    if kind in ("zip", "deflated"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if kind == "deflated" else 0) as file:
            for found in root.rglob("*"):
                file.write(found, found.relative_to(root))
    elif kind != "folder":
        with tarfile.open(path, f"w:{kind[4:]}") as tar:  # pyright: ignore[reportArgumentType, reportCallIssue]
            tar.add(root, ".")
    source = open_archive(str(path))
    assert content(source) == FILES and source.names == sorted(FILES)
    assert [name for name in source.folders if name != "."] == ["a", "b", "b/ö"]
    assert source.where("a/0.png") == f"{path}/a/0.png"


@pytest.mark.parametrize("bound", [256 * 2**20, 100])
def test_fingerprints_are_of_content_and_not_of_times(tmp_path, monkeypatch, bound):
    """A touched or copied folder or file is the same; another byte is not, sampled where it is large."""
    monkeypatch.setattr(archive, "FINGERPRINT_BYTES_UP_TO", bound)
    monkeypatch.setattr(archive, "_BLOCK", 10)
    (tmp_path / "a" / "x").mkdir(parents=True)
    for i in range(200):
        (tmp_path / "a" / "x" / f"{i}.png").write_bytes(bytes(range(i, i + 50)))
    (tmp_path / "big").write_bytes(bytes(2000))
    found = [open_archive(str(tmp_path / "a")).fingerprint()]
    found += [file_fingerprint(str(tmp_path / "big"))]
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.copy(tmp_path / "big", tmp_path / "copy")
    for path in [*tmp_path.glob("b/x/*"), tmp_path / "copy"]:
        os.utime(path, (1, 1))
    assert open_archive(str(tmp_path / "b")).fingerprint() == found[0]
    assert file_fingerprint(str(tmp_path / "copy")) == found[1]
    (tmp_path / "copy").write_bytes(bytes(1999) + b"x")
    assert file_fingerprint(str(tmp_path / "copy")) != found[1]
    for path in tmp_path.glob("b/x/*"):
        path.write_bytes(path.read_bytes()[::-1])  # the names and sizes stay
    assert open_archive(str(tmp_path / "b")).fingerprint() != found[0]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything"
)
@pytest.mark.parametrize("name", ["", "b", "b/ö", "a/1.png"])
def test_what_may_not_be_read_is_named(root, name):
    """A folder without permission when it is opened, a file when it is read."""
    (root / name).chmod(0)
    try:
        with pytest.raises(UserError, match=f"{name}: the .* cannot be read"):
            content(open_archive(str(root)))
    finally:
        (root / name).chmod(0o700)


def test_a_file_that_vanishes_is_named(root):
    """The sentence has the system's reason, for its content and for the fingerprint."""
    source = open_archive(str(root))
    (root / "a" / "1.png").unlink()
    for read in (lambda: content(source), source.fingerprint):
        with pytest.raises(UserError, match=r"root/a/1\.png: the file cannot be read \(No such file"):
            read()


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "bztar", "xztar"])
def test_archives_that_are_cut_short_are_refused(root, tmp_path, kind):
    """Half of one is named, and leaves nothing in the cache."""
    path = Path(shutil.make_archive(str(tmp_path / "packed"), kind, root))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 - 100])
    with pytest.raises(UserError, match=path.name):
        content(open_archive(str(path)))
    assert list(tmp_path.glob("cache/*")) == []


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("member", ["b", "b/ö/2.png"])
def test_a_tar_that_stops_at_a_header_is_refused(root, tmp_path, cut, member):
    """Cut between two files, or a header damaged: the files behind are not left out in silence."""
    path = Path(shutil.make_archive(str(tmp_path / "packed"), "tar", root))
    with tarfile.open(path) as tar:
        start = next(found for found in tar if found.name.endswith(member)).offset
    whole = path.read_bytes()
    path.write_bytes(whole[:start] if cut else whole[:start] + b"?" * 100 + whole[start + 100 :])
    with pytest.raises(UserError, match=r"packed\.tar: the tar archive is damaged or cut short"):
        open_archive(str(path))


def test_what_is_no_archive_is_refused(root):
    """Other files, and what is not there."""
    with pytest.raises(UserError, match=r"0\.png: neither a folder nor a zip or tar archive"):
        open_archive(str(root / "a" / "0.png"))
    with pytest.raises(UserError, match=r"none\.zip: there is no such file or folder"):
        open_archive(str(root / "none.zip"))


def test_a_damaged_member_of_a_zip_is_named(root, tmp_path):
    """And not the whole archive, the rest of which can be read."""
    path = Path(shutil.make_archive(str(tmp_path / "a"), "zip", root))
    with zipfile.ZipFile(path) as file:
        offset = file.getinfo("a/1.png").header_offset + 60
    whole = bytearray(path.read_bytes())
    whole[offset] ^= 255
    path.write_bytes(whole)
    source = open_archive(str(path))
    assert source.read("a/0.png") == FILES["a/0.png"]
    with pytest.raises(UserError, match=r"a.zip: 'a/1.png' in the zip archive is damaged"):
        source.read("a/1.png")


def test_what_is_derived_is_written_once(root, tmp_path):
    """Anew only when the source or the key changes, and then the outdated copy goes."""
    source, written = root / "a" / "0.png", []

    def derive(key="", part="") -> bytes:
        def write(to: Path) -> None:
            written.append(key)
            to.write_bytes(source.read_bytes() + key.encode())

        return cached(str(source), ".copy", write, part=part, key=key).read_bytes()

    assert derive() == derive() == FILES["a/0.png"] and written == [""]
    assert derive("k") == FILES["a/0.png"] + b"k" and written == ["", "k"]
    source.write_bytes(b"longer" * 100)
    assert derive("k") == b"longer" * 100 + b"k" and len(written) == 3
    assert len(list((tmp_path / "cache").iterdir())) == 1
    derive("k", part="other")  # two parts of one source are beside each other
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_refused(root, tmp_path, monkeypatch):
    """The folder is named with what to do about it; a full disk leaves nothing half written."""

    def full(to: Path) -> None:
        to.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match=r"cache.*No space left.*STEPWELL_CACHE"):
        cached(str(root / "x.txt"), ".copy", full)
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setenv("STEPWELL_CACHE", str(root / "x.txt"))  # a file, not a folder
    with pytest.raises(UserError, match="cannot be written"):
        cached(str(root / "x.txt"), ".copy", full)
