"""The addresses, numbers and chunks that a compiled worker reads, for parameters of equal types (CPU)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from stepwell.engine import llvm, rounding, threads
from stepwell.engine.program import SQUARES, Program
from stepwell.engine.records import Records
from stepwell.engine.state import state_name

ALONE = 1 << 15  # so many elements one thread does alone: waking others takes longer


class Table:
    """One pass over the parameters of `Records`, by LLVM's code on the CPU's threads.

    types: of the program's element inputs, in their order. The other arguments are those of `Records`.
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
        self.program, self.stochastic = program, stochastic and torch.bfloat16 in types
        self.records = records = Records(parameters, numbers, members)
        self.numbers, self.each = records.numbers, records.each
        self.chunks = records.chunks(llvm.CHUNK)

        self.scalar_states = [name for name in program.results if name in program.scalars]
        self.kept = [[state[i][state_name(name)] for i in numbers] for name in self.scalar_states]
        self.scalars = np.zeros((records.count, len(program.scalars)))
        self.new_scalars = np.zeros((records.count, len(self.scalar_states)))
        self.filled: dict[str, Any] = {}  # numbers that stand in `scalars` already
        self.seeds = np.zeros(records.count, dtype=np.int64)
        self.pointers = np.zeros((records.count, len(program.elements)), dtype=np.int64)
        for column, name in enumerate(program.elements):
            if name != "g":
                tensors = [state[i][state_name(name)] for i in numbers] if name != "w" else records.weights
                self.pointers[:, column] = records.addresses(tensors)
        self.gradient_column = program.elements.index("g")
        kernel = llvm.kernel(program, dict(zip(program.elements, types, strict=True)), self.stochastic)
        self.job = _Job(kernel, self.pointers, self.scalars, self.new_scalars, self.seeds, len(self.chunks))
        self.gradient_pointers = np.zeros((records.count, 1), dtype=np.int64)
        self.squares_job: _Job | None = None

    def squares(self, gradients: Sequence[Tensor | None]) -> float | np.ndarray | None:
        """Σ g², of each member where there are members; None without a gradient."""
        if self.squares_job is None:
            none = np.zeros((len(self.pointers), 0))
            kernel = llvm.kernel(SQUARES, {"g": self.records.type})
            self.squares_job = _Job(kernel, self.gradient_pointers, none, none, self.seeds, len(self.chunks))
        chunks, held = self._take(gradients, self.gradient_pointers, 0)
        if not held:
            return None
        return self._total(chunks, self.squares_job.run(chunks, self.records.elements))

    def update(
        self,
        gradients: Sequence[Tensor | None],
        steps: list[int],
        values: Mapping[str, Any],
        skip: Tensor | None = None,
    ) -> float | np.ndarray | None:
        """Updates the parameters that have a gradient, counts their steps and returns `squares`.

        skip: where it is true nothing changes, no step is counted, and Σ g² is 0.
        """
        chunks, held = self._take(gradients, self.pointers, self.gradient_column)
        if not held:
            return None
        if skip is not None and bool(skip):
            return np.zeros(self.each if self.records.members else ())
        for i, g in zip(self.numbers, gradients, strict=True):
            if g is not None:
                steps[i] += 1
        self._fill([steps[i] for i in self.numbers], values)
        self.records.fetch()
        partials = self.job.run(chunks, self.records.elements)
        self.records.put_back(gradients)
        new = torch.from_numpy(self.new_scalars).view(len(self.numbers), self.each, -1)
        for number, tensors in enumerate(self.kept):
            for k, tensor in enumerate(tensors):
                if gradients[k] is not None:
                    tensor.copy_(new[k, :, number].view(tensor.shape))
        increment_version(self.records.parameters)
        return self._total(chunks, partials)

    def settle(self, steps: list[int]) -> None:
        """Takes back the steps that were skipped: none, since `update` knew it at once."""

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
        held = self.records.laid_out(gradients)
        if len(held) == len(gradients):
            pointers[:, column] = self.records.addresses(held)
            return self.chunks, held
        there = np.array([g is not None for g in gradients])
        records = np.repeat(there, self.each)
        pointers[records, column] = self.records.addresses(held, self.records.sizes[there])
        return self.chunks[records[self.chunks[:, 0]]], held

    def _total(self, chunks: np.ndarray, partials: np.ndarray) -> float | np.ndarray:
        """The chunks' sums, added in their order: one number, or one a member."""
        if self.records.members is None:
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
