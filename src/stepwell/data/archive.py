"""Files at rest: a folder, zip or tar read by member name, a file's fingerprint, and the cache folder."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import posixpath
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepwell.errors import UserError
from stepwell.progress import counted

FINGERPRINT_BYTES_UP_TO = 256 * 2**20  # content that a fingerprint covers in full
_SAMPLED_BLOCKS, _BLOCK = 64, 2**20  # what it reads of larger content
_DECOMPRESSORS = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open, b"BZh": bz2.open}


class Archive(ABC):
    """The files below a folder or in a zip or tar, read by name from any thread.

    names: relative, with '/', sorted, so that the order never depends on the file system.
    folders: the folders' names, the empty ones included where the source records them.
    Hidden files and folders ('.x', '__MACOSX') and links inside tars to elsewhere are left out. Nothing
    is unpacked beside the source.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.names: list[str] = []
        self.folders: list[str] = []
        self.hidden = 0  # hidden files, left out
        self.special = 0  # pipes, sockets and devices, left out

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Returns the bytes of one file; UserError if it cannot be read."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns a hash that changes when the content does."""

    def where(self, name: str) -> str:
        """Returns how to call a file in a message."""
        return f"{self.path.rstrip('/')}/{name}"

    def _settle(self, names: list[str], folders: set[str]) -> None:
        visible = [name for name in names if not is_hidden(name)]
        self.hidden = len(names) - len(visible)
        self.names = sorted(visible)
        for name in visible:
            folder = posixpath.dirname(name)
            while folder and folder not in folders:
                folders.add(folder)
                folder = posixpath.dirname(folder)
        self.folders = sorted(folder for folder in folders if folder and not is_hidden(folder))


class Folder(Archive):
    """The files below a folder on disk."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        names: list[str] = []
        folders: set[str] = set()
        seen: set[str] = set()
        for here, below, files in os.walk(path, onerror=self._refuse, followlinks=True):
            real = os.path.realpath(here)
            if real in seen:  # a link that leads back up would never end
                below.clear()
                continue
            seen.add(real)
            below[:] = [name for name in below if not is_hidden(name)]
            prefix = os.path.relpath(here, path).replace(os.sep, "/") + "/"
            prefix = "" if prefix == "./" else prefix
            # To open a pipe without a writer would wait for ever.
            kept = [name for name in files if not special_kind(os.path.join(here, name))]
            self.special += len(files) - len(kept)
            names += [prefix + name for name in kept]
            folders.update(prefix + name for name in below)
        self._settle(names, folders)

    def _refuse(self, error: OSError) -> None:
        raise UserError(f"{error.filename}: the folder cannot be read ({error.strerror}).") from error

    def read(self, name: str) -> bytes:
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                return file.read()
        except OSError as error:
            raise unreadable(self.where(name), error) from error

    def fingerprint(self) -> str:
        """Covers names and sizes, and the content: above 256 MiB that of some files, always the same."""
        digest, sizes = hashlib.blake2b(digest_size=16), {}
        for name in self.names:
            try:
                sizes[name] = os.stat(os.path.join(self.path, name)).st_size
            except OSError as error:
                raise unreadable(self.where(name), error) from error
            digest.update(f"{name}\0{sizes[name]}\n".encode(errors="surrogateescape"))
        left = total = sum(sizes.values())
        names = self.names
        if total > FINGERPRINT_BYTES_UP_TO:
            left, names = _SAMPLED_BLOCKS * _BLOCK, sorted(names, key=_short_hash)
        for name in names:
            _add_content(digest, os.path.join(self.path, name), sizes[name])
            left -= sizes[name]
            if left <= 0:
                break
        return digest.hexdigest()


class SingleFile(Archive):
    """One file, under its own name."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.names = [os.path.basename(path)]

    def read(self, name: str) -> bytes:
        with _open(self.path) as file:
            return file.read()

    def where(self, name: str) -> str:
        return self.path

    def fingerprint(self) -> str:
        return file_fingerprint(self.path)


class Zip(Archive):
    """The files in a zip archive."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        try:
            self._file = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise UserError(f"{path}: the zip archive cannot be opened ({error}); is it complete?") from error
        members = {_normal(info.filename): info for info in self._file.infolist()}
        self._members = {name: info for name, info in members.items() if not info.is_dir()}
        self._settle(list(self._members), {name for name, info in members.items() if info.is_dir()})

    def read(self, name: str) -> bytes:
        try:
            return self._file.read(self._members[name])  # ZipFile locks its file: safe from several threads
        except NotImplementedError as error:
            raise UserError(f"{self.path}: '{name}' cannot be unpacked ({error}); pack it anew.") from error
        except RuntimeError as error:  # how zipfile says that a password is needed
            raise UserError(f"{self.path}: '{name}' is encrypted; store it without a password.") from error
        except (OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
            raise UserError(f"{self.path}: '{name}' in the zip archive is damaged ({error}).") from error

    def fingerprint(self) -> str:
        return file_fingerprint(self.path)


class Tar(Archive):
    """A tar. A compressed one can only be read from its start, so it is decompressed once into the cache."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        with _open(path) as file:
            start = file.read(6)
        plain = path
        for magic, expand in _DECOMPRESSORS.items():
            if start.startswith(magic):
                plain = str(cached(path, ".tar", lambda to, expand=expand: _decompress(expand, path, to)))
        self._where: dict[str, tuple[int, int]] = {}  # name -> offset, bytes
        try:
            with tarfile.open(plain, "r:") as tar:
                folders = self._find(tar)
                end = tar.offset
        except (tarfile.TarError, EOFError) as error:
            raise UserError(f"{path}: the tar archive cannot be read ({error}); is it complete?") from error
        self._file = open(plain, "rb")  # noqa: SIM115 - open as long as the archive
        self._lock = threading.Lock()
        self._file.seek(end)
        if self._file.read(512) != bytes(512):  # tarfile takes a damaged header for the end of the archive
            self._file.close()
            raise UserError(f"{path}: the tar archive is damaged or cut short; is it complete?")
        self._settle(list(self._where), folders)

    def _find(self, tar: tarfile.TarFile) -> set[str]:
        """Fills in where each file's bytes are; returns the folders."""
        folders: set[str] = set()
        for member in tar:
            name = _normal(member.name)
            if member.isdir():
                folders.add(name)
            elif member.isreg() and not member.issparse():
                self._where[name] = (member.offset_data, member.size)
            elif member.islnk() and _normal(member.linkname) in self._where:
                self._where[name] = self._where[_normal(member.linkname)]
        return folders

    def read(self, name: str) -> bytes:
        offset, size = self._where[name]
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(size)
        if len(data) != size:
            raise UserError(f"{self.path}: the tar archive ends inside '{name}'; is it complete?")
        return data

    def fingerprint(self) -> str:
        return file_fingerprint(self.path)


