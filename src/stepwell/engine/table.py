"""The addresses, numbers and chunks that a compiled worker reads, for parameters of equal types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from stepwell.engine import llvm, rounding, threads
from stepwell.engine.program import Operation, Program
from stepwell.engine.state import state_name
from stepwell.errors import UserError

ALONE = 1 << 15  # so many elements one thread does alone: waking others takes longer
SQUARES = Program((Operation("input", (), "g", False),), ("g",), (), {})  # adds up g², changes nothing


class Table:
    """Parameters of equal types as records: one a parameter, or one for each member of a population.

    numbers: the parameters' places in their group. types: of the program's element inputs, in their
    order. members: how many models lie behind one another in each parameter's first dimension; None if
    it is one model without such a dimension.
    """

    def __init__(
        self,
        program: Program,
        parameters: Sequence[Tensor],
        state: Sequence[dict[str, Tensor]],
        numbers: Sequence[int],
        types: tuple[torch.dtype, ...],
        members: int | None = None,
        stochastic: bool = False,
    ) -> None:
        self.program, self.numbers, self.members = program, list(numbers), members
        self.stochastic = stochastic and torch.bfloat16 in types
        self.parameters = [parameters[i].detach() for i in numbers]
        # What has gaps between its elements is updated in a copy that has none.
        self.copies = {
            k: torch.empty_like(p) for k, p in enumerate(self.parameters) if not dense(p.shape, p.stride())
        }
        self.weights = [self.copies.get(k, p) for k, p in enumerate(self.parameters)]
        self.plain, self.type = all(w.is_contiguous() for w in self.weights), types[0]
        self.each = members or 1  # records a parameter
        records = len(self.numbers) * self.each
        sizes = np.array([w.numel() // self.each for w in self.weights])
        self.elements = int(sizes.sum()) * self.each
        self.chunks = _chunks(np.repeat(sizes, self.each))

        self.scalar_states = [name for name in program.results if name in program.scalars]
        self.kept = [[state[i][state_name(name)] for i in numbers] for name in self.scalar_states]
        self.scalars = np.zeros((records, len(program.scalars)))
        self.new_scalars = np.zeros((records, len(self.scalar_states)))
        self.filled: dict[str, Any] = {}  # numbers that stand in `scalars` already
        self.seeds = np.zeros(records, dtype=np.int64)
        self.sizes = sizes
        self.pointers = np.zeros((records, len(program.elements)), dtype=np.int64)
        for column, name in enumerate(program.elements):
            if name != "g":
                tensors = [state[i][state_name(name)] for i in numbers] if name != "w" else self.weights
                self.pointers[:, column] = self._addresses(tensors)
        self.gradient_column = program.elements.index("g")
        kernel = llvm.kernel(program, dict(zip(program.elements, types, strict=True)), self.stochastic)
        self.job = _Job(kernel, self.pointers, self.scalars, self.new_scalars, self.seeds, len(self.chunks))
        self.gradient_pointers = np.zeros((records, 1), dtype=np.int64)
        self.squares_job: _Job | None = None

    def squares(self, gradients: Sequence[Tensor | None]) -> float | np.ndarray | None:
        """Σ g², of each member where there are members; None without a gradient."""
        if self.squares_job is None:
            none = np.zeros((len(self.pointers), 0))
            kernel = llvm.kernel(SQUARES, {"g": self.type})
            self.squares_job = _Job(kernel, self.gradient_pointers, none, none, self.seeds, len(self.chunks))
        chunks, held = self._take(gradients, self.gradient_pointers, 0)
        if not held:
            return None
        return self._total(chunks, self.squares_job.run(chunks, self.elements))

    def update(
        self, gradients: Sequence[Tensor | None], steps: list[int], values: Mapping[str, Any]
    ) -> float | np.ndarray | None:
        """Updates the parameters that have a gradient, counts their steps and returns `squares`."""
        chunks, held = self._take(gradients, self.pointers, self.gradient_column)
        if not held:
            return None
        for i, g in zip(self.numbers, gradients, strict=True):
            if g is not None:
                steps[i] += 1
        self._fill([steps[i] for i in self.numbers], values)
        for k, copy in self.copies.items():
            copy.copy_(self.parameters[k])
        partials = self.job.run(chunks, self.elements)
        for k, copy in self.copies.items():
            if gradients[k] is not None:
                self.parameters[k].copy_(copy)
        new = torch.from_numpy(self.new_scalars).view(len(self.numbers), self.each, -1)
        for number, tensors in enumerate(self.kept):
            for k, tensor in enumerate(tensors):
                if gradients[k] is not None:
                    tensor.copy_(new[k, :, number].view(tensor.shape))
        increment_version(self.parameters)
        return self._total(chunks, partials)

    def _fill(self, steps: list[int], values: Mapping[str, Any]) -> None:
        """Writes the step and the other uniform inputs of each record."""
        by_member = self.scalars.reshape(len(steps), self.each, -1)
        for column, name in enumerate(self.program.scalars):
            if name == "t":
                by_member[:, :, column] = np.array(steps)[:, None]
            elif name in self.scalar_states:
                for k, tensor in enumerate(self.kept[self.scalar_states.index(name)]):
                    by_member[k, :, column] = tensor.numpy()
            elif not isinstance(value := values[name], (int, float)):  # of each member, or a 0-d tensor
                by_member[:, :, column] = np.asarray(value, dtype=float).reshape(-1)
                self.filled.pop(name, None)
            elif self.filled.get(name) != value:
                self.scalars[:, column] = self.filled[name] = value
        if self.stochastic:
            own = [rounding.seed(t, i) for t, i in zip(steps, self.numbers, strict=True)]
            self.seeds[:] = (np.array(own)[:, None] + rounding.MEMBER * np.arange(self.each)).reshape(-1)

    def _take(
        self, gradients: Sequence[Tensor | None], pointers: np.ndarray, column: int
    ) -> tuple[np.ndarray, list[Tensor]]:
        """Writes the gradients' addresses; returns the chunks to do and the tensors to hold meanwhile."""
        held = [g for g in gradients if g is not None]
        there = None
        if len(held) < len(gradients):
            there = np.repeat([g is not None for g in gradients], self.each)
        as_weights = self.plain and all(map(Tensor.is_contiguous, held))
        if not (as_weights and {g.dtype for g in held} <= {self.type}):
            weights = [w for w, g in zip(self.weights, gradients, strict=True) if g is not None]
            held = [_laid_out(g, w) for g, w in zip(held, weights, strict=True)]
        if there is None:
            pointers[:, column] = self._addresses(held)
            return self.chunks, held
        sizes = [size for size, g in zip(self.sizes, gradients, strict=True) if g is not None]
        pointers[there, column] = self._addresses(held, np.array(sizes))
        return self.chunks[there[self.chunks[:, 0]]], held

    def _addresses(self, tensors: Sequence[Tensor], sizes: np.ndarray | None = None) -> Any:
        """The address of each record's first element in these tensors, one a parameter."""
        addresses = list(map(Tensor.data_ptr, tensors))
        if self.members is None or not tensors:
            return addresses
        bytes_each = (self.sizes if sizes is None else sizes) * tensors[0].element_size()
        return (np.array(addresses)[:, None] + bytes_each[:, None] * np.arange(self.each)).reshape(-1)

    def _total(self, chunks: np.ndarray, partials: np.ndarray) -> float | np.ndarray:
        """The chunks' sums, added in their order: one number, or one a member."""
        if self.members is None:
            return float(partials.sum())
        return np.bincount(chunks[:, 0] % self.each, weights=partials, minlength=self.each)


