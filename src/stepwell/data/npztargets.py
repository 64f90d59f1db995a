"""What the arrays of a .npz file are to predict: the task is told from the type and values of y."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stepwell.data.archive import is_utf8
from stepwell.data.dataset import Task
from stepwell.data.npzfile import check_finite, shape_text, wrong_type
from stepwell.data.tablefile import listing
from stepwell.data.targets import MOST_NUMBERED_CLASSES, Wish, few_enough
from stepwell.errors import UserError

_LARGEST = float(np.finfo(np.float32).max)  # targets are standardized in float64: inputs have less

Learnt = tuple[Task, list[str], list[str], list[str]]  # task, class names, targets' names, notes


def learn_task(path: str, name: str, y: np.ndarray, wish: Wish) -> Learnt:
    """Returns the task, the class names, the targets' names and notes, from the training targets.

    y: (N,) or (N, 1) texts are classes, and so are integers unless they look like amounts; floats are
    numbers to predict. (N, L) zeros and ones are labels, any number of which may apply; (N, O) floats
    are several regressions. wish overrules what y's type says. path and name are for messages.

    Raises UserError for a single class or value, and for what cannot be what is wished.
    """
    if y.dtype.kind not in "biufUS":
        raise wrong_type(path, name, y, "numbers or text")
    y = _flat(y)
    if y.ndim > 2 or y.size == 0:
        raise UserError(f"{path}: {name} has shape {shape_text(y.shape)}; (N,) or (N, targets) is needed.")
    return (_several if y.ndim == 2 else _single)(path, name, y, wish)


def read_targets(path: str, name: str, y: np.ndarray, task: Task, classes: list[str], columns: int) -> Tensor:
    """Returns (N,) int64, (N, L) float32 or (N, O) float64; refuses what was not in the training part.

    task, classes: those of training; columns: how many targets there were, L, O or 1.
    """
    y = _flat(y)
    if task in ("regression", "multi-label"):
        return _numbers(path, name, y, task, columns)
    whole = y.dtype.kind == "f" and bool((y == np.round(y)).all())
    if y.ndim != 1 or (y.dtype.kind not in "biuUS" and not whole):
        raise UserError(
            f"{path}: {name} has shape {shape_text(y.shape)} and type {y.dtype}, where training had classes."
        )
    values, inverse = np.unique(y, return_inverse=True)
    number = {label: index for index, label in enumerate(classes)}
    names = _text_names(path, name, values)
    for value, label in enumerate(names):
        if label not in number:
            row = int(np.flatnonzero(inverse == value)[0])
            raise UserError(
                f"{path}: {name} has class '{label}' (row {row}), which the training part does not: it has"
                f" {listing(classes)}."
            )
    lookup = np.array([number[label] for label in names], dtype=np.int64)
    return torch.from_numpy(lookup[inverse])


def class_names(values: np.ndarray) -> list[str]:
    """Returns how classes (K,) are called; 3.0 is class 3, and True is class 1."""
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "surrogateescape") for value in values.tolist()]
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind == "f":  # what is not whole is no class that training had
        return [str(int(value)) if value.is_integer() else str(value) for value in values.tolist()]
    return [str(value) for value in values.tolist()]


def _text_names(path: str, name: str, values: np.ndarray) -> list[str]:
    """`class_names`, of which none can be something that no file and no page can hold."""
    try:
        names = class_names(values)
    except (ValueError, SystemError):  # a number that is no character's
        raise UserError(f"{path}: {name} holds texts that are damaged; store the class names anew.") from None
    for label in names:
        if not is_utf8(label):
            raise UserError(
                f"{path}: {name} has class {label!a}, which is not valid Unicode (UTF-8); store the class"
                " names anew."
            )
    return names


def _flat(y: np.ndarray) -> np.ndarray:
    """Returns (N,) where y is (N, 1), else y."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _several(path: str, name: str, y: np.ndarray, wish: Wish) -> Learnt:
    """`learn_task` of a row of targets for each sample: (N, L) labels or (N, O) numbers."""
    columns = [str(column) for column in range(y.shape[1])]
    labels = y.dtype.kind in "biuf" and bool(np.isin(y, (0, 1)).all())
    if wish == "classification" and not labels:
        raise UserError(
            f"{path}: several targets are several labels a row, each 0 or 1, and {name} has other values:"
            " correct them, or set data.task=regression."
        )
    if labels and wish != "regression":
        notes = []
        if (y.sum(1) == 1).all():
            notes.append(
                f"each row of {name} has exactly one 1, and is still read as separate labels; "
                f"if these are classes, store {name}.argmax(1)"
            )
        return "multi-label", columns, columns, notes
    if y.dtype.kind == "f" or (wish == "regression" and y.dtype.kind in "biu"):
        return "regression", [], [f"{name}[{column}]" for column in columns], []
    raise UserError(
        f"{path}: {name} has shape {shape_text(y.shape)} and type {y.dtype}; several targets must be "
        "zeros and ones (labels) or floats (regression); data.task=regression takes integers too."
    )


