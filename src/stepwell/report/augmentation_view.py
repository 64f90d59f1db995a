"""A picture of what the network sees: training samples beside what augmentation makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from stepwell.data import counter, sources
from stepwell.data.augment import label_changes
from stepwell.data.augment.partners import Mixed
from stepwell.data.augment.pipeline import Augment
from stepwell.data.augment.units import extremes
from stepwell.data.dataset import DataSet
from stepwell.errors import UserError
from stepwell.recipe import Recipe, any_rate, read_recipe, resolve
from stepwell.training import files
from stepwell.training.predict import require_writable

ROWS, EPOCHS = 5, 8
TABLE_ROWS, TABLE_EPOCHS, COLUMNS = 4, 4, 7
WIDTH, MARGIN, GAP = 1280, 24, 10
PAPER, INK, FAINT, RULE = "#ffffff", "#1c1c1c", "#666666", "#dddddd"


@dataclass(frozen=True)
class Sheet:
    """The samples of the sheet: x[0] as they are, x[e] of epoch e; what each shows, by words.

    shares: (epochs, N), how much of a sample is its own; None where nothing is mixed. The partner of the
    sample in a row is that in the next, of the last that in the first.
    """

    x: list[Tensor]
    words: list[str]
    shares: Tensor | None


def write_picture(
    path: str | Path, recipe: str | Path | None = None, changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes a PNG of training samples and of what the recipe's augmentation makes of them, epoch by epoch.

    Rows are samples of different classes. A sample's changes in the k-th column are those of the k-th
    epoch of training; it is mixed with the sample of the next row, whereas training mixes it with any.
    Returns {"file", "samples", "epochs", "methods", "notes"}.
    """
    file = require_writable(path, (".png",), "--augmentation")
    asked = read_recipe(recipe, changes)
    data = sources.load(asked.data)
    whole = resolve(any_rate(asked), data)
    methods = list(whole.augment.settings())
    if not methods:
        raise UserError(
            "there is nothing to see: this recipe does not augment its training samples; give for instance "
            f"augment.{'flip=0.5' if data.kind == 'image' else 'noise=0.1'}"
        )
    image = data.kind == "image"
    sheet = _sheet(whole, data, ROWS if image else TABLE_ROWS, EPOCHS if image else TABLE_EPOCHS)
    title = f"What the network sees of {data.name}"
    subtitle = _said(whole)
    picture = _images(sheet, title, subtitle, data) if image else _table(sheet, title, subtitle, data)
    files.write_atomically(file, lambda temporary: picture.save(temporary, "PNG", optimize=True))
    notes = label_changes.notes(whole.augment, data)
    found = {"file": str(file), "samples": len(sheet.words), "epochs": len(sheet.x) - 1, "methods": methods}
    return {**found, "notes": notes}


def _sheet(recipe: Recipe, data: DataSet, rows: int, epochs: int) -> Sheet:
    index = _different(data, rows)
    augment = Augment.of(recipe.augment, data, torch.device("cpu"))
    seed = counter.key(recipe.seed, 2)
    found, shares = [data.train.gather(index)[0]], []
    for epoch in range(epochs):
        key = counter.key(seed, epoch, 1)  # as `Batches` has it
        x, y = data.train.gather(index, key)
        x, y = augment.apply(x, y, index, key, len(index))
        found.append(x)
        if isinstance(y, Mixed):
            shares.append(y.lam)
    targets = data.train.gather(index)[1]
    return Sheet(found, [_word(data, y) for y in targets], torch.stack(shares) if shares else None)


