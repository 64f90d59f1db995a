"""Arrays in a NumPy .npz file: features, images or sequences, with classes or numbers to predict."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from stepwell.data.archive import file_fingerprint
from stepwell.data.dataset import DataSet, Inputs, Kind, NewData, Part, Task, TensorInputs
from stepwell.data.npzfile import Members, read_array, read_members, read_npy
from stepwell.data.split import SplitConfig, split_by
from stepwell.data.statistics import CHUNK_BYTES, batches, standardization, target_statistics
from stepwell.data.targets import MOST_NUMBERED_CLASSES, Wish, few_enough
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
        with np.errstate(over="ignore"):  # what float32 cannot hold is found by the check for infinities
            values = np.array(array, dtype=np.uint8 if self.pixels else np.float32, order="C")
        return torch.from_numpy(values.reshape(len(array), *self.shape))

    def averaged_axes(self) -> tuple[int, ...]:
        """Returns the axes that share one mean: (N,), (N, H, W) of images, (N, T) of sequences."""
        return {"image": (0, 2, 3), "sequence": (0, 1)}.get(self.kind, (0,))


def load(config: NpzData) -> DataSet:
    """Reads x_train, y_train[, x_test, y_test][, x_validation, y_validation], or x and y.

    x: (N, D) features · (N, H, W), (N, H, W, C) or (N, C, H, W) images · (N, T, D) sequences.
    y: (N,) texts are classes, and so are integers unless they look like amounts · (N, L) zeros and ones
    are labels, any number of which may apply · floats are numbers to predict. config.task overrules
    what y's type says. Parts that the file does not have are split off at random.
    """
    path = os.path.expanduser(config.name)
    members = read_members(path)
    pairs, notes = _pairs(path, members)
    arrays = {part: _read_pair(path, members, names) for part, names in pairs.items()}
    layout = _layout(path, pairs["train"][0], arrays["train"][0], notes)
    for part, (x, _) in arrays.items():
        _check_shape(path, pairs[part][0], x, layout)
        _check_finite(path, pairs[part][0], x)
    task, classes, names = _task(path, pairs["train"][1], arrays["train"][1], config.task, notes)
    targets = {part: _targets(path, pairs[part][1], y, task, classes) for part, (_, y) in arrays.items()}
    train, validation, test = _parts(config, arrays, targets, layout, task)
    shift, scale = standardization(batches(train.inputs), layout.averaged_axes())
    mean, std = target_statistics(train.targets) if task == "regression" else (None, None)
    about = {"source": "npz", "kind": layout.kind, "task": task, "classes": classes, "targets": names}
    return DataSet(
        name=Path(path).stem,
        kind=layout.kind,
        task=task,
        train=train,
        validation=validation,
        test=test,
        preparation=about | {"raw": list(layout.raw), "order": layout.order, "pixels": layout.pixels},
        input_shape=layout.shape,
        outputs=len(names) if task in ("regression", "multi-label") else len(classes),
        classes=classes,
        targets=names,
        input_shift=shift,
        input_scale=scale,
        target_mean=mean,
        target_std=std,
        fingerprint=file_fingerprint(path),
        notes=notes,
    )


def read_new(preparation: dict[str, Any], path: str, targets: bool) -> NewData:
    """Reads x (or x_test, or x_train) of a .npz file, or a .npy file, shaped as in training.

    targets: read y (or y_test, y_train) too.
    """
    import polars

    path = os.path.expanduser(path)
    if path.endswith(".npy"):
        if targets:
            raise UserError(f"{path}: a .npy file has no targets; evaluate on a .npz file with x and y.")
        name, x, y = "the array", read_npy(path), None
    else:
        members = read_members(path)
        suffix = next((suffix for suffix in ("", "_test", "_train") if "x" + suffix in members), None)
        if suffix is None:
            raise UserError(f"{path}: there is no array 'x' or 'x_test' in it; it holds {_listed(members)}.")
        name, x, y = "x" + suffix, read_array(path, members, "x" + suffix), None
        if targets:
            if "y" + suffix not in members:
                raise UserError(
                    f"{path}: '{name}' has no 'y{suffix}' beside it; it holds {_listed(members)}."
                )
            y = read_array(path, members, "y" + suffix)
            _check_lengths(path, (name, "y" + suffix), x, y)
    raw = tuple(preparation["raw"])
    layout = Layout(preparation["kind"], raw, preparation["order"], preparation["pixels"])
    if len(x.shape) == 0 or len(x) == 0:
        raise UserError(f"{path}: {name} is empty.")
    _check_shape(path, name, x, layout)
    if layout.kind == "image" and layout.pixels != (x.dtype == np.uint8):
        raise UserError(
            f"{path}: {name} is {x.dtype}, where training had {'uint8' if layout.pixels else 'float'}; "
            "convert it, with the same range of values."
        )
    _check_finite(path, name, x)
    inputs = _inputs(x, None, layout)
    task, classes = preparation["task"], preparation["classes"]
    return NewData(
        inputs,
        polars.DataFrame({"row": np.arange(len(x))}),
        None if y is None else _targets(path, "y" + name[1:], y, task, classes, len(preparation["targets"])),
    )


# ---- which arrays there are


def _pairs(path: str, members: Members) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Returns the arrays' names (x, y) of each part that the file has, and notes."""
    suffix = next((end for end in ("_train", "") if "x" + end in members), None)
    if suffix is None:
        near = [name for name in members if name.lower() in ("x", "x_train")]
        near = near or difflib.get_close_matches("x_train", members, n=1, cutoff=0.5)
        hint = f" (is '{near[0]}' meant?)" if near else ""
        raise UserError(f"{path}: there is no array 'x_train' or 'x'{hint}; it holds {_listed(members)}.")
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
                    f"{path}: '{other}' is there without '{name}'{hint}; it holds {_listed(members)}. "
                    f"Add '{name}'" + (f", or leave out '{other}'." if names != pairs["train"] else ".")
                )
    unused = sorted(members.keys() - {name for names in pairs.values() for name in names})
    notes = [f"arrays that are not used: {', '.join(unused)}"] if unused else []
    return pairs, notes


