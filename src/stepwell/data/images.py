"""Image folders, plain or in a zip or tar: one folder a class, decoded once or batch by batch."""

from __future__ import annotations

import functools
import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from pydantic import Field
from torch import Tensor

from stepwell.data.archive import Archive, SingleFile, open_archive
from stepwell.data.dataset import DataSet, Inputs, NewData, Part, TensorInputs
from stepwell.data.split import SplitConfig, split_by
from stepwell.data.statistics import batches, standardization
from stepwell.errors import UserError

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
)
# Only formats that are plain pixels: PIL would hand others to helper programs (EPS to Ghostscript).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
Image.init()  # PIL otherwise loads the rarer formats only when it is asked to try all of them
MAX_PIXELS = 89_478_485  # PIL's own bound: 256 MiB as RGB
PROBED = 64  # images whose headers say, before anything is decoded, what the folder holds
STATISTICS_FROM = 4096  # images that mean and deviation are taken from where there are more
_PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_SECONDS_BEFORE_PROGRESS = 2.0

Mode = Literal["L", "RGB"]


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


class DecodedImages(TensorInputs):
    """Images in memory, (N, C, H, W) uint8. files: the name of each."""

    def __init__(self, values: Tensor, files: list[str]) -> None:
        super().__init__(values)
        self.files = files


class ImageFiles:
    """Images decoded by threads whenever a batch is asked for. files: the name of each."""

    resident = False

    def __init__(self, decoder: Decoder, files: list[str], workers: int) -> None:
        self.decoder, self.files, self.workers = decoder, files, workers
        self.shape = decoder.shape

    def __len__(self) -> int:
        return len(self.files)

    def gather(self, index: Tensor) -> Tensor:
        return self.decoder.decode_all([self.files[i] for i in index.tolist()], self.workers)


class _Coloured(Exception):
    """A coloured image came up where all were taken for grey."""


