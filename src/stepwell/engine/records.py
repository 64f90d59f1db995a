"""Where the parameters that one kernel updates lie in memory, and how they are cut into chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepwell.errors import UserError


class Records:
    """Parameters of equal types as records: one a parameter, or one for each member of a population.

    numbers: the parameters' places in their group. members: how many models lie behind one another in
    each parameter's first dimension; None if it is one model without such a dimension.
    """

    def __init__(
        self, parameters: Sequence[Tensor], numbers: Sequence[int], members: int | None = None
    ) -> None:
        self.numbers, self.members = list(numbers), members
        self.parameters = [parameters[i].detach() for i in numbers]
        # What has gaps between its elements is updated in a copy that has none.
        self.copies = {
            k: torch.empty_like(p) for k, p in enumerate(self.parameters) if not dense(p.shape, p.stride())
        }
        self.weights = [self.copies.get(k, p) for k, p in enumerate(self.parameters)]
        self.contiguous, self.type = all(w.is_contiguous() for w in self.weights), self.weights[0].dtype
        self.numels = [w.numel() for w in self.weights]
        self.each = members or 1  # records a parameter
        self.count = len(self.numbers) * self.each
        self.sizes = np.array([w.numel() // self.each for w in self.weights])
        self.elements = int(self.sizes.sum()) * self.each

    def chunks(self, size: int) -> np.ndarray:
        """Lines of (record, start, length) of at most so many elements each.

        An empty record has one, since its scalars move on too.
        """
        sizes = np.repeat(self.sizes, self.each)
        counts = np.maximum(-(-sizes // size), 1)
        record = np.repeat(np.arange(len(sizes)), counts)
        first = np.cumsum(counts) - counts
        start = (np.arange(len(record)) - first[record]) * size
        lines = np.stack([record, start, np.minimum(size, sizes[record] - start)], axis=1)
        return lines.astype(np.int64)

    def laid_out(self, gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """The gradients that are there, in their weights' type and memory layout."""
        held = [g for g in gradients if g is not None]
        sizes = self.numels
        if len(held) < len(gradients):
            sizes = [size for size, g in zip(sizes, gradients, strict=True) if g is not None]
        # Looked at each time: a kernel given another size or type would read what is not there.
        as_weights = self.contiguous and all(map(Tensor.is_contiguous, held))
        fitting = list(map(Tensor.numel, held)) == sizes and {g.dtype for g in held} <= {self.type}
        readable = all(map(Tensor.data_ptr, held)) and not any(map(Tensor.is_neg, held))  # memory as it reads
        if not (as_weights and fitting and readable):
            weights = [w for w, g in zip(self.weights, gradients, strict=True) if g is not None]
            held = [_laid_out(g, w) for g, w in zip(held, weights, strict=True)]
        return held

    def addresses(self, tensors: Sequence[Tensor], sizes: np.ndarray | None = None) -> Any:
        """The address of each record's first element in these tensors, one a parameter.

        sizes: elements a record of each tensor, if these are not all parameters.
        """
        addresses = list(map(Tensor.data_ptr, tensors))
        if self.members is None or not tensors:
            return addresses
        bytes_each = (self.sizes if sizes is None else sizes) * tensors[0].element_size()
        return (np.array(addresses)[:, None] + bytes_each[:, None] * np.arange(self.each)).reshape(-1)

    def fetch(self) -> None:
        """Puts the parameters that have gaps into their copies."""
        for k, copy in self.copies.items():
            copy.copy_(self.parameters[k])

    def put_back(self, gradients: Sequence[Tensor | None]) -> None:
        """And the updated ones back."""
        for k, copy in self.copies.items():
            if gradients[k] is not None:
                self.parameters[k].copy_(copy)


def layout(tensors: Sequence[Tensor]) -> tuple[list[Any], ...]:
    """What must not change under a kernel: where tensors lie, how large they are and in what order."""
    return (
        list(map(Tensor.data_ptr, tensors)),
        list(map(Tensor.numel, tensors)),
        [x.dtype if x.is_contiguous() else (x.dtype, x.shape, x.stride()) for x in tensors],
    )


def dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the elements fill their memory without gaps or overlaps, in whatever order."""
    expected = 1
    for stride, size in sorted((s, n) for n, s in zip(shape, strides, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _laid_out(g: Tensor, w: Tensor) -> Tensor:
    """The gradient in the weight's type and memory layout; itself if it is so already."""
    if g.shape != w.shape:
        raise UserError(f"a gradient has shape {tuple(g.shape)} and its parameter {tuple(w.shape)}")
    alike = g.stride() == w.stride() or (g.is_contiguous() and w.is_contiguous())
    if g.dtype == w.dtype and alike and g.data_ptr() and not g.is_neg():
        return g
    return torch.empty_like(w).copy_(g)