class _Job:
    """One kernel with what its worker reads: see the places at the top of `llvm`."""

    def __init__(
        self,
        kernel: llvm.Kernel,
        pointers: np.ndarray,
        scalars: np.ndarray,
        new_scalars: np.ndarray,
        seeds: np.ndarray,
        chunks: int,
    ) -> None:
        self.held = (kernel, pointers, scalars, new_scalars, seeds)  # the worker has only addresses
        self.address, self.worker = kernel.address, threads.worker(kernel.address)
        self.partials = np.zeros(chunks)
        self.fields = np.zeros(8, dtype=np.int64)
        self.fields[llvm.POINTERS] = pointers.ctypes.data
        self.fields[llvm.SCALARS] = scalars.ctypes.data
        self.fields[llvm.NEW_SCALARS] = new_scalars.ctypes.data
        self.fields[llvm.PARTIALS] = self.partials.ctypes.data
        self.fields[llvm.SEEDS] = seeds.ctypes.data
        self.where = self.fields.ctypes.data
        self.chunks: np.ndarray | None = None

    def run(self, chunks: np.ndarray, elements: int) -> np.ndarray:
        """Does the chunks on as many threads as pay; returns the sum of squares of each."""
        if chunks is not self.chunks:
            self.chunks = np.ascontiguousarray(chunks)
            self.fields[llvm.CHUNK_TABLE] = self.chunks.ctypes.data
            self.fields[llvm.CHUNKS] = len(chunks)
        self.fields[llvm.COUNTER] = 0
        count = 1 if elements <= ALONE else min(torch.get_num_threads(), len(chunks))
        threads.run(self.worker, self.address, self.where, count)
        return self.partials[: len(chunks)]


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
    if g.dtype == w.dtype and (g.stride() == w.stride() or (g.is_contiguous() and w.is_contiguous())):
        return g
    return torch.empty_like(w).copy_(g)


def _chunks(sizes: np.ndarray) -> np.ndarray:
    """Lines of (record, start, length); an empty record has one, since its scalars move on too."""
    counts = np.maximum(-(-sizes // llvm.CHUNK), 1)
    record = np.repeat(np.arange(len(sizes)), counts)
    first = np.cumsum(counts) - counts
    start = (np.arange(len(record)) - first[record]) * llvm.CHUNK
    return np.stack([record, start, np.minimum(llvm.CHUNK, sizes[record] - start)], axis=1).astype(np.int64)
