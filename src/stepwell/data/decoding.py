"""Images out of their files: headers first, then pixels by threads, in memory or batch by batch."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from stepwell.data.archive import Archive
from stepwell.data.dataset import Inputs, TensorInputs
from stepwell.errors import UserError
from stepwell.progress import counted

# Only formats that are plain pixels: PIL would hand others to helper programs (EPS to Ghostscript).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
Image.init()  # PIL otherwise loads the rarer formats only when it is asked to try all of them
MAX_PIXELS = 89_478_485  # PIL's own bound: 256 MiB as RGB
PROBED = 64  # images whose headers say, before anything is decoded, what the folder holds
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_CGROUP = Path("/sys/fs/cgroup")
_CONTAINER_MEMORY = (  # limit and use in bytes: cgroup version 2, then 1, which says no limit as 2**63
    (_CGROUP / "memory.max", _CGROUP / "memory.current", _CGROUP / "memory.stat"),
    (
        _CGROUP / "memory/memory.limit_in_bytes",
        _CGROUP / "memory/memory.usage_in_bytes",
        _CGROUP / "memory/memory.stat",
    ),
)

Mode = Literal["L", "RGB"]


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


def decode_parts(
    archive: Archive, names: dict[str, list[str]], size: int | None, workers: int, in_memory: bool | None
) -> tuple[dict[str, Inputs], Decoder]:
    """Returns the images of each part, and how they were decoded.

    names: the files of each part. size: scale to size × size. workers: threads, 0 for one a core.
    in_memory: decode all at once, or batch by batch; None: all at once in up to half of the free memory.
    Grey if all images are, else RGB.

    Raises UserError, naming the file, for an image that is damaged or of another size than the others.
    """
    every = [name for files in names.values() for name in files]
    probed = every[:: max(1, len(every) // PROBED)]
    decoder = _probe(archive, probed, size)
    workers = workers or _cores()
    if in_memory is None:
        in_memory = _fits(len(every), decoder.shape)
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
        pieces = values.split([len(files) for files in names.values()])
        decoded = zip(names.items(), pieces, strict=True)
        return {part: DecodedImages(piece, files) for (part, files), piece in decoded}, decoder
    if decoder.mode == "L" or size is None:
        # What would be found out in memory must not come up in the middle of the first epoch.
        decoder = _probe(archive, every, size)
    decoder.strict = False
    return {part: ImageFiles(decoder, files, workers) for part, files in names.items()}, decoder


def decode_new(decoder: Decoder, names: list[str]) -> Inputs:
    """Returns the images in memory where half of what is free suffices, else from their files."""
    if _fits(len(names), decoder.shape):
        return _decoded(decoder, names, _cores())
    return ImageFiles(decoder, names, _cores())


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
    with counted(f"decoding {len(names):,} images", len(names)) as advance:
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


def _cores() -> int:
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
    for limit, used, statistics in _CONTAINER_MEMORY:
        with suppress(OSError, ValueError):  # the other version's file, or "max": no limit
            left = int(limit.read_text()) - int(used.read_text())
            # Files that were read count as used, and give way as soon as memory is asked for.
            cached = dict(line.rsplit(maxsplit=1) for line in statistics.read_text().splitlines())
            left += int(cached.get("total_inactive_file", cached.get("inactive_file", 0)))
            free = min(free, left)
    return max(0, free)
