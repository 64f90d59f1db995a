"""Tables: CSV, TSV and Parquet, with numbers, categories, dates, missing values and a target.

Nothing but the target has to be named: `columns` tells the kinds of the columns from the training
rows, and what it learnt is saved with the model, so that `read_new` does the same to a new file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field

from stepwell.data import columns, tablefile
from stepwell.data.dataset import DataSet, NewData, Part, TensorInputs, standardization
from stepwell.data.split import split
from stepwell.data.tablefile import TableFile, fingerprint, open_table
from stepwell.data.targets import learn_targets, read_targets, target_names
from stepwell.errors import UserError


class TableData(BaseModel):
    """A CSV, TSV or Parquet file."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="path of a .csv, .tsv or .parquet file")
    target: str | list[str] | None = Field(
        None, description="column to predict, or a list; without it a column named target, label, class or y"
    )
    task: Literal["auto", "regression", "classification"] = Field(
        "auto", description="auto tells classes from numbers by the target's values"
    )
    ignore: list[str] = Field(default_factory=list, description="columns not to learn from")
    validation: float = Field(
        0.15, gt=0, lt=1, description="validation part: share of what the test part leaves"
    )
    test: float = Field(0.2, gt=0, lt=1, description="test part: share of all rows")
    split_seed: int = Field(0, ge=0, description="seed of the random split into parts")


def load(config: TableData) -> DataSet:
    """Returns the table as training, validation and test part, with notes on what was left out.

    A table larger than `tablefile.IN_MEMORY_BYTES`, as a file or as float32 features, is read in
    batches and its features stay on disk (NumPy memory maps in the cache folder); the numbers are
    the same as in memory.

    Raises UserError, naming file, column and row, for whatever cannot be learnt from.
    """
    table = open_table(config.name)
    names = target_names(table, config.target)
    table.require(config.ignore, "data.ignore can only name its columns.")
    if both := [name for name in names if name in config.ignore]:
        raise UserError(
            f"data.ignore names the target {both[0]!r}: take it out of data.ignore or of data.target."
        )
    memory, task, goal, notes = learn_targets(table, names, config.task)
    classes = goal.numpy() if task in ("binary", "multi-class") else None
    index = split(table.rows, classes, config.test, config.validation, config.split_seed)
    learnt, why = _learn(table, [n for n in table.names if n not in {*names, *config.ignore}], index[0])
    features = [f for column in learnt for f in columns.feature_names(column)]
    preparation = {"source": "table", "columns": learnt, "features": features, "target": memory}

    large = max(table.bytes, 4 * table.rows * len(features)) > tablefile.IN_MEMORY_BYTES
    if large:
        values, folder = _on_disk(table, learnt, len(features), index)
        why.append(f"the table is larger than memory, so its features are read from {folder} while training.")
    else:
        matrix = np.concatenate(list(_blocks(table, learnt)))
        values = [torch.from_numpy(matrix[rows]) for rows in index]
    train, validation, test = (
        Part(TensorInputs(x, resident=not large), goal[rows], torch.from_numpy(rows))
        for x, rows in zip(values, index, strict=True)
    )
    shift, scale = standardization(values[0], (0,))
    mean = std = None
    if task == "regression":
        own = train.targets.double()
        deviation = own.std(dim=0, correction=0)
        mean, std = own.mean(dim=0).float(), torch.where(deviation > 0, deviation, 1.0).float()
    return DataSet(
        name=Path(config.name).stem,
        kind="features",
        task=task,
        train=train,
        validation=validation,
        test=test,
        preparation=preparation,
        input_shape=(len(features),),
        outputs=len(memory["classes"]) or len(names),
        classes=memory["classes"],
        targets=names,
        input_shift=shift,
        input_scale=scale,
        target_mean=mean,
        target_std=std,
        fingerprint=fingerprint(table.path),
        notes=table.notes + notes + why,
    )


