"""Tables: CSV, TSV and Parquet, with numbers, categories, dates, missing values and a target.

Nothing but the target has to be named: `columns` tells the kinds of the columns from the training
rows, and what it learnt is saved with the model, so that `read_new` does the same to a new file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from pydantic import Field

from stepwell.data import columns, tablefile
from stepwell.data.archive import cache_folder, cached, file_fingerprint
from stepwell.data.dataset import DataSet, NewData, Part, Task, TensorInputs
from stepwell.data.split import Index, Opened, SplitConfig
from stepwell.data.statistics import batches, standardization, target_statistics
from stepwell.data.tablefile import TableFile, open_table
from stepwell.data.targets import learn_targets, read_targets, target_names
from stepwell.errors import UserError
from stepwell.progress import counted


class TableData(SplitConfig):
    """A CSV, TSV or Parquet file."""

    name: str = Field(description="path of a .csv, .tsv or .parquet file")
    target: str | list[str] | None = Field(
        default=None,
        description="column to predict, or a list; without it a column named target, label, class or y",
    )
    task: Literal["auto", "regression", "classification"] = Field(
        default="auto", description="auto tells classes from numbers by the target's values"
    )
    ignore: list[str] = Field(default_factory=list, description="columns not to learn from")
    groups: str | None = Field(
        default=None,
        description="column whose equal values stay in one part or fold; it is not learnt from",
    )


class RowsOnDisk:
    """Some rows (n,) of a table's features (N, F), which are mapped from a file."""

    resident = False

    def __init__(self, values: torch.Tensor, rows: torch.Tensor) -> None:
        self.values, self.rows = values, rows
        self.shape = tuple(values.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, index: torch.Tensor) -> torch.Tensor:
        return self.values.index_select(0, self.rows.index_select(0, index))


def load(config: TableData) -> DataSet:
    """Returns the table as training, validation and test part, with notes on what was left out."""
    return opened(config).load(config)


def opened(config: TableData) -> Opened:
    """Reads a table; what columns mean is learnt when it is split, from the training rows.

    A table larger than `tablefile.IN_MEMORY_BYTES`, as a file or as float32 features, is read in
    batches and its features stay on disk (a NumPy memory map in the cache folder); the numbers are
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
    groups = None if config.groups is None else _groups(table, config.groups, names)
    learn_from = [name for name in table.names if name not in {*names, *config.ignore, config.groups}]
    goal = learn_targets(table, names, config.task)
    labels = goal[2].numpy() if goal[1] in ("binary", "multi-class") else None
    fingerprint = file_fingerprint(str(table.path))

    def prepare(*parts: Index) -> DataSet:
        return _prepared(table, learn_from, goal, fingerprint, parts)

    return Opened(table.rows, labels, (), prepare, groups)


def _groups(table: TableFile, name: str, targets: list[str]) -> np.ndarray:
    """Returns the number of each row's group, (N,); every row needs one."""
    table.require([name], "data.groups can only name one of its columns.")
    if name in targets:
        raise UserError(
            f"data.groups names the target {name!r}: name the column that says what goes together."
        )
    values = table.read([name])[name]
    if values.dtype == pl.String:
        text = values.str.strip_chars()
        values = text.set(text == "", None)
    if values.null_count():
        row = table.file_row(int(values.is_null().arg_max()))  # type: ignore[arg-type]
        raise UserError(
            f"{table.path}: row {row} has nothing in column {name!r}, which data.groups names: fill it in."
        )
    return values.rank("dense").to_numpy()


def _prepared(
    table: TableFile,
    learn_from: list[str],
    target: tuple[dict[str, Any], Task, torch.Tensor, list[str]],
    fingerprint: str,
    index: tuple[Index, ...],
) -> DataSet:
    memory, task, goal, notes = target
    learnt, why = _learn(table, learn_from, index[0])
    features = [f for column in learnt for f in columns.feature_names(column)]
    preparation = {"source": "table", "columns": learnt, "features": features, "target": memory}

    rows = [torch.from_numpy(part) for part in index]
    if _is_large(table, learnt):
        values = _on_disk(table, learnt, "features", unseen_missing=True)
        inputs = [RowsOnDisk(values, part) for part in rows]
        why.append(f"the table is larger than memory, so its features are read from {cache_folder()}.")
    else:
        values = torch.from_numpy(np.concatenate(list(_blocks(table, learnt, unseen_missing=True))))
        inputs = [TensorInputs(values[part]) for part in rows]
    train, validation, test = (Part(x, goal[part], part) for x, part in zip(inputs, rows, strict=True))
    shift, scale = standardization(batches(train.inputs), (0,))
    mean, std = target_statistics(train.targets) if task == "regression" else (None, None)
    return DataSet(
        name=table.path.stem,
        kind="features",
        task=task,
        train=train,
        validation=validation,
        test=test,
        preparation=preparation,
        input_shape=(len(features),),
        outputs=len(memory["classes"]) or len(memory["names"]),
        classes=memory["classes"],
        targets=memory["names"],
        input_shift=shift,
        input_scale=scale,
        target_mean=mean,
        target_std=std,
        fingerprint=fingerprint,
        notes=table.notes + notes + why,
    )