def _read_pair(path: str, members: Members, names: tuple[str, str]) -> Pair:
    x, y = read_array(path, members, names[0]), read_array(path, members, names[1])
    _check_lengths(path, names, x, y)
    return x, y


# ---- what the arrays mean


def _layout(path: str, name: str, x: np.ndarray, notes: list[str]) -> Layout:
    """Says whether x holds features, images or sequences, from its shape and type."""
    if x.dtype.kind not in "biuf":
        raise UserError(f"{path}: {name} is of type {x.dtype}; it must hold numbers.")
    if x.size == 0 or x.ndim == 0:
        raise UserError(f"{path}: {name} is empty (shape {_shape(x.shape)}).")
    raw, pixels = x.shape[1:], x.dtype == np.uint8
    if len(raw) <= 1:
        return Layout("features", raw, "as is", False)
    if len(raw) == 2:
        if pixels:
            return Layout("image", raw, "HW", True)
        if raw[0] == raw[1] >= 8:
            notes.append(f"{name} {_shape(x.shape)} is read as square grey images, not as sequences")
            return Layout("image", raw, "HW", False)
        notes.append(
            f"{name} {_shape(x.shape)} is read as sequences of {raw[0]} steps with {raw[1]} features"
        )
        return Layout("sequence", raw, "as is", False)
    if len(raw) == 3 and raw[2] in (1, 3, 4):
        return Layout("image", raw, "HWC", bool(pixels))
    if len(raw) == 3 and raw[0] in (1, 3, 4):
        return Layout("image", raw, "as is", bool(pixels))
    raise UserError(
        f"{path}: {name} has shape {_shape(x.shape)}; (N, features), (N, height, width), "
        "(N, height, width, channels) with 1, 3 or 4 channels, or (N, steps, features) is needed."
    )


