"""What every data source delivers: three parts, and what was learnt from the training part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Kind = Literal["features", "image", "sequence", "text"]
Task = Literal["regression", "binary", "multi-class", "multi-label", "text"]


class Inputs(Protocol):
    """Samples that can be fetched by number, a batch at a time.

    `shape` is that of one sample, channels first for images: (D,), (C, H, W), (T, D) or (T,).
    `resident` says that the samples are one tensor in memory, so that gathering is a single
    index operation and needs neither workers nor prefetch.
    """

    shape: tuple[int, ...]
    resident: bool

    def __len__(self) -> int: ...

    def gather(self, index: Tensor) -> Tensor:
        """Returns the samples with the numbers `index` (B,), int64, as (B, *shape)."""
        ...


@dataclass
class TensorInputs:
    """Samples in one tensor (N, *shape): float32, uint8 (images) or int64 (tokens)."""

    values: Tensor
    resident: bool = True

    def __post_init__(self) -> None:
        self.shape = tuple(self.values.shape[1:])

    def __len__(self) -> int:
        return len(self.values)

    def gather(self, index: Tensor) -> Tensor:
        return self.values.index_select(0, index)


@dataclass
class Part:
    """The training, validation or test part.

    targets: (N,) int64 classes · (N, L) float32 zeros and ones (multi-label) · (N, O) float64 in
    the data's own units (regression: float32 would merge times in seconds, or large prices).
    rows: (N,) int64, the sample's number in the source, so that a mistake can be shown.
    """

    inputs: Inputs
    targets: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def gather(self, index: Tensor, epoch_key: int = 0) -> tuple[Tensor, Tensor]:
        """Returns inputs (B, *shape) and targets (B, …); `epoch_key` differs from epoch to epoch."""
        return self.inputs.gather(index), self.targets.index_select(0, index)

    @property
    def nbytes(self) -> int:
        """Bytes of a part in memory."""
        assert isinstance(self.inputs, TensorInputs)
        return self.inputs.values.nbytes + self.targets.nbytes

    def to(self, device: torch.device) -> Part:
        """This part, which is in memory, on another device."""
        assert isinstance(self.inputs, TensorInputs)
        return Part(TensorInputs(self.inputs.values.to(device)), self.targets.to(device), self.rows)


@dataclass
class DataSet:
    """Everything that training needs to know of the data.

    preparation: JSON values only; with it `read_new` turns a raw new file into model inputs.
    input_shift, input_scale: x ← (x − shift) · scale standardizes; broadcastable to one sample,
    from the training part alone. None where there is nothing to standardize (tokens).
    target_mean, target_std: (O,) float64, regression only.
    notes: plain sentences for the user ("column 'name' is left out: 891 different texts in 891 rows").
    """

    name: str
    kind: Kind
    task: Task
    train: Part
    validation: Part
    test: Part
    preparation: dict[str, Any]
    input_shape: tuple[int, ...]
    outputs: int
    classes: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    input_shift: Tensor | None = None
    input_scale: Tensor | None = None
    target_mean: Tensor | None = None
    target_std: Tensor | None = None
    fingerprint: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class NewData:
    """A file read for prediction or evaluation, rows in the file's order.

    table: a polars DataFrame or LazyFrame that predictions are appended to (the file's own columns for
    a table, a column `file` for images, a column `row` for arrays). A table's is lazy, since it may be
    larger than memory, and evaluation does not need it.
    notes: plain sentences for the user, where the file has what training had not and that changes it.
    """

    inputs: Inputs
    table: Any
    targets: Tensor | None = None
    notes: list[str] = field(default_factory=list)