def _different(data: DataSet, rows: int) -> Tensor:
    """Numbers of training samples: the first ones of some classes, spread over all; else the first ones."""
    targets = data.train.targets
    if data.task not in ("binary", "multi-class"):
        return torch.arange(min(rows, len(targets)))
    every = len(data.classes)
    wanted = [every * k // rows for k in range(rows)] if every > rows else [k % every for k in range(rows)]
    found, seen = [], dict.fromkeys(wanted, 0)
    for k in wanted:
        places = (targets == k).nonzero()[:, 0]
        if seen[k] < len(places):
            found.append(int(places[seen[k]]))
            seen[k] += 1
    return torch.tensor(found)


def _word(data: DataSet, y: Tensor) -> str:
    if data.task == "multi-label":
        return ", ".join(name for name, yes in zip(data.classes, y.tolist(), strict=True) if yes) or "none"
    if data.task == "regression":
        return ", ".join(f"{value:.4g}" for value in y.tolist())
    return data.classes[int(y)]


def _said(recipe: Recipe) -> str:
    """The keys that are on, as words of the command line."""
    words = []
    for name, setting in recipe.augment.settings().items():
        keys = setting.model_dump(exclude_defaults=True, exclude_none=True)
        for key, value in keys.items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            words.append(f"augment.{name}{'' if key == setting.main() else '.' + key}={shown}")
    return "  ".join(words)


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _images(sheet: Sheet, title: str, subtitle: str, data: DataSet) -> Image.Image:
    """A contact sheet; pixels of small images stay squares, large images are scaled down."""
    columns = len(sheet.x)
    left = MARGIN + min(max(_length(word, 15) for word in sheet.words), 150) + 2 * GAP
    cell = (WIDTH - left - MARGIN - GAP * (columns - 1)) // columns
    height, width = sheet.x[0].shape[-2:]
    down = round(cell * height / width) if height < width else cell
    caption = 38 if sheet.shares is not None else 0
    lines = _folded(subtitle, WIDTH - 2 * MARGIN, 14)
    top = MARGIN + 34 + 20 * len(lines) + 34
    foot = 30 if sheet.shares is not None else 0
    picture = Image.new(
        "RGB", (WIDTH, top + len(sheet.words) * (down + caption + GAP) + foot + MARGIN - GAP), PAPER
    )
    draw = ImageDraw.Draw(picture)
    _head(draw, title, lines)
    low, high = extremes(data.train.inputs)
    for column, x in enumerate(sheet.x):
        middle = left + column * (cell + GAP) + cell / 2
        draw.text(
            (middle, top - 20), "original" if column == 0 else f"epoch {column}", FAINT, _font(14), "mm"
        )
        for row, image in enumerate(x):
            y = top + row * (down + caption + GAP)
            tile = _tile(image, low, high, cell, down)
            across, along = round(middle - tile.width / 2), y + (down - tile.height) // 2
            picture.paste(tile, (across, along))
            draw.rectangle((across, along, across + tile.width - 1, along + tile.height - 1), outline=RULE)
            if column == 0:
                draw.text(
                    (left - 2 * GAP, y + down / 2), _cut(sheet.words[row], 150, 15), INK, _font(15), "rm"
                )
            elif sheet.shares is not None:
                _name_both(draw, sheet, column, row, middle, y + down, cell)
    if foot:
        text = "Here each image is mixed with that of the next row; training mixes it with any of its batch."
        draw.text((MARGIN, picture.height - MARGIN), text, FAINT, _font(14), "ls")
    return picture


def _name_both(
    draw: ImageDraw.ImageDraw, sheet: Sheet, column: int, row: int, middle: float, y: float, width: int
) -> None:
    """Under a mixed image whose it is, and by how much."""
    for line, text in enumerate(_both(sheet, column, row)):
        draw.text((middle, y + 10 + 16 * line), _cut(text, width + GAP, 13), INK, _font(13), "mm")


def _both(sheet: Sheet, epoch: int, row: int) -> list[str]:
    """What a sample is a mixture of, the larger share first; less than half a percent is nothing."""
    assert sheet.shares is not None
    share = float(sheet.shares[epoch - 1, row])
    parts = [(share, sheet.words[row]), (1 - share, sheet.words[(row + 1) % len(sheet.words)])]
    return [
        f"{100 * p:.0f} % {word}" for p, word in sorted(parts, key=lambda part: -part[0]) if round(100 * p)
    ]


def _tile(image: Tensor, low: float, high: float, width: int, height: int) -> Image.Image:
    """One image (C, H, W) as pixels, scaled into width × height; values outside of the range are cut off."""
    values = image.to(torch.float64).clamp(low, high)
    pixels = ((values - low) * (255 / max(high - low, 1e-300))).round().to(torch.uint8).numpy()
    shown = pixels[:3].transpose(1, 2, 0) if pixels.shape[0] in (3, 4) else pixels[0]
    tile = Image.fromarray(np.ascontiguousarray(shown)).convert("RGB")
    factor = min(width / tile.width, height / tile.height)
    size = max(round(tile.width * factor), 1), max(round(tile.height * factor), 1)
    return tile.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS)


