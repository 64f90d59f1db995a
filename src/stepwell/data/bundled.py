"""The five small sets that scikit-learn brings along: nothing to download."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from pydantic import Field

from stepwell.data import table
from stepwell.data.dataset import DataSet, NewData, Part, Task, TensorInputs
from stepwell.data.npzfile import check_finite, read_samples, shape_text
from stepwell.data.npztargets import class_names, read_targets
from stepwell.data.split import Index, Opened, SplitConfig
from stepwell.data.statistics import batches, standardization, target_statistics
from stepwell.data.tablefile import open_table
from stepwell.errors import UserError

Read = tuple[torch.Tensor, torch.Tensor, list[str], list[str]]  # as `_scikit_learns` returns it


class BundledData(SplitConfig):
    """A small set that comes with scikit-learn."""

    name: Literal["digits", "iris", "wine", "breast_cancer", "diabetes"] = Field(
        default="digits",
        description="digits (8×8 images), iris, wine, breast_cancer (classes), diabetes (regression)",
    )


def load(config: BundledData) -> DataSet:
    """Returns one of the sets, split as the recipe says."""
    return opened(config).load(config)


def opened(config: BundledData) -> Opened:
    """Reads one of the sets; digits as images (1, 8, 8) of 0 … 16, the others as features.

    diabetes has its features in their own units (scikit-learn's scaled=False); its target is the
    progress of the disease in a year, 25 … 346.
    """
    read = _scikit_learns(config.name)
    labels = read[1].numpy() if read[2] else None
    return Opened(len(read[0]), labels, (), lambda *parts: _prepared(config.name, read, parts))


def _prepared(name: str, read: Read, parts: tuple[Index, ...]) -> DataSet:
    x, y, classes, features = read
    shape = tuple(x.shape[1:])
    image = len(shape) == 3
    task: Task = "regression" if not classes else "binary" if len(classes) == 2 else "multi-class"
    rows = [torch.from_numpy(part) for part in parts]
    train, validation, test = (Part(TensorInputs(x[i]), y[i], i) for i in rows)
    shift, scale = standardization(batches(train.inputs), (0, 2, 3) if image else (0,))
    mean, std = target_statistics(train.targets) if task == "regression" else (None, None)
    return DataSet(
        name=name,
        kind="image" if image else "features",
        task=task,
        train=train,
        validation=validation,
        test=test,
        preparation={
            "source": "bundled",
            "name": name,
            "shape": list(shape),
            "features": features,
            "columns": _columns(features, x[rows[0]].flatten(1)),
            "task": task,
            "classes": classes,
        },
        input_shape=shape,
        outputs=len(classes) or 1,
        classes=classes,
        targets=["target"],
        input_shift=shift,
        input_scale=scale,
        target_mean=mean,
        target_std=std,
        fingerprint=hashlib.blake2b(x.numpy().tobytes() + y.numpy().tobytes(), digest_size=16).hexdigest(),
    )


def _scikit_learns(name: str) -> Read:
    """Returns the samples (N, …) float32, targets, class names (none where numbers are) and feature names."""
    from sklearn import datasets  # half a second, and only these sets need it

    found = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    features = [str(feature) for feature in found.feature_names]
    x = torch.from_numpy(found.data.astype(np.float32))
    if name == "diabetes":
        return x, torch.from_numpy(found.target.astype(np.float64)[:, None]), [], features
    if name == "digits":
        x = x.reshape(-1, 1, 8, 8)
    y = torch.from_numpy(found.target.astype(np.int64))
    return x, y, [str(label) for label in found.target_names], features


def _columns(names: list[str], train: torch.Tensor) -> list[dict[str, Any]]:
    """Returns the features as `columns` would learn them: a missing value is the training median."""
    fills = np.median(train.numpy(), axis=0).tolist()
    about = {"kind": "number", "style": ".", "strays": [], "offset": 0.0, "indicator": False}
    return [about | {"name": name, "fill": fill} for name, fill in zip(names, fills, strict=True)]


def read_new(preparation: dict[str, Any], path: str, targets: bool) -> NewData:
    """Returns the samples of a .npz file or of a table, in their order.

    .npz: `x` or `x_test`, (N, features) or the samples' own shape, and `y` or `y_test`. Table: a
    column for each feature, by name, or besides `target` as many columns of numbers as there are
    features, in their order. Classes are given by name or by number (0, 1, …).
    """
    read = _read_arrays if Path(path).suffix.lower() == ".npz" else _read_table
    return read(preparation, path, targets)


def _read_arrays(preparation: dict[str, Any], path: str, targets: bool) -> NewData:
    shape, task, classes = tuple(preparation["shape"]), preparation["task"], preparation["classes"]
    path = os.path.expanduser(path)
    name, x, y = read_samples(path, targets)
    size = math.prod(shape)
    if x.dtype.kind not in "biuf" or x.shape[1:] not in {shape, shape[-2:], (size,)}:
        raise UserError(
            f"{path}: {name} is {x.dtype} of shape {shape_text(x.shape)}, where {preparation['name']} has"
            f" numbers, {size} a sample."
        )
    check_finite(path, name, x)
    values = torch.from_numpy(np.array(x, np.float32, order="C").reshape(-1, *shape))
    goal = None
    if y is not None:
        numbers = [str(i) for i in range(len(classes))]
        classes = classes if set(numbers).isdisjoint(class_names(np.unique(y))) else numbers
        goal = read_targets(path, "y" + name[1:], y, task, classes, columns=1)
    return NewData(TensorInputs(values), pl.DataFrame({"row": np.arange(len(x))}), goal)


def _read_table(preparation: dict[str, Any], path: str, targets: bool) -> NewData:
    opened, columns, classes = open_table(path), preparation["columns"], preparation["classes"]
    if not {column["name"] for column in columns} <= set(opened.names):
        own = [name for name in opened.names if name != "target"]
        if len(own) != len(columns):
            raise UserError(
                f"{path} has {len(own)} columns besides the target, where {preparation['name']} has"
                f" {len(columns)} of numbers, {columns[0]['name']!r} to {columns[-1]['name']!r}: mend it."
            )
        columns = [column | {"name": name} for column, name in zip(columns, own, strict=True)]
    numbers = [str(i) for i in range(len(classes))]
    if targets and "target" in opened.names:
        given = set(opened.read(["target"])["target"].cast(pl.String).str.strip_chars().to_list())
        classes = numbers if given <= set(numbers) else classes
    memory = {"names": ["target"], "styles": {"target": "."}, "task": preparation["task"], "classes": classes}
    new = table.read_new(
        {"columns": columns, "target": memory | {"numeric": classes == numbers}}, path, targets
    )
    x = new.inputs.gather(torch.arange(len(new.inputs))).reshape(-1, *preparation["shape"])
    return NewData(TensorInputs(x), new.table, new.targets)
