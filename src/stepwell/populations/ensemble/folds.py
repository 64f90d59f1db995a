"""Members that leave out another fold of the training and validation part each; their mean prediction.

Training and validation part together are divided into M folds; member m validates on the m-th and trains on
the others, so that every sample is trained on by M − 1 members and none is lost to validation. The test part
is left as it is. Classes have their share in every fold, to within one sample.
Source: Krogh & Vedelsby 1995 ("cross-validation ensembles"); Breiman 1996 for the relative with replacement.
The trap: each validation sample was trained on by the other members, so the ensemble has no validation result
of its own; and standardization is that of the recipe's own training part for all members.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stepwell.data.dataset import DataSet, Part, TensorInputs
from stepwell.errors import UserError
from stepwell.populations.ensemble.independent import serve as serve
from stepwell.populations.ensemble.independent import trained
from stepwell.populations.ensemble.job import Job, Made


def train(job: Job) -> Made:
    """Trains a member for each fold, with the seed s + m."""
    data = of(job.data, job.count, job.recipe.seed)
    recipes = [job.recipe.model_copy(update={"seed": job.recipe.seed + k}) for k in range(job.count)]
    return trained(job, recipes, data, [f"fold {k + 1}" for k in range(job.count)])


def of(data: DataSet, count: int, seed: int) -> list[DataSet]:
    """The data with each of `count` folds as its validation part; they share the test part."""
    if data.kind == "text":
        raise UserError("kind=folds cuts the data into samples, and a text is one piece: use independent")
    parts = [data.train, data.validation]
    if not all(isinstance(part.inputs, TensorInputs) for part in parts):
        raise UserError("kind=folds needs the data in memory: set data.in_memory=true, or use independent")
    total = sum(len(part) for part in parts)
    if total < 2 * count:
        raise UserError(f"{total} samples are too few for {count} folds of two: lower --members")
    inputs = torch.cat([part.inputs.values for part in parts if isinstance(part.inputs, TensorInputs)])
    targets, rows = (torch.cat([getattr(part, name) for part in parts]) for name in ("targets", "rows"))
    fold = torch.from_numpy(_numbers(targets, data.task in ("binary", "multi-class"), count, seed))

    def part(chosen: Tensor) -> Part:
        return Part(TensorInputs(inputs[chosen]), targets[chosen], rows[chosen])

    return [replace(data, train=part(fold != k), validation=part(fold == k)) for k in range(count)]


def _numbers(targets: Tensor, stratified: bool, count: int, seed: int) -> np.ndarray:
    """The fold of each sample: dealt out like cards, class by class, after shuffling."""
    order = np.random.default_rng(seed).permutation(len(targets))
    if stratified:
        order = order[np.argsort(targets.numpy()[order], kind="stable")]
    fold = np.empty(len(targets), np.int64)
    fold[order] = np.arange(len(targets)) % count
    return fold