def _table(sheet: Sheet, title: str, subtitle: str, data: DataSet) -> Image.Image:
    """Some columns of some rows as they are, and in the first epochs; of a sequence its first time step."""
    values = [x.reshape(len(x), -1, x.shape[-1])[:, 0] for x in sheet.x]
    count = min(values[0].shape[1], COLUMNS)
    names = [str(n) for n in data.preparation.get("features") or ()][:count]
    names = names if len(names) == count else [f"feature {k + 1}" for k in range(count)]
    lines = _folded(subtitle, WIDTH - 2 * MARGIN, 14)
    left, top, line = MARGIN + 300, MARGIN + 34 + 20 * len(lines) + 50, 24
    every, step = len(sheet.words), (WIDTH - MARGIN - left) // count
    height = top + every * (line * len(values) + 14) + 30 + MARGIN
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(picture)
    _head(draw, title, lines)
    for k, name in enumerate(names):
        draw.text((left + (k + 1) * step, top - 22), _cut(name, step - 12, 14), FAINT, _font(14), "rm")
    for row, word in enumerate(sheet.words):
        y = top + row * (line * len(values) + 14)
        draw.line((MARGIN, y - 8, WIDTH - MARGIN, y - 8), RULE)
        for epoch, x in enumerate(values):
            at, color = y + epoch * line + line / 2 - 4, INK if epoch == 0 else FAINT
            said = word if epoch == 0 else f"epoch {epoch}"
            if epoch and sheet.shares is not None:
                said += f": {'  '.join(_both(sheet, epoch, row))}"
            draw.text((MARGIN, at), _cut(said, 290, 14), color, _font(14), "lm")
            for k in range(count):
                draw.text((left + (k + 1) * step, at), f"{float(x[row, k]):.4g}", color, _font(14), "rm")
    more = values[0].shape[1] - count
    text = f"{more} more columns are not shown. " if more else ""
    text += "Of each sequence the first time step is shown. " if data.kind == "sequence" else ""
    if sheet.shares is not None:
        text += "Here each row is mixed with the next one; training mixes it with any row of its batch."
    draw.text((MARGIN, height - MARGIN), text, FAINT, _font(14), "ls")
    return picture


def _head(draw: ImageDraw.ImageDraw, title: str, lines: list[str]) -> None:
    draw.text((MARGIN, MARGIN), title, INK, _font(22), "lt")
    for number, text in enumerate(lines):
        draw.text((MARGIN, MARGIN + 36 + 20 * number), text, FAINT, _font(14), "lt")


def _length(text: str, size: int) -> int:
    return int(_font(size).getlength(text)) + 1


def _cut(text: str, width: float, size: int) -> str:
    """The text, its end cut off where it is wider than `width` pixels."""
    if _length(text, size) <= width:
        return text
    while text and _length(text + "...", size) > width:
        text = text[:-1]
    return text + "..."


def _folded(text: str, width: int, size: int) -> list[str]:
    """The words in lines of at most `width` pixels."""
    lines = [""]
    for word in text.split("  "):
        longer = f"{lines[-1]}   {word}".strip()
        if _length(longer, size) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