def _task(
    path: str, name: str, y: np.ndarray, wish: Wish, notes: list[str]
) -> tuple[Task, list[str], list[str]]:
    """Returns the task, the class names and the targets' names, from the training targets."""
    if y.dtype.kind not in "biufUS":
        raise UserError(f"{path}: {name} is of type {y.dtype}; it must hold numbers or text.")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim > 2 or y.size == 0:
        raise UserError(f"{path}: {name} has shape {_shape(y.shape)}; (N,) or (N, targets) is needed.")
    if y.ndim == 2:
        names = [str(column) for column in range(y.shape[1])]
        labels = y.dtype.kind in "biuf" and bool(np.isin(y, (0, 1)).all())
        if wish == "classification" and not labels:
            raise UserError(
                f"{path}: several targets are several labels a row, each 0 or 1, and {name} has other values:"
                " correct them, or set data.task=regression."
            )
        if labels and wish != "regression":
            if (y.sum(1) == 1).all():
                notes.append(
                    f"each row of {name} has exactly one 1, and is still read as separate labels; "
                    f"if these are classes, store {name}.argmax(1)"
                )
            return "multi-label", names, names
        if y.dtype.kind == "f" or (wish == "regression" and y.dtype.kind in "biu"):
            return "regression", [], [f"{name}[{column}]" for column in names]
        raise UserError(
            f"{path}: {name} has shape {_shape(y.shape)} and type {y.dtype}; several targets must be "
            "zeros and ones (labels) or floats (regression); data.task=regression takes integers too."
        )
    if wish == "regression" and y.dtype.kind in "US":
        raise UserError(f"{path}: {name} holds texts, which cannot be predicted as numbers: store numbers.")
    _check_finite(path, name, y)
    classes = np.unique(y)
    if _is_regression(name, classes, len(y), wish, notes):
        if len(classes) == 1:
            raise UserError(
                f"{path}: {name} is {float(classes[0]):g} in all {len(y)} rows; there is nothing to learn."
            )
        return "regression", [], [name]
    if y.dtype.kind == "f" and (classes != np.round(classes)).any():
        raise UserError(
            f"{path}: {name} has values that are not whole, such as"
            f" {classes[classes != np.round(classes)][0]:g}: leave out data.task=classification."
        )
    if len(classes) == 1:
        raise UserError(
            f"{path}: {name} has one class only ('{_names(classes)[0]}'); two or more are needed."
        )
    if len(classes) > 100 and len(classes) > len(y) / 2:
        raise UserError(
            f"{path}: {name} has {len(classes)} different values in {len(y)} rows, too many for classes; "
            "set data.task=regression if it is a number to predict."
        )
    return ("binary" if len(classes) == 2 else "multi-class"), _names(classes), [name]


def _is_regression(name: str, distinct: np.ndarray, rows: int, wish: Wish, notes: list[str]) -> bool:
    """Whether the target is a number to predict; notes what could be meant otherwise.

    Tables have no types: whole numbers are classes where they are few (`few_enough`). Here floats are
    numbers; integers are classes where they are few, or number their classes without a gap from 0 or 1.
    """
    if wish != "auto" or distinct.dtype.kind in "bUS":
        return wish == "regression"
    count, few = len(distinct), few_enough(len(distinct), rows)
    if distinct.dtype.kind == "f":
        if count <= MOST_NUMBERED_CLASSES and (distinct == np.round(distinct)).all():
            notes.append(
                f"{name} is read as numbers to predict; if its {count} values are classes, "
                "set data.task=classification"
            )
        return True
    numbered = distinct[0] in (0, 1) and int(distinct[-1]) - int(distinct[0]) == count - 1
    if few or count == 1:
        return False
    if numbered and count <= rows // 2:  # else most would have one example: amounts, or rows' numbers
        if count > MOST_NUMBERED_CLASSES:
            notes.append(
                f"{name} has the whole numbers {distinct[0]} to {distinct[-1]}, so they are taken as classes"
                " (data.task=regression predicts them as numbers)"
            )
        return False
    notes.append(
        f"{name} has {count} different whole numbers, so they are read as numbers to predict"
        " (data.task=classification takes them as classes)"
    )
    return True


def _names(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "replace") for value in values.tolist()]
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind == "f":  # 3.0 is class 3; what is not whole is no class that training had
        return [str(int(value)) if value.is_integer() else str(value) for value in values.tolist()]
    return [str(value) for value in values.tolist()]


