"""Which source a name or path means. A new source is one file and one row."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from stepwell.data import bundled, images, npz, table, text
from stepwell.data.archive import special_kind
from stepwell.data.dataset import DataSet, NewData
from stepwell.data.split import Opened
from stepwell.data.tablefile import listing
from stepwell.errors import UserError


class Source(Protocol):
    """What each source's module offers; all but text, whose windows follow one another, `opened` too."""

    def load(self, config: Any, /) -> DataSet: ...

    def read_new(self, preparation: dict[str, Any], path: str, targets: bool, /) -> NewData: ...


SOURCES: dict[str, tuple[type[Any], Any]] = {
    "bundled": (bundled.BundledData, bundled),
    "npz": (npz.NpzData, npz),
    "table": (table.TableData, table),
    "images": (images.ImageData, images),
    "text": (text.TextData, text),
}

BUNDLED = ("digits", "iris", "wine", "breast_cancer", "diabetes")

_ENDINGS = {
    ".npz": "npz",
    ".csv": "table",
    ".tsv": "table",
    ".parquet": "table",
    ".txt": "text",
    ".zip": "images",
    ".tar": "images",
    ".tgz": "images",
    ".tar.gz": "images",
    ".tar.xz": "images",
    ".tar.bz2": "images",
}

_TO_GIVE = {  # what a run was trained on, and which new files it takes; the others take any ending
    "npz": ("arrays", "a .npz or .npy file"),
    "images": ("images", "an image, or a folder, a .zip or a .tar of images"),
}


def source_of(name: str) -> str:
    """The row of SOURCES for a bundled set's name or a path, by the path's ending; a folder is of images."""
    if name in BUNDLED:
        return "bundled"
    path = Path(name).expanduser()
    if path.is_dir():
        return "images"
    _require_file(f"data.name={name}", path)
    for ending, source in _ENDINGS.items():
        if name.lower().endswith(ending):
            if not path.exists():
                raise UserError(f"data.name={name}: there is no such file{_neighbour(path)}")
            return source
    if path.exists():
        raise UserError(
            f"data.name={name}: this kind of file cannot be read; give a folder of images "
            f"or a file ending in {', '.join(_ENDINGS)}"
        )
    near = difflib.get_close_matches(name, BUNDLED, 1)
    hint = f"; did you mean {near[0]}?" if near else _neighbour(path)
    hint = hint or f"; give one of {', '.join(BUNDLED)}, a file or a folder"
    raise UserError(f"data.name={name}: there is no bundled set and no file of this name{hint}")


def load(config: Any) -> DataSet:
    """Reads, splits and prepares the data that a `data` section describes."""
    return noted(SOURCES[source_of(config.name)][1].load(config))


def opened(config: Any) -> Opened:
    """Reads the data that a `data` section describes, to be split again and again.

    Raises UserError for text: what is held out would be foretold by what stands around it.
    """
    source = source_of(config.name)
    if source == "text":
        raise UserError(
            f"data.name={config.name}: a text is not split into folds, since the parts beside a held-out one "
            "foretell it: its end is the test part (data.test)"
        )
    return SOURCES[source][1].opened(config)


def noted(data: DataSet) -> DataSet:
    """The data, with notes on the classes that have no sample in the validation or the test part."""
    if data.task in ("binary", "multi-class"):
        parts = {"validation": data.validation, "test": data.test}
        notes = [_absent(data.classes, part.targets, name) for name, part in parts.items() if len(part)]
        data.notes += [note for note in notes if note]
    return data


def read_new(preparation: dict[str, Any], path: str, targets: bool = False) -> NewData:
    """Reads a new file as the training data was read, with the training data's statistics.

    Raises UserError where the file is missing or does not fit what the model was trained on.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise UserError(f"{path}: there is no such file{_neighbour(file)}")
    _require_file(path, file)
    _require_kind(preparation["source"], file)
    return SOURCES[preparation["source"]][1].read_new(preparation, path, targets)


def _require_kind(source: str, file: Path) -> None:
    """Raises UserError for a file whose ending says that it is of another source than the training data."""
    name = file.name.lower()
    other = file.is_dir() or name.endswith(tuple(end for end, kind in _ENDINGS.items() if kind != "images"))
    own = file.is_dir() if source == "images" else name.endswith(".npz")
    if other and not own and source in _TO_GIVE:
        what, give = _TO_GIVE[source]
        raise UserError(f"{file}: this run was trained on {what}, so give {give}")


def _require_file(called: str, path: Path) -> None:
    if kind := special_kind(path):
        raise UserError(f"{called}: this is a {kind}: save it as a file first")


def _neighbour(path: Path) -> str:
    """Returns "; did you mean …?" where the folder has a file, or a folder, of nearly this name."""
    try:
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], 1, 0.7)
    except OSError:
        return ""
    return f"; did you mean {path.with_name(near[0])}?" if near else ""


def _absent(classes: list[str], targets: Tensor, part: str) -> str | None:
    """Returns a note on the classes that have no sample among targets (N,), up to five of them by name."""
    counts = torch.bincount(targets, minlength=len(classes)).tolist()
    absent = [name for name, count in zip(classes, counts, strict=True) if not count]
    if not absent:
        return None
    if len(absent) == 1:
        return f"class {absent[0]!r} has no sample in the {part} part, so its recall is undefined there."
    return (
        f"classes {listing(absent, 5)} have no sample in the {part} part, so their recall is undefined there."
    )
