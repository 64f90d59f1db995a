"""Image folders, plain or in a zip or tar: one folder a class, decoded once or batch by batch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from stepwell.data.archive import Archive, SingleFile, is_utf8, open_archive
from stepwell.data.dataset import DataSet, Inputs, NewData, Part
from stepwell.data.decoding import DecodedImages, Decoder, decode_new, decode_parts
from stepwell.data.split import Index, Opened, SplitConfig
from stepwell.data.statistics import batches, standardization
from stepwell.errors import UserError

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
)
STATISTICS_FROM = 4096  # images that mean and deviation are taken from where there are more
_PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class ImageData(SplitConfig):
    """A folder or an archive of images."""

    name: str = Field(
        description="folder, .zip or .tar(.gz, .bz2, .xz) with train/CLASS/*, test/CLASS/* or only CLASS/*"
    )
    size: int | None = Field(
        default=None, ge=1, le=4096, description="scale to this height and width, cropping the longer side"
    )
    workers: int = Field(default=0, ge=0, le=1024, description="threads that decode; 0: one a processor core")
    in_memory: bool | None = Field(
        default=None,
        description="decode once and keep all; by default where half of the free memory suffices",
    )


def load(config: ImageData) -> DataSet:
    """Returns the images, split as the recipe says where there are no folders for the parts."""
    return opened(config).load(config)


def opened(config: ImageData) -> Opened:
    """Finds the images and their classes; they are decoded when they are first split.

    In memory (resident) where the pixels take up to half of the free memory, else batch by batch.
    Grey if all images are, else RGB; transparent ones are put on white; of animations the first frame.
    """
    archive = open_archive(config.name)
    images, notes = _images(archive)
    found = _parts(archive, images, notes)
    classes = _classes(archive, found)
    class_number = {name: i for i, name in enumerate(classes)}
    number = {name: i for i, name in enumerate(images)}
    class_of = {file: class_number[name] for files in found.values() for file, name in files.items()}
    pool = list(found["train"])
    fingerprint = archive.fingerprint()
    before: list[dict[str, Inputs]] = []  # decoded once, however often they are split
    decoders: list[Decoder] = []

    def prepare(*rows: Index) -> DataSet:
        names = _files(rows, pool, found)
        if not before or (inputs := _gathered(before[0], names)) is None:
            inputs, decoder = decode_parts(archive, names, config.size, config.workers, config.in_memory)
            before[:], decoders[:] = [inputs], [decoder]
        decoder = decoders[0]
        train, validation, test = (
            Part(
                inputs[part],
                torch.tensor([class_of[name] for name in names[part]], dtype=torch.int64),
                torch.tensor([number[name] for name in names[part]], dtype=torch.int64),
            )
            for part in ("train", "validation", "test")
        )
        shift, scale, note = _statistics(inputs["train"])
        about = {"shape": list(decoder.shape), "size": config.size, "mode": decoder.mode}
        return DataSet(
            name=Path(config.name).name.split(".")[0] or config.name,
            kind="image",
            task="binary" if len(classes) == 2 else "multi-class",
            train=train,
            validation=validation,
            test=test,
            preparation={"source": "images", "classes": classes} | about,
            input_shape=decoder.shape,
            outputs=len(classes),
            classes=classes,
            targets=["class"],
            input_shift=shift,
            input_scale=scale,
            fingerprint=fingerprint,
            notes=notes + note,
        )

    labels = [class_of[name] for name in pool]
    return Opened(len(pool), labels, found.keys() - {"train"}, prepare, names=pool)


def read_new(preparation: dict[str, Any], path: str, targets: bool) -> NewData:
    """Reads one image, a folder (flat or with class folders) or an archive, prepared as in training.

    targets: take the classes from the folders' names.
    """
    import polars

    path = os.path.expanduser(path)
    single = os.path.isfile(path) and path.lower().endswith(EXTENSIONS)
    archive = SingleFile(path) if single else open_archive(path)
    images, _ = _images(archive)
    for name in images:
        _require_utf8(archive, name)
    classes: list[str] = preparation["classes"]
    numbers = None
    if targets:
        numbers = torch.tensor([_class_of(archive, name, classes) for name in images], dtype=torch.int64)
    _, height, width = preparation["shape"]
    decoder = Decoder(
        archive, preparation["mode"], preparation["size"], width, height, reference="the training images"
    )
    return NewData(decode_new(decoder, images), polars.DataFrame({"file": images}), numbers)


# ---- finding images and classes


def _images(archive: Archive) -> tuple[list[str], list[str]]:
    """Returns the image files' names, sorted, and notes on what is left out."""
    images = [name for name in archive.names if name.lower().endswith(EXTENSIONS)]
    if not images:
        raise UserError(f"{archive.path}: there are no images in it ({', '.join(EXTENSIONS)}).")
    other = len(archive.names) - len(images) + archive.special
    notes = [f"{other} files that are not images are left out"] if other else []
    notes += [f"{archive.hidden} hidden files are left out"] if archive.hidden else []
    return images, notes


