"""Arrays in a NumPy .npz file: features, images or sequences, with classes or numbers to predict."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import Field
from torch import Tensor

from stepwell.data.archive import file_fingerprint
from stepwell.data.dataset import DataSet, Inputs, Kind, NewData, Part, TensorInputs
from stepwell.data.npzfile import (
    Members,
    check_finite,
    listed,
    read_members,
    read_pair,
    read_samples,
    shape_text,
    wrong_type,
)
from stepwell.data.npztargets import learn_task, read_targets
from stepwell.data.split import Index, Opened, SplitConfig
from stepwell.data.statistics import batches, standardization, target_statistics
from stepwell.data.targets import Wish
from stepwell.errors import UserError

Pair = tuple[np.ndarray, np.ndarray]  # x and y

_VALIDATION_KEYS = ("validation", "valid", "val")


class NpzData(SplitConfig):
    """A NumPy .npz file."""

    name: str = Field(
        description="path of a .npz file with x_train, y_train and, if you like, x_test, y_test"
    )
    task: Wish = Field(default="auto", description="auto tells classes from numbers by the target's values")


class MappedInputs:
    """Rows of an array that stays on disk; a batch is read and converted when it is asked for."""

    resident = False

    def __init__(self, array: np.ndarray, rows: Tensor | None, layout: Layout) -> None:
        self.array, self.rows, self.layout = array, rows, layout
        self.shape = layout.shape

    def __len__(self) -> int:
        return len(self.array) if self.rows is None else len(self.rows)

    def gather(self, index: Tensor) -> Tensor:
        rows = index if self.rows is None else self.rows.index_select(0, index)
        return self.layout.convert(self.array[rows.numpy()])


class Layout:
    """How the arrays of one file become samples.

    raw: shape of one sample in the file; order: "as is", "HW" (one channel to be added) or "HWC".
    pixels: whether x is uint8 and stays so; everything else becomes float32.
    """

    def __init__(self, kind: Kind, raw: tuple[int, ...], order: str, pixels: bool) -> None:
        self.kind: Kind = kind
        self.raw, self.order, self.pixels = raw, order, pixels
        if order == "HW":
            self.shape = (1, *raw)
        elif order == "HWC":
            self.shape = (raw[2], raw[0], raw[1])
        else:
            self.shape = raw if raw else (1,)  # a plain list of numbers is one feature

    def convert(self, array: np.ndarray) -> Tensor:
        """Returns samples (B, *shape), uint8 or float32, in memory of their own."""
        if self.order == "HWC":
            array = array.transpose(0, 3, 1, 2)
        values = np.array(array, dtype=np.uint8 if self.pixels else np.float32, order="C")
        return torch.from_numpy(values.reshape(len(array), *self.shape))

    def averaged_axes(self) -> tuple[int, ...]:
        """Returns the axes that share one mean: (N,), (N, H, W) of images, (N, T) of sequences."""
        return {"image": (0, 2, 3), "sequence": (0, 1)}.get(self.kind, (0,))


def load(config: NpzData) -> DataSet:
    """Returns the arrays' samples, split as the recipe says where the file has no parts of its own."""
    return opened(config).load(config)


def opened(config: NpzData) -> Opened:
    """Reads x_train, y_train[, x_test, y_test][, x_validation, y_validation], or x and y.

    x: (N, D) features · (N, H, W), (N, H, W, C) or (N, C, H, W) images · (N, T, D) sequences.
    y: see `learn_task`. Parts that the file does not have are split off at random.
    """
    path = os.path.expanduser(config.name)
    members = read_members(path)
    pairs, notes = _pairs(path, members)
    arrays = {part: read_pair(path, members, names) for part, names in pairs.items()}
    layout = _layout(path, pairs["train"][0], arrays["train"][0], notes)
    for part, (x, _) in arrays.items():
        _check_shape(path, pairs[part][0], x, layout, arrays["train"][0].dtype)
        check_finite(path, pairs[part][0], x)
    task, classes, names, more = learn_task(path, pairs["train"][1], arrays["train"][1], config.task)
    targets = {
        part: read_targets(path, pairs[part][1], y, task, classes, len(names))
        for part, (_, y) in arrays.items()
    }
    about = {"source": "npz", "kind": layout.kind, "task": task, "classes": classes, "targets": names}
    about |= {"raw": list(layout.raw), "order": layout.order, "pixels": layout.pixels}
    about |= {"dtype": str(arrays["train"][0].dtype)}
    fingerprint = file_fingerprint(path)

    def prepare(*rows: Index) -> DataSet:
        train, validation, test = _parts(rows, arrays, targets, layout)
        shift, scale = standardization(batches(train.inputs), layout.averaged_axes())
        mean, std = target_statistics(train.targets) if task == "regression" else (None, None)
        return DataSet(
            name=Path(path).stem,
            kind=layout.kind,
            task=task,
            train=train,
            validation=validation,
            test=test,
            preparation=dict(about),
            input_shape=layout.shape,
            outputs=len(names) if task in ("regression", "multi-label") else len(classes),
            classes=classes,
            targets=names,
            input_shift=shift,
            input_scale=scale,
            target_mean=mean,
            target_std=std,
            fingerprint=fingerprint,
            notes=notes + more,
        )

    labels = targets["train"].numpy() if task in ("binary", "multi-class") else None
    return Opened(len(targets["train"]), labels, arrays.keys() - {"train"}, prepare)


