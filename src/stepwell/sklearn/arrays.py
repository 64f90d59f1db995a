"""A DataSet of arrays that are in memory already."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from stepwell.data.dataset import DataSet, Part, Task, TensorInputs
from stepwell.data.split import split
from stepwell.data.statistics import LARGEST, batches, standardization, target_statistics
from stepwell.errors import UserError


def data_set(
    x: np.ndarray, y: np.ndarray, task: Task, classes: list[str], validation: float, seed: int
) -> DataSet:
    """Returns the samples as training and validation part; means and deviations are the training part's.

    x: (N, D) numbers. y: (N,) int64 classes, or (N, O) float64. validation: share for the validation part.
    """
    if len(x) and np.abs(x).max() > LARGEST:
        raise UserError(f"X has a number beyond {LARGEST:g}, which float32 cannot compute with: scale X down")
    labels = None if task == "regression" else y
    train, held, none = split(len(x), labels, 0.0, validation, seed)
    inputs, targets = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.copy())
    parts = [
        Part(TensorInputs(inputs[rows]), targets[rows], rows)
        for rows in map(torch.from_numpy, (train, held, none))
    ]
    shift, scale = standardization(batches(parts[0].inputs), (0,))
    mean, std = target_statistics(parts[0].targets) if task == "regression" else (None, None)
    return DataSet(
        name="X",
        kind="features",
        task=task,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        preparation={},
        input_shape=(x.shape[1],),
        outputs=len(classes) or y.shape[1],
        classes=classes,
        targets=[str(k) for k in range(y.shape[1])] if task == "regression" else ["y"],
        input_shift=shift,
        input_scale=scale,
        target_mean=mean,
        target_std=std,
        fingerprint=hashlib.blake2b(x.tobytes() + y.tobytes(), digest_size=16).hexdigest(),
    )