def read_new(preparation: dict[str, Any], path: str, targets: bool) -> NewData:
    """Returns a new file's rows in their order, turned into features just as in training.

    The file may lack the target (unless `targets`) and may have further columns, in any order.

    Raises UserError for a missing column or a value that does not fit the column, with its row.
    """
    table = open_table(path)
    learnt = preparation["columns"]
    table.require([c["name"] for c in learnt], "the model was trained with it, so add the column.")
    memory, goal = preparation["target"], None
    if targets:
        table.require(memory["names"], "evaluation needs the target; predict does without.")
        goal = read_targets(table, table.read(memory["names"]), memory)
    inputs = TensorInputs(torch.from_numpy(np.concatenate(list(_blocks(table, learnt)))))
    return NewData(inputs, table.read(table.names), goal)


def _learn(table: TableFile, names: list[str], train: np.ndarray) -> tuple[list[columns.Column], list[str]]:
    mask = np.zeros(table.rows, bool)
    mask[train] = True
    learnt, notes = [], []
    for frame in table.groups(names):
        for name in frame.columns:
            column, why = columns.learn(name, frame[name], pl.Series(mask), table.separator, table.file_row)
            learnt += [column] if column else []
            notes += why
    if not learnt:
        reason = f" ({notes[0].rstrip('.')})" if notes else ": it has no column besides the target"
        raise UserError(
            f"{table.path} has no column to learn from{reason}; add columns or change data.ignore."
        )
    return learnt, notes


def _blocks(table: TableFile, learnt: list[columns.Column]) -> Iterator[np.ndarray]:
    """Yields (B, features) float32, batch by batch in the file's order."""
    start = 0
    for frame in table.batches([c["name"] for c in learnt]):
        row = _counted_from(table, start)
        blocks = [columns.features(c, frame[c["name"]], row, str(table.path)) for c in learnt]
        yield np.concatenate(blocks, axis=1)
        start += len(frame)


def _counted_from(table: TableFile, start: int) -> columns.Row:
    return lambda i: table.file_row(start + i)


def _on_disk(
    table: TableFile, learnt: list[columns.Column], width: int, index: tuple[np.ndarray, ...]
) -> tuple[list[torch.Tensor], Path]:
    """Writes the features of each part to a .npy file in the cache, unless they are there, and maps them."""
    key = [fingerprint(table.path), learnt, [hashlib.blake2b(i.tobytes()).hexdigest() for i in index]]
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()
    folder = tablefile.cache_folder() / "features" / digest
    paths = [folder / f"{part}.npy" for part in ("train", "validation", "test")]
    # Written under other names first: a run that was killed half-way must leave nothing that looks whole.
    unfinished = [path.with_suffix(f".{os.getpid()}") for path in paths]
    if not all(path.exists() for path in paths):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write_parts(table, learnt, width, index, unfinished)
            for old, new in zip(unfinished, paths, strict=True):
                old.replace(new)
        except OSError as error:
            raise UserError(
                f"the features of {table.path} are larger than memory and cannot be written to {folder}"
                f" ({error.strerror or error}): make room, or set STEPWELL_CACHE to another folder."
            ) from None
        finally:
            for path in unfinished:
                path.unlink(missing_ok=True)
    # mode "c" (copy on write), since torch warns of memory that cannot be written to.
    return [torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False)) for path in paths], folder


def _write_parts(
    table: TableFile,
    learnt: list[columns.Column],
    width: int,
    index: tuple[np.ndarray, ...],
    paths: list[Path],
) -> None:
    files = [path.open("wb") for path in paths]
    try:
        for file, rows in zip(files, index, strict=True):
            about = {"descr": "<f4", "fortran_order": False, "shape": (len(rows), width)}
            np.lib.format.write_array_header_1_0(file, about)
        start = 0
        for block in _blocks(table, learnt):
            for file, rows in zip(files, index, strict=True):
                first, last = np.searchsorted(rows, (start, start + len(block)))
                # write, not a mapped array: on a full disk it raises where a map would kill the process.
                file.write(block[rows[first:last] - start].tobytes())
            start += len(block)
    finally:
        for file in files:
            file.close()
