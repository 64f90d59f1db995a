"""Arrays out of a .npz or .npy file, large ones as memory maps, or a sentence on how it is damaged."""

from __future__ import annotations

import lzma
import math
import os
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from stepwell.data.archive import cached, unreadable
from stepwell.data.statistics import CHUNK_BYTES, LARGEST
from stepwell.errors import UserError
from stepwell.progress import counted

MAP_BYTES_FROM = 256 * 2**20  # arrays at least this large stay on disk

# What NumPy lets through of the parser that it hands a header to. It never runs code in it.
_HEADER_ERRORS = (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)

Members = dict[str, zipfile.ZipInfo]


def read_members(path: str) -> Members:
    """Returns the arrays' names (without .npy) and places; nothing is read but the zip's directory."""
    try:
        with zipfile.ZipFile(path) as file:
            found = {info.filename[:-4]: info for info in file.infolist() if info.filename.endswith(".npy")}
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file.") from error
    except (zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{path}: not a .npz file, or cut short; write it with numpy.savez.") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not found:
        raise UserError(
            f"{path}: there are no arrays in it; write it with numpy.savez(..., x_train=, y_train=)."
        )
    return found


def read_array(path: str, members: Members, name: str) -> np.ndarray:
    """Returns one array; a large one as a memory map, in place if it is stored uncompressed."""
    info = members[name]
    try:
        if info.file_size >= MAP_BYTES_FROM:
            if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
                return _map(path, name, _offset(path, info))
            file = cached(path, ".npy", lambda to: _extract(path, info, to), part=name)
            return _map(str(file), name, 0)
        with zipfile.ZipFile(path) as archive, archive.open(info) as member:
            return _read(path, name, member)
    except UserError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except NotImplementedError as error:
        raise UserError(f"{path}: '{name}' cannot be unpacked; write it with numpy.savez.") from error
    except RuntimeError as error:  # how zipfile says that a password is needed
        raise UserError(f"{path}: '{name}' is encrypted; store it without a password.") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise UserError(
            f"{path}: array '{name}' is damaged or cut short ({error}); write it with numpy.savez."
        ) from error


def read_pair(path: str, members: Members, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns two arrays of a file, such as x and y, which must have as many rows."""
    x, y = (read_array(path, members, name) for name in names)
    for name, array in zip(names, (x, y), strict=True):
        _refuse_empty(path, name, array)
    if len(x) != len(y):
        raise UserError(
            f"{path}: {names[0]} has {len(x)} rows and {names[1]} {len(y)}; they must be as many."
        )
    return x, y


def read_samples(path: str, targets: bool) -> tuple[str, np.ndarray, np.ndarray | None]:
    """Returns what to predict for: the name of x, x, and where `targets` the y beside it, else None.

    x, x_test or x_train of a .npz file, whichever is there first, or the array of a .npy file.
    """
    if path.endswith(".npy"):
        if targets:
            raise UserError(f"{path}: a .npy file has no targets; evaluate on a .npz file with x and y.")
        name, x, y = "the array", read_npy(path), None
    else:
        members = read_members(path)
        name = next((name for name in ("x", "x_test", "x_train") if name in members), None)
        if name is None:
            raise UserError(f"{path}: there is no array 'x' or 'x_test' in it; it holds {listed(members)}.")
        beside = "y" + name[1:]
        if targets and beside not in members:
            raise UserError(f"{path}: '{name}' has no '{beside}' beside it; it holds {listed(members)}.")
        if targets:
            return name, *read_pair(path, members, (name, beside))
        x, y = read_array(path, members, name), None
    _refuse_empty(path, name, x)
    return name, x, y


def read_npy(path: str) -> np.ndarray:
    """Returns the array of a .npy file; a large one as a memory map."""
    try:
        if os.path.getsize(path) >= MAP_BYTES_FROM:
            return _map(path, path, 0)
        with open(path, "rb") as file:
            return _read(path, path, file)
    except OSError as error:
        raise unreadable(path, error) from error
    except UserError:
        raise
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path}: not a .npy file, or cut short ({error}); write it with numpy.save."
        ) from error


def check_finite(path: str, name: str, array: np.ndarray, most: float = LARGEST) -> None:
    """Raises UserError, naming the row, for what is not finite or above `most`."""
    if array.dtype.kind != "f":
        return
    count = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    with counted(f"checking {name}", len(array)) as advance:
        for start in range(0, len(array), count):
            chunk = np.asarray(array[start : start + count])
            good = np.isfinite(chunk)
            with np.errstate(invalid="ignore", over="ignore"):
                good &= np.abs(chunk) <= most
            if not good.all():
                row = int(np.flatnonzero(~good.reshape(len(chunk), -1).all(1))[0])
                value = chunk[row][~good[row]].ravel()[0] if chunk.ndim > 1 else chunk[row]
                limit = f", and the limit is {most:.2g}" if np.isfinite(value) else ""
                raise UserError(
                    f"{path}: {name} holds {value} in row {start + row} (counted from 0){limit}; "
                    "replace it, or drop the row."
                )
            advance(len(chunk))


def wrong_type(path: str, name: str, array: np.ndarray, needed: str) -> UserError:
    """Returns what to raise for an array that holds something else than is needed."""
    if array.dtype.kind == "c":
        return UserError(
            f"{path}: {name} holds complex numbers ({array.dtype}); store their real and imaginary parts"
            " beside each other."
        )
    return UserError(f"{path}: {name} is of type {array.dtype}; it must hold {needed}.")


def listed(members: Members) -> str:
    """Returns the names of a file's arrays for a message."""
    return ", ".join(f"'{name}'" for name in sorted(members)[:12])


def shape_text(shape: tuple[int, ...]) -> str:
    """Returns a shape for a message: (60, 5)."""
    return "(" + ", ".join(map(str, shape)) + ")"


def _refuse_empty(path: str, name: str, array: np.ndarray) -> None:
    if array.ndim == 0 or len(array) == 0:
        raise UserError(f"{path}: {name} is empty.")


def _read(path: str, name: str, file: Any) -> np.ndarray:
    """Reads one .npy stream; arrays of Python objects are refused before anything could be unpickled."""
    shape, fortran, dtype = _header(path, name, file)
    data = file.read()  # and not what the header asks for, which may be more than there is memory
    _check_size(shape, dtype, len(data))
    flat = np.frombuffer(data, dtype=dtype, count=math.prod(shape))
    return flat.reshape(shape, order="F" if fortran else "C")


def _map(path: str, name: str, offset: int) -> np.ndarray:
    with open(path, "rb") as file:
        file.seek(offset)
        shape, fortran, dtype = _header(path, name, file)
        _check_size(shape, dtype, os.path.getsize(path) - file.tell())
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def _header(path: str, name: str, file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version[0]}.{version[1]} of the .npy format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(file)
    except _HEADER_ERRORS as error:  # NumPy's words are for programmers, and advise to allow pickles
        raise ValueError("its header cannot be read") from error
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"its header gives the shape {shape_text(shape)}")
    if dtype.hasobject:
        raise UserError(
            f"{path}: array '{name}' holds Python objects, which are never loaded (they could run code); "
            "save it as numbers or as text, e.g. numpy.array(values, dtype=float) or dtype=str."
        )
    if dtype.names:
        raise UserError(f"{path}: array '{name}' has named fields; save its columns as one plain array.")
    return shape, fortran, dtype


def _check_size(shape: tuple[int, ...], dtype: np.dtype, present: int) -> None:
    needed = math.prod(shape) * dtype.itemsize
    if not 0 <= needed <= present:
        raise ValueError(f"{present} of {needed} bytes")


def _offset(path: str, info: zipfile.ZipInfo) -> int:
    """Returns where a stored member's bytes begin: after its local header, whose lengths may differ from
    those in the zip's directory (APPNOTE.TXT 4.3.7)."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        header = file.read(30)
    if header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("no local header")
    names, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    return info.header_offset + 30 + names + extra


def _extract(path: str, info: zipfile.ZipInfo, to: Path) -> None:
    with (
        zipfile.ZipFile(path) as archive,
        archive.open(info) as source,
        open(to, "wb") as target,
        counted(f"unpacking {info.filename}", info.file_size) as advance,
    ):
        while True:
            try:
                block = source.read(2**20)
            except OSError as error:  # else `cached` would take it for one of writing
                raise unreadable(path, error) from error
            if not block:
                return
            target.write(block)
            advance(len(block))