@dataclass
class Decoder:
    """Turns the files of one archive into pixels.

    mode: "L" (one channel) or "RGB". size: scale to size × size, or None.
    width, height: of every image. reference: a file of these measures, for messages.
    strict: raise _Coloured, rather than drop the colours, where mode is "L".
    """

    archive: Archive
    mode: Mode
    size: int | None
    width: int
    height: int
    reference: str
    strict: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return (1 if self.mode == "L" else 3, self.height, self.width)

    def decode(self, name: str) -> Image.Image:
        """Returns one image, upright, in the right mode and size; UserError naming the file if it cannot."""
        where = self.archive.where(name)
        image = _open(self.archive, name)
        try:
            if self.size is not None:
                image.draft(None, (2 * self.size, 2 * self.size))  # JPEG: skip detail that scaling would drop
            image.load()
            # Looking for an orientation takes longer than decoding a small JPEG that has none.
            if image.format != "JPEG" or "exif" in image.info or "xmp" in image.info:
                image = ImageOps.exif_transpose(image)
        except Exception as error:  # PIL reports damage by OSError, SyntaxError, ValueError, struct.error, …
            raise _damaged(where, error) from error
        if self.strict and self.mode == "L" and image.mode not in _GREY:
            raise _Coloured(name)
        image = _convert(image, self.mode, where)
        if self.size is not None and image.size != (self.size, self.size):
            image = ImageOps.fit(image, (self.size, self.size), Image.Resampling.BILINEAR)
        if image.size != (self.width, self.height):
            raise _mixed_sizes(self, name, image.size)
        return image

    def decode_into(self, names: Sequence[str], out: np.ndarray) -> int:
        """Fills out (n, C, H, W); returns n."""
        channels, height, width = self.shape
        pixels = np.empty((len(names), height * width * channels), dtype=np.uint8)
        for i, name in enumerate(names):
            pixels[i] = np.frombuffer(self.decode(name).tobytes(), dtype=np.uint8)
        out[:] = pixels.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
        return len(names)

    def decode_all(
        self, names: Sequence[str], workers: int, advance: Callable[[int], None] | None = None
    ) -> Tensor:
        """Returns (n, C, H, W) uint8, the same whatever the number of threads."""
        values = torch.empty((len(names), *self.shape), dtype=torch.uint8)
        out = values.numpy()
        # Small images: many a task, as starting one costs as much as an image. Few images: spread evenly.
        step = max(1, min(64, -(-len(names) // (4 * workers))))

        def some(start: int) -> int:
            return self.decode_into(names[start : start + step], out[start : start + step])

        starts = range(0, len(names), step)
        for done in map(some, starts) if workers == 1 else _pool(workers).map(some, starts):
            if advance is not None:
                advance(done)
        return values


def load(config: ImageData) -> DataSet:
    """Finds the images and their classes, splits off the parts that have no folder, decodes.

    In memory (resident) where the pixels take up to half of the free memory, else batch by batch.
    Grey if all images are, else RGB; transparent ones are put on white; of animations the first frame.
    """
    archive = open_archive(config.name)
    images, notes = _images(archive)
    found = _parts(archive, images, notes)
    classes = _classes(archive, found)
    names, labels = _split(config, found, classes)
    inputs, decoder = _inputs(archive, names, config)
    number = {name: i for i, name in enumerate(images)}
    parts = {
        part: Part(
            inputs[part], labels[part], torch.tensor([number[n] for n in names[part]], dtype=torch.int64)
        )
        for part in ("train", "validation", "test")
    }
    shift, scale, note = _statistics(inputs["train"])
    return DataSet(
        name=Path(config.name).name.split(".")[0] or config.name,
        kind="image",
        task="binary" if len(classes) == 2 else "multi-class",
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        preparation={
            "source": "images",
            "classes": classes,
            "shape": list(decoder.shape),
            "size": config.size,
            "mode": decoder.mode,
        },
        input_shape=decoder.shape,
        outputs=len(classes),
        classes=classes,
        targets=["class"],
        input_shift=shift,
        input_scale=scale,
        fingerprint=archive.fingerprint(),
        notes=notes + note,
    )


def read_new(preparation: dict[str, Any], path: str, targets: bool) -> NewData:
    """Reads one image, a folder (flat or with class folders) or an archive, prepared as in training.

    targets: take the classes from the folders' names.
    """
    import polars

    path = os.path.expanduser(path)
    single = os.path.isfile(path) and path.lower().endswith(EXTENSIONS)
    archive = SingleFile(path) if single else open_archive(path)
    images, _ = _images(archive)
    classes: list[str] = preparation["classes"]
    numbers = None
    if targets:
        numbers = torch.tensor([_class_of(archive, name, classes) for name in images], dtype=torch.int64)
    _, height, width = preparation["shape"]
    decoder = Decoder(
        archive, preparation["mode"], preparation["size"], width, height, reference="the training images"
    )
    inputs: Inputs = ImageFiles(decoder, images, _workers(0))
    if _fits(len(images), decoder.shape):
        inputs = _decoded(decoder, images, _workers(0))
    return NewData(inputs, polars.DataFrame({"file": images}), numbers)


# ---- finding images and classes


def _images(archive: Archive) -> tuple[list[str], list[str]]:
    """Returns the image files' names, sorted, and notes on what is left out."""
    images = [name for name in archive.names if name.lower().endswith(EXTENSIONS)]
    if not images:
        raise UserError(f"{archive.path}: there are no images in it ({', '.join(EXTENSIONS)}).")
    other = len(archive.names) - len(images)
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


def _split(
    config: ImageData, found: dict[str, dict[str, str]], classes: list[str]
) -> tuple[dict[str, list[str]], dict[str, Tensor]]:
    """Returns the files and their classes' numbers of each part, of which some may have to be drawn."""
    index = {name: i for i, name in enumerate(classes)}
    names = {part: list(files) for part, files in found.items()}
    labels = {
        part: torch.tensor([index[name] for name in files.values()], dtype=torch.int64)
        for part, files in found.items()
    }
    files, numbers = names["train"], labels["train"]
    drawn = split_by(config, len(files), numbers.numpy(), own=found.keys())
    for part, rows in zip(("train", "validation", "test"), drawn, strict=True):
        if part == "train" or part not in found:
            names[part] = [files[i] for i in rows.tolist()]
            labels[part] = numbers[torch.from_numpy(rows)]
    return names, labels


def _class_of(archive: Archive, name: str, classes: list[str]) -> int:
    for folder in reversed(name.split("/")[:-1]):
        if folder in classes:
            return classes.index(folder)
    raise UserError(
        f"{archive.where(name)}: the image is not in a folder named after a class ({', '.join(classes[:10])}"
        f"{', …' if len(classes) > 10 else ''})."
    )


# ---- decoding


def _inputs(
    archive: Archive, names: dict[str, list[str]], config: ImageData
) -> tuple[dict[str, Inputs], Decoder]:
    every = [name for part in ("train", "validation", "test") for name in names[part]]
    probed = every[:: max(1, len(every) // PROBED)]
    decoder = _probe(archive, probed, config.size)
    workers = _workers(config.workers)
    in_memory = _fits(len(every), decoder.shape) if config.in_memory is None else config.in_memory
    if in_memory:
        if not _fits(len(every), decoder.shape, share=1.0):
            raise UserError(
                f"{archive.path}: the {len(every)} images do not fit into memory "
                f"({free_memory() / 2**30:.1f} GiB are free); leave out data.in_memory=true, "
                "or choose a smaller data.size."
            )
        try:
            values = _decoded(decoder, every, workers).values
        except _Coloured:  # the few that were probed were grey
            decoder.mode = "RGB"
            values = _decoded(decoder, every, workers).values
        # In the parts' order, so that each part is a view and nothing is copied.
        pieces = values.split([len(names[part]) for part in ("train", "validation", "test")])
        decoded = zip(("train", "validation", "test"), pieces, strict=True)
        return {part: DecodedImages(piece, names[part]) for part, piece in decoded}, decoder
    if decoder.mode == "L" or config.size is None:
        # What would be found out in memory must not come up in the middle of the first epoch.
        decoder = _probe(archive, every, config.size)
    decoder.strict = False
    return {part: ImageFiles(decoder, files, workers) for part, files in names.items()}, decoder


def _probe(archive: Archive, names: list[str], size: int | None) -> Decoder:
    """Reads the headers: grey if all are, and, unless they are scaled, all of one size."""
    decoder = Decoder(archive, "L", size, size or 0, size or 0, names[0], strict=True)
    for name in names:
        image = _open(archive, name)
        if image.mode not in _GREY:
            decoder.mode = "RGB"
        if size is not None:
            continue
        try:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF orientation: lies on its side
        except Exception as error:
            raise _damaged(archive.where(name), error) from error
        measures = (image.height, image.width) if turned else (image.width, image.height)
        if name == names[0]:
            decoder.width, decoder.height = measures
        elif measures != (decoder.width, decoder.height):
            raise _mixed_sizes(decoder, name, measures)
    return decoder


def _decoded(decoder: Decoder, names: list[str], workers: int) -> DecodedImages:
    with _progress(len(names)) as advance:
        return DecodedImages(decoder.decode_all(names, workers, advance), names)


def _open(archive: Archive, name: str) -> Image.Image:
    where = archive.where(name)
    data = archive.read(name)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{where}: the image claims more than {MAX_PIXELS} pixels; scale it down.") from error
    except Exception as error:
        raise _damaged(where, error) from error
    if image.width * image.height > MAX_PIXELS:
        raise UserError(f"{where}: the image claims more than {MAX_PIXELS} pixels; scale it down.")
    return image


def _convert(image: Image.Image, mode: Mode, where: str) -> Image.Image:
    if image.mode == mode:
        return image
    if image.mode == "F":
        raise UserError(f"{where}: the image has floating-point pixels; store arrays as .npz instead.")
    if image.mode.startswith("I"):  # 16 bits: PIL's own conversion would cut everything above 255 to white
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        upper = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", upper.size, "white"), upper)
    return image if image.mode == mode else image.convert(mode)


def _damaged(where: str, error: Exception) -> UserError:
    reason = "it is no image" if isinstance(error, Image.UnidentifiedImageError) else str(error)
    return UserError(f"{where}: the image is damaged or cut short ({reason}); replace or remove it.")


def _mixed_sizes(decoder: Decoder, name: str, measures: tuple[int, int]) -> UserError:
    return UserError(
        f"{decoder.archive.where(name)}: the image is {measures[0]} × {measures[1]} pixels, but "
        f"{decoder.reference} {decoder.width} × {decoder.height}; scale all with data.size, "
        "e.g. data.size=32."
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


def _workers(wanted: int) -> int:
    if wanted:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="decode")  # PIL decodes without Python's lock


# A forked process has the pool but not its threads: it would wait for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _fits(count: int, shape: tuple[int, ...], share: float = 0.5) -> bool:
    return count * int(np.prod(shape, dtype=np.int64)) <= share * free_memory()


def free_memory() -> int:
    """Returns the bytes of memory that can be had without swapping, a container's limit included."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux: half of what is built in
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except OSError:
        pass
    return max(0, free)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of images done; silent in the first two seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    begun, done, said, terminal = time.monotonic(), 0, False, sys.stderr.isatty()
    columns = (TextColumn("decoding images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=total)

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        if time.monotonic() - begun >= _SECONDS_BEFORE_PROGRESS:
            if not said:
                said = True
                bar.start() if terminal else print(f"decoding {total} images", file=sys.stderr)
            bar.update(task, completed=done)

    try:
        yield advance
    finally:
        if said and terminal:
            bar.stop()