def read_new(preparation: dict[str, Any], path: str, targets: bool) -> NewData:
    """Returns a new file's rows in their order, turned into features just as in training.

    The file may lack the target (unless `targets`) and may have further columns, in any order.

    Raises UserError for a missing column or a value that does not fit the column, with its row.
    """
    # Evaluation needs a target in each row, which an empty one has not; predictions are one a row.
    table = open_table(path, empty_tail=not targets)
    learnt = preparation["columns"]
    table.require([c["name"] for c in learnt], "the model was trained with it, so add the column.")
    memory, goal = preparation["target"], None
    if targets:
        table.require(memory["names"], "evaluation needs the target; predict does without.")
        goal = read_targets(table, table.read(memory["names"]), memory)
    if _is_large(table, learnt):
        values = _on_disk(table, learnt, "new features", unseen_missing=False)
        inputs = RowsOnDisk(values, torch.arange(table.rows))
    else:
        blocks = _blocks(table, learnt, unseen_missing=False)
        inputs = TensorInputs(torch.from_numpy(np.concatenate(list(blocks))))
    return NewData(inputs, table.lazy.select(table.names), goal, table.notes + _unseen(table, learnt))


def _unseen(table: TableFile, learnt: list[columns.Column]) -> list[str]:
    """Returns a note for each column that has categories which training did not have.

    In a pass of its own: the features may come from the cache, where they do not tell.
    """
    found: dict[str, list[Any]] = {}  # name → [rows, example]
    of_categories = {c["name"]: c for c in learnt if c["kind"] == "category"}
    for frame in table.batches(list(of_categories)) if of_categories else ():
        for name, column in of_categories.items():
            if len(new := columns.unseen(column, frame[name])):
                found.setdefault(name, [0, new[0]])[0] += len(new)
    return [
        f"column {name!r}: {rows} of {table.rows} rows {'has' if rows == 1 else 'have'} a value that training"
        f" did not have, such as {columns.shortened(example)}; it counts as"
        f" {'other' if of_categories[name]['other'] else 'none of the categories'}."
        for name, (rows, example) in found.items()
    ]


def _learn(table: TableFile, names: list[str], train: np.ndarray) -> tuple[list[columns.Column], list[str]]:
    mask = np.zeros(table.rows, bool)
    mask[train] = True
    in_training, learnt, notes = pl.Series(mask), [], []
    each = (frame[name] for frame in table.groups(names) for name in frame.columns)
    with counted(f"looking at {len(names):,} columns", len(names)) as advance:
        for values in each:
            column, why = columns.learn(
                values.name, values, in_training, table.separator, table.file_row, str(table.path)
            )
            learnt += [column] if column else []
            notes += why
            advance(1)
    if not learnt:
        reason = f" ({notes[0].rstrip('.')})" if notes else ": it has no column besides the target"
        raise UserError(
            f"{table.path} has no column to learn from{reason}; add columns or change data.ignore."
        )
    return learnt, notes


def _is_large(table: TableFile, learnt: list[columns.Column]) -> bool:
    """Whether the table, as a file or as float32 features, is to stay on disk."""
    width = sum(len(columns.feature_names(column)) for column in learnt)
    return max(table.bytes, 4 * table.rows * width) > tablefile.IN_MEMORY_BYTES


def _blocks(table: TableFile, learnt: list[columns.Column], unseen_missing: bool) -> Iterator[np.ndarray]:
    """Yields (B, features) float32, batch by batch in the file's order."""
    start, path = 0, str(table.path)
    with counted(f"features of {table.rows:,} rows", table.rows) as advance:
        for frame in table.batches([c["name"] for c in learnt]):
            row = _counted_from(table, start)
            blocks = [columns.features(c, frame[c["name"]], row, path, unseen_missing) for c in learnt]
            yield np.concatenate(blocks, axis=1)
            start += len(frame)
            advance(len(frame))


def _counted_from(table: TableFile, start: int) -> columns.Row:
    return lambda i: table.file_row(start + i)


def _on_disk(table: TableFile, learnt: list[columns.Column], part: str, unseen_missing: bool) -> torch.Tensor:
    """Returns the features (N, F) as a map of a .npy file in the cache, which is written the first time."""
    width = sum(len(columns.feature_names(column)) for column in learnt)

    def write(to: Path) -> None:
        # write, not a mapped array: on a full disk it raises where a map would kill the process.
        with to.open("wb") as file:
            about = {"descr": "<f4", "fortran_order": False, "shape": (table.rows, width)}
            np.lib.format.write_array_header_1_0(file, about)
            for block in _blocks(table, learnt, unseen_missing):
                file.write(block.tobytes())

    file = cached(str(table.path), ".npy", write, part=part, key=json.dumps([table.rows, learnt]))
    # mode "c" (copy on write), since torch warns of memory that cannot be written to.
    return torch.from_numpy(np.load(file, mmap_mode="c", allow_pickle=False))