def read_new(preparation: dict[str, Any], path: str, targets: bool) -> NewData:
    """Reads x (or x_test, or x_train) of a .npz file, or a .npy file, shaped as in training.

    targets: read y (or y_test, y_train) too.
    """
    path = os.path.expanduser(path)
    name, x, y = read_samples(path, targets)
    raw = tuple(preparation["raw"])
    layout = Layout(preparation["kind"], raw, preparation["order"], preparation["pixels"])
    # A model saved by an older version does not know the type.
    _check_shape(path, name, x, layout, np.dtype(preparation.get("dtype", x.dtype)))
    check_finite(path, name, x)
    goal = None
    if y is not None:
        task, classes, columns = preparation["task"], preparation["classes"], len(preparation["targets"])
        goal = read_targets(path, "y" + name[1:], y, task, classes, columns)
    return NewData(_inputs(x, None, layout), pl.DataFrame({"row": np.arange(len(x))}), goal)


# ---- which arrays there are


def _pairs(path: str, members: Members) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Returns the arrays' names (x, y) of each part that the file has, and notes."""
    suffix = next((end for end in ("_train", "") if "x" + end in members), None)
    if suffix is None:
        near = [name for name in members if name.lower() in ("x", "x_train")]
        near = near or difflib.get_close_matches("x_train", members, n=1, cutoff=0.5)
        hint = f" (is '{near[0]}' meant?)" if near else ""
        raise UserError(f"{path}: there is no array 'x_train' or 'x'{hint}; it holds {listed(members)}.")
    pairs = {"train": ("x" + suffix, "y" + suffix)}
    for part, ends in (("validation", _VALIDATION_KEYS), ("test", ("test",))):
        for end in ends:
            if f"x_{end}" in members or f"y_{end}" in members:
                pairs[part] = (f"x_{end}", f"y_{end}")
                break
    for names in pairs.values():
        for name, other in (names, names[::-1]):
            if name not in members:
                near = difflib.get_close_matches(name, members.keys() - {other}, n=1)
                hint = f" (is '{near[0]}' meant?)" if near else ""
                raise UserError(
                    f"{path}: '{other}' is there without '{name}'{hint}; it holds {listed(members)}. "
                    f"Add '{name}'" + (f", or leave out '{other}'." if names != pairs["train"] else ".")
                )
    unused = sorted(members.keys() - {name for names in pairs.values() for name in names})
    notes = [f"arrays that are not used: {', '.join(unused)}"] if unused else []
    return pairs, notes


# ---- what the arrays mean


def _layout(path: str, name: str, x: np.ndarray, notes: list[str]) -> Layout:
    """Says whether x holds features, images or sequences, from its shape and type."""
    if x.dtype.kind not in "biuf":
        raise wrong_type(path, name, x, "numbers")
    if x.size == 0 or x.ndim == 0:
        raise UserError(f"{path}: {name} is empty (shape {shape_text(x.shape)}).")
    raw, pixels = x.shape[1:], x.dtype == np.uint8
    if len(raw) <= 1:
        return Layout("features", raw, "as is", False)
    if len(raw) == 2:
        if pixels:
            return Layout("image", raw, "HW", True)
        if raw[0] == raw[1] >= 8:
            notes.append(f"{name} {shape_text(x.shape)} is read as square grey images, not as sequences")
            return Layout("image", raw, "HW", False)
        notes.append(
            f"{name} {shape_text(x.shape)} is read as sequences of {raw[0]} steps with {raw[1]} features"
        )
        return Layout("sequence", raw, "as is", False)
    if len(raw) == 3 and raw[2] in (1, 3, 4):
        return Layout("image", raw, "HWC", bool(pixels))
    if len(raw) == 3 and raw[0] in (1, 3, 4):
        return Layout("image", raw, "as is", bool(pixels))
    raise UserError(
        f"{path}: {name} has shape {shape_text(x.shape)}; (N, features), (N, height, width), "
        "(N, height, width, channels) with 1, 3 or 4 channels, or (N, steps, features) is needed."
    )


def _parts(
    drawn: tuple[Index, ...], arrays: dict[str, Pair], targets: dict[str, Tensor], layout: Layout
) -> list[Part]:
    """Returns the three parts: rows of the training arrays; where none were drawn, arrays of their own."""
    parts = []
    for part, index in zip(("train", "validation", "test"), drawn, strict=True):
        source = part if part in arrays and not len(index) else "train"
        whole = source != "train" or len(index) == len(targets["train"])
        rows = None if whole else torch.from_numpy(index)
        inputs = _inputs(arrays[source][0], rows, layout)
        y = targets[source] if rows is None else targets[source].index_select(0, rows)
        parts.append(Part(inputs, y, torch.arange(len(inputs)) if rows is None else rows))
    return parts


def _inputs(x: np.ndarray, rows: Tensor | None, layout: Layout) -> Inputs:
    if isinstance(x, np.memmap):
        return MappedInputs(x, rows, layout)
    return TensorInputs(layout.convert(x if rows is None else x[rows.numpy()]))


# ---- refusals


def _check_shape(path: str, name: str, x: np.ndarray, layout: Layout, trained: np.dtype) -> None:
    if x.dtype.kind not in "biuf":
        raise wrong_type(path, name, x, "numbers")
    if x.shape[1:] != layout.raw:
        raise UserError(
            f"{path}: one sample of {name} has shape {shape_text(x.shape[1:])}, "
            f"where training had {shape_text(layout.raw)}."
        )
    pixels = x.dtype == np.uint8
    # Pixels of 0 to 255 and fractions of them have the same shape, and as features too they may be either.
    mixed = (pixels and trained.kind == "f") or (trained == np.uint8 and x.dtype.kind == "f")
    if mixed or (layout.kind == "image" and layout.pixels != pixels):
        raise UserError(
            f"{path}: {name} is {x.dtype}, where training had {'float' if pixels else 'uint8'}; "
            "convert it, with the same range of values."
        )