def _parts(archive: Archive, images: list[str], notes: list[str]) -> dict[str, dict[str, str]]:
    """Returns {part: {file: class}}; "train" is always there."""
    root = _root(images)
    tops = {name[len(root) :].split("/")[0] for name in images if "/" in name[len(root) :]}
    part_of = {top: _PARTS[top.lower()] for top in tops if top.lower() in _PARTS}
    if part_of and len(part_of) == len(tops) and "train" not in part_of.values():
        raise UserError(f"{archive.path}: there is a folder '{min(tops)}' but no 'train' beside it.")
    if "train" not in part_of.values():
        return {"train": _by_class(archive, images, root, notes)}
    ignored = sorted(tops - part_of.keys())
    if ignored:
        notes.append(f"folders beside train/ that are left out: {', '.join(ignored)}")
    parts: dict[str, dict[str, str]] = {}
    for top, part in sorted(part_of.items()):
        inside = [name for name in images if name.startswith(f"{root}{top}/")]
        if part != "train" and all("/" not in name[len(root) + len(top) + 1 :] for name in inside):
            notes.append(f"the {len(inside)} images in {top}/ have no class folders and are left out")
        else:
            parts.setdefault(part, {}).update(_by_class(archive, inside, f"{root}{top}/", notes))
    return parts


def _root(images: list[str]) -> str:
    """Returns the folder that holds the parts or classes: single folders around them are skipped."""
    root = ""
    while True:
        below = [name[len(root) :].split("/") for name in images]
        top = below[0][0]
        # A folder with images of its own is a class.
        if top.lower() in _PARTS or any(name[0] != top or len(name) < 3 for name in below):
            return root
        root += top + "/"


def _by_class(archive: Archive, images: list[str], root: str, notes: list[str]) -> dict[str, str]:
    found = {name: name[len(root) :].split("/")[0] for name in images if "/" in name[len(root) :]}
    if not found:
        raise UserError(
            f"{archive.where(root)}: the {len(images)} images there have no class folders; "
            "put those of each class into a folder of its name."
        )
    if len(found) < len(images):
        notes.append(f"{len(images) - len(found)} images outside the class folders are left out")
    classes = set(found.values())
    for folder in archive.folders:
        if folder.startswith(root) and "/" not in folder[len(root) :] and folder[len(root) :] not in classes:
            raise UserError(
                f"{archive.where(folder)}: there are no images in this class folder; add some, or remove it."
            )
    return found


def _classes(archive: Archive, found: dict[str, dict[str, str]]) -> list[str]:
    classes = sorted(set(found["train"].values()))
    for name in classes:
        _require_utf8(archive, name)
    if len(classes) == 1:
        raise UserError(
            f"{archive.path}: there is one class only ('{classes[0]}'); two folders or more are needed."
        )
    for part, files in found.items():
        for file, name in files.items():
            if name not in classes:
                raise UserError(
                    f"{archive.where(file)}: the {part} part has class '{name}', "
                    "which the training part does not."
                )
    return classes


def _require_utf8(archive: Archive, name: str) -> None:
    if not is_utf8(name):
        raise UserError(f"{archive.path}: the name {name!a} is not UTF-8; rename it.")


def _files(
    rows: tuple[Index, ...], pool: list[str], found: dict[str, dict[str, str]]
) -> dict[str, list[str]]:
    """Returns each part's files: rows of the training folder; where none were drawn, a folder of its own."""
    names = {}
    for part, index in zip(("train", "validation", "test"), rows, strict=True):
        own = part != "train" and part in found and not len(index)
        names[part] = list(found[part]) if own else [pool[i] for i in index.tolist()]
    return names


def _gathered(before: dict[str, Inputs], names: dict[str, list[str]]) -> dict[str, Inputs] | None:
    """Returns the parts out of images that are in memory already; None where one of them is not."""
    pieces = [part for part in before.values() if isinstance(part, DecodedImages)]
    place = {file: (k, i) for k, part in enumerate(pieces) for i, file in enumerate(part.files)}
    if not all(file in place for files in names.values() for file in files):
        return None
    inputs: dict[str, Inputs] = {}
    for part, files in names.items():
        values = torch.empty((len(files), *pieces[0].shape), dtype=torch.uint8)
        where = torch.tensor([place[file] for file in files], dtype=torch.int64).reshape(-1, 2)
        for k, piece in enumerate(pieces):
            values[where[:, 0] == k] = piece.values.index_select(0, where[where[:, 0] == k, 1])
        inputs[part] = DecodedImages(values, files)
    return inputs


def _class_of(archive: Archive, name: str, classes: list[str]) -> int:
    for folder in reversed(name.split("/")[:-1]):
        if folder in classes:
            return classes.index(folder)
    raise UserError(
        f"{archive.where(name)}: the image is not in a folder named after a class ({', '.join(classes[:10])}"
        f"{', …' if len(classes) > 10 else ''})."
    )


def _statistics(inputs: Inputs) -> tuple[Tensor, Tensor, list[str]]:
    """Returns shift and scale (C, 1, 1) of the training part, and a note where that is a sample.

    The same sample in memory and from files: how much memory is free must not change a run.
    """
    if len(inputs) <= STATISTICS_FROM:
        return (*standardization(batches(inputs), (0, 2, 3)), [])
    every = torch.linspace(0, len(inputs) - 1, STATISTICS_FROM).round().long()
    shift, scale = standardization(map(inputs.gather, every.split(128)), (0, 2, 3))
    return shift, scale, [f"mean and deviation of the colours are those of {STATISTICS_FROM} training images"]