def _targets(
    path: str, name: str, y: np.ndarray, task: Task, classes: list[str], columns: int | None = None
) -> Tensor:
    """Returns (N,) int64, (N, L) float32 or (N, O) float64; refuses what was not in the training part."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if task in ("regression", "multi-label"):
        if y.dtype.kind not in "biuf":
            raise UserError(f"{path}: {name} is of type {y.dtype}, where training had numbers.")
        if columns is not None and (1 if y.ndim == 1 else y.shape[1]) != columns:
            raise UserError(
                f"{path}: {name} has shape {_shape(y.shape)}, where training had {columns} targets."
            )
        _check_finite(path, name, y)
        if task == "multi-label" and not np.isin(y, (0, 1)).all():
            raise UserError(f"{path}: {name} holds other values than 0 and 1, the labels in training.")
        kind = np.float32 if task == "multi-label" else np.float64
        return torch.from_numpy(y.astype(kind)).reshape(len(y), -1)
    whole = y.dtype.kind == "f" and bool((y == np.round(y)).all())
    if y.ndim != 1 or (y.dtype.kind not in "biuUS" and not whole):
        raise UserError(
            f"{path}: {name} has shape {_shape(y.shape)} and type {y.dtype}, where training had classes."
        )
    values, inverse = np.unique(y, return_inverse=True)
    number = {label: index for index, label in enumerate(classes)}
    for value, label in enumerate(_names(values)):
        if label not in number:
            row = int(np.flatnonzero(inverse == value)[0])
            raise UserError(
                f"{path}: {name} has class '{label}' (row {row}), which the training part does not."
            )
    lookup = np.array([number[label] for label in _names(values)], dtype=np.int64)
    return torch.from_numpy(lookup[inverse])


def _parts(
    config: NpzData, arrays: dict[str, Pair], targets: dict[str, Tensor], layout: Layout, task: Task
) -> list[Part]:
    """Returns the three parts; those that the file does not have are rows of its training arrays."""
    labels = targets["train"].numpy() if task in ("binary", "multi-class") else None
    drawn = split_by(config, len(targets["train"]), labels, own=arrays.keys())
    parts = []
    for part, index in zip(("train", "validation", "test"), drawn, strict=True):
        source = part if part in arrays else "train"
        whole = source == part and (part != "train" or len(arrays) == 3)
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


def _check_lengths(path: str, names: tuple[str, str], x: np.ndarray, y: np.ndarray) -> None:
    for name, array in zip(names, (x, y), strict=True):
        if array.ndim == 0 or len(array) == 0:
            raise UserError(f"{path}: {name} is empty.")
    if len(x) != len(y):
        raise UserError(
            f"{path}: {names[0]} has {len(x)} rows and {names[1]} {len(y)}; they must be as many."
        )


def _check_shape(path: str, name: str, x: np.ndarray, layout: Layout) -> None:
    if x.dtype.kind not in "biuf":
        raise UserError(f"{path}: {name} is of type {x.dtype}; it must hold numbers.")
    if x.shape[1:] != layout.raw:
        raise UserError(
            f"{path}: one sample of {name} has shape {_shape(x.shape[1:])}, "
            f"where training had {_shape(layout.raw)}."
        )
    if layout.pixels and x.dtype != np.uint8:
        raise UserError(
            f"{path}: {name} is {x.dtype}, where training had uint8; convert it, with the same range."
        )


def _check_finite(path: str, name: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        return
    count = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    limit = float(np.finfo(np.float32).max)
    for start in range(0, len(array), count):
        chunk = np.asarray(array[start : start + count])
        good = np.isfinite(chunk)
        if chunk.dtype.itemsize > 4:
            with np.errstate(invalid="ignore"):
                good &= np.abs(chunk) <= limit
        if not good.all():
            row = int(np.flatnonzero(~good.reshape(len(chunk), -1).all(1))[0])
            value = chunk[row][~good[row]].ravel()[0] if chunk.ndim > 1 else chunk[row]
            raise UserError(
                f"{path}: {name} holds {value} in row {start + row} (counted from 0); "
                "replace it, or drop the row."
            )


def _listed(members: Members) -> str:
    return ", ".join(f"'{name}'" for name in sorted(members)[:12])


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