def open_archive(path: str) -> Archive:
    """Opens a folder, .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz, whichever the content says it is."""
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return Folder(path)
    if not os.path.exists(path):
        raise UserError(f"{path}: there is no such file or folder.")
    with _open(path) as file:
        start = file.read(512)
    if zipfile.is_zipfile(path):
        return Zip(path)
    if start[257:262] == b"ustar" or start.startswith(tuple(_DECOMPRESSORS)) or tarfile.is_tarfile(path):
        return Tar(path)
    raise UserError(f"{path}: neither a folder nor a zip or tar archive (is it damaged or cut short?).")


def is_hidden(name: str) -> bool:
    """Whether a file or a folder above it begins with a dot or is macOS's own."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_utf8(name: str) -> bool:
    """Whether a name can be written: Python makes half pairs ("\\udcff") of bytes that are no UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def special_kind(path: str | Path) -> str | None:
    """Returns "pipe", "socket" or "device" for what is none of file, folder and nothing; else None."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # whoever opens it says what is wrong
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"


def unreadable(path: str, error: OSError) -> UserError:
    """Returns what to raise where the system does not let a file be read."""
    return UserError(f"{path}: the file cannot be read ({error.strerror or error}).")


def file_fingerprint(path: str) -> str:
    """Returns blake2b over the file's bytes; above 256 MiB over its size and 64 blocks of 1 MiB of it.

    Never over a time: a copy of the data, or a touched file, is the same data.
    """
    digest, size = hashlib.blake2b(digest_size=16), os.stat(path).st_size
    if size > FINGERPRINT_BYTES_UP_TO:
        digest.update(f"{size}\0".encode())
    _add_content(digest, path, size)
    return digest.hexdigest()


def _add_content(digest: Any, path: str, size: int) -> None:
    """Adds a file's bytes; of more than 256 MiB blocks at even distances, the first and last among them."""
    with _open(path) as file:
        if size <= FINGERPRINT_BYTES_UP_TO:
            while block := file.read(_BLOCK):
                digest.update(block)
            return
        for i in range(_SAMPLED_BLOCKS):
            file.seek((size - _BLOCK) * i // (_SAMPLED_BLOCKS - 1))
            digest.update(file.read(_BLOCK))


def cache_folder() -> Path:
    """Returns $STEPWELL_CACHE, or stepwell/ in $XDG_CACHE_HOME, or ~/.cache/stepwell."""
    own = os.environ.get("STEPWELL_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stepwell"


def cached(source: str, suffix: str, write: Callable[[Path], None], part: str = "", key: str = "") -> Path:
    """Returns a file in the cache that `write` derived from `part` of `source`; writes only the first time.

    Made anew when the source's size or time of change, or `key`, differ; the outdated one is removed.
    Written under a temporary name first, so that an interrupted call leaves nothing that looks complete.
    """
    status = os.stat(source)
    origin = _short_hash(f"{os.path.realpath(source)}\0{part}")
    version = _short_hash(f"{status.st_size}\0{status.st_mtime_ns}\0{key}")
    folder = cache_folder()
    file = folder / f"{origin}-{version}{suffix}"
    if file.exists():
        return file
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
        os.close(handle)
        write(Path(temporary))
        os.replace(temporary, file)
    except OSError as error:
        raise UserError(
            f"{folder}: the cache for {source} cannot be written ({error.strerror or error}); "
            "make room, or set STEPWELL_CACHE to another folder."
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    for outdated in folder.glob(f"{origin}-*{suffix}"):
        if outdated != file:
            outdated.unlink(missing_ok=True)
    return file


def _decompress(expand: Callable, path: str, to: Path) -> None:
    total, done = os.path.getsize(path), 0
    with (
        _open(path) as packed,
        expand(packed) as source,
        open(to, "wb") as target,
        counted(f"unpacking {os.path.basename(path)}", total) as advance,
    ):
        while True:
            try:
                block = source.read(2**20)
            except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
                raise UserError(f"{path}: the archive is damaged or cut short ({error}).") from error
            if not block:
                return
            target.write(block)
            advance(packed.tell() - done)
            done = packed.tell()


def _open(path: str):
    try:
        return open(path, "rb")
    except OSError as error:
        raise unreadable(path, error) from error


def _short_hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def _normal(name: str) -> str:
    return posixpath.normpath(name.replace("\\", "/")).lstrip("/")