def _single(path: str, name: str, y: np.ndarray, wish: Wish) -> Learnt:
    """`learn_task` of one target for each sample: (N,) classes or numbers."""
    if wish == "regression" and y.dtype.kind in "US":
        raise UserError(f"{path}: {name} holds texts, which cannot be predicted as numbers: store numbers.")
    check_finite(path, name, y, _LARGEST)
    distinct = np.unique(y)
    regression, notes = _is_regression(name, distinct, len(y), wish)
    if regression:
        if len(distinct) == 1:
            raise UserError(
                f"{path}: {name} is {float(distinct[0]):g} in all {len(y)} rows; there is nothing to learn."
            )
        return "regression", [], [name], notes
    if y.dtype.kind == "f" and (distinct != np.round(distinct)).any():
        raise UserError(
            f"{path}: {name} has values that are not whole, such as"
            f" {distinct[distinct != np.round(distinct)][0]:g}: leave out data.task=classification."
        )
    classes = _text_names(path, name, distinct)
    if len(classes) == 1:
        raise UserError(f"{path}: {name} has one class only ('{classes[0]}'); two or more are needed.")
    if len(classes) > 100 and len(classes) > len(y) / 2:
        raise UserError(
            f"{path}: {name} has {len(classes)} different values in {len(y)} rows, too many for classes; "
            "set data.task=regression if it is a number to predict."
        )
    return ("binary" if len(classes) == 2 else "multi-class"), classes, [name], notes


def _is_regression(name: str, distinct: np.ndarray, rows: int, wish: Wish) -> tuple[bool, list[str]]:
    """Says whether the target is a number to predict, and notes what could be meant otherwise.

    Tables have no types: whole numbers are classes where they are few (`few_enough`). Here floats are
    numbers; integers are classes where they are few, or number their classes without a gap from 0 or 1.
    """
    if wish != "auto" or distinct.dtype.kind in "bUS":
        return wish == "regression", []
    count = len(distinct)
    if distinct.dtype.kind == "f":
        if count > MOST_NUMBERED_CLASSES or (distinct != np.round(distinct)).any():
            return True, []
        return True, [
            f"{name} is read as numbers to predict; if its {count} values are classes, "
            "set data.task=classification"
        ]
    if few_enough(count, rows):
        return False, []
    numbered = distinct[0] in (0, 1) and int(distinct[-1]) - int(distinct[0]) == count - 1
    if numbered and count <= rows // 2:  # else most would have one example: amounts, or rows' numbers
        if count <= MOST_NUMBERED_CLASSES:
            return False, []
        return False, [
            f"{name} has the whole numbers {distinct[0]} to {distinct[-1]}, so they are taken as classes"
            " (data.task=regression predicts them as numbers)"
        ]
    return True, [
        f"{name} has {count} different whole numbers, so they are read as numbers to predict"
        " (data.task=classification takes them as classes)"
    ]


def _numbers(path: str, name: str, y: np.ndarray, task: Task, columns: int) -> Tensor:
    if y.dtype.kind not in "biuf":
        raise UserError(f"{path}: {name} is of type {y.dtype}, where training had numbers.")
    if y.ndim > 2 or (1 if y.ndim == 1 else y.shape[1]) != columns:
        raise UserError(
            f"{path}: {name} has shape {shape_text(y.shape)}, where training had {columns} targets."
        )
    check_finite(path, name, y, _LARGEST)
    if task == "multi-label" and not np.isin(y, (0, 1)).all():
        raise UserError(f"{path}: {name} holds other values than 0 and 1, the labels in training.")
    kind = np.float32 if task == "multi-label" else np.float64
    return torch.from_numpy(y.astype(kind)).reshape(len(y), -1)
