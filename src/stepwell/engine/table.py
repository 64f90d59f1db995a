"""The addresses, numbers and chunks that a compiled worker reads, for parameters of equal types (CPU)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from stepwell.engine import llvm, rounding, threads
from stepwell.engine.program import SQUARES, Program
from stepwell.engine.records import Records
from stepwell.engine.state import state_name
from stepwell.engine.text import is_plain
from stepwell.engine.uniforms import Uniforms

ALONE = 1 << 15  # so many elements one thread does alone: waking others takes longer
OVERHEAD = 200  # what taking a chunk costs, in elements


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

        self.state = [state[i] for i in numbers]
        self.uniforms = Uniforms(program, self.state, self.each)
        self.seeds = np.zeros(records.count, dtype=np.int64)
        self.pointers = self._pointers(program)
        self.types = dict(zip(program.elements, types, strict=True))
        self.jobs: dict[bool, _Job] = {}
        self.squares_job: _Job | None = None
        self.sums_job: _Job | None = None
        self.there: tuple[list[bool], np.ndarray, np.ndarray] | None = None

    def _pointers(self, program: Program) -> np.ndarray:
        """The addresses of a program's elements, a line a record; the gradients' are written later."""
        pointers = np.zeros((self.records.count, len(program.elements)), dtype=np.int64)
        for column, name in enumerate(program.elements):
            if name == "w":
                pointers[:, column] = self.records.addresses(self.records.weights)
            elif name != "g":
                kept = [own[state_name(name)] for own in self.state]
                pointers[:, column] = self.records.addresses(kept)
        return pointers

    def _job(self, plain: bool) -> _Job:
        """The kernel for plain updates, or for all; compiled when first needed."""
        if plain not in self.jobs:
            program = self.program.plain if plain and self.program.plain else self.program
            kernel = llvm.kernel(program, self.types, self.stochastic)
            gradients = self.pointers[:, program.elements.index("g")]
            self.jobs[plain] = _Job(
                kernel, self.pointers, gradients, self.uniforms, self.seeds, len(self.chunks)
            )
        return self.jobs[plain]

    def squares(self, taken: Taken) -> float | np.ndarray | None:
        """Σ g², of each member where there are members; None without a gradient."""
        if self.squares_job is None:
            pointers, kernel = self._pointers(SQUARES), llvm.kernel(SQUARES, {"g": self.records.type})
            self.squares_job = _Job(kernel, pointers, pointers[:, 0], None, self.seeds, len(self.chunks))
        if not taken.held:
            return None
        taken.squares = self._total(taken.chunks, self.squares_job.run(taken, self.records.elements)[:, 0])
        return taken.squares

    def sums(
        self,
        program: Program,
        taken: Taken,
        steps: list[int],
        values: Mapping[str, Any],
    ) -> list[float | np.ndarray]:
        """The program's totals for the update to come, of each member where there are members.

        program: of the rule's sums (see `trace_sums`). values: of its uniform inputs. Without a gradient
        there are none.
        """
        if self.sums_job is None:
            pointers, uniforms = self._pointers(program), Uniforms(program, self.state, self.each)
            kernel = llvm.kernel(program, {name: self.types[name] for name in program.elements})
            column = program.elements.index("g")
            self.sums_job = _Job(
                kernel, pointers, pointers[:, column], uniforms, self.seeds, len(self.chunks)
            )
        if not taken.held:
            return []
        assert self.sums_job.uniforms is not None
        self.sums_job.uniforms.fill([steps[i] + 1 for i in self.numbers], values)
        self.records.fetch()
        partials = self.sums_job.run(taken, self.records.elements)
        return [self._total(taken.chunks, column) for column in partials.T]

    def update(
        self,
        taken: Taken,
        steps: list[int],
        values: Mapping[str, Any],
        skip: Tensor | None = None,
    ) -> float | np.ndarray | None:
        """Updates the parameters that have a gradient, counts their steps and returns `squares`.

        values: of the program's uniform inputs. skip: where it is true nothing changes, no step is
        counted, and Σ g² is 0.
        """
        if not taken.held:
            return None
        if skip is not None and bool(skip):
            return np.zeros(self.each if self.records.members else ())
        there = [g is not None for g in taken.gradients]
        for i in compress(self.numbers, there):
            steps[i] += 1
        own = [steps[i] for i in self.numbers]
        self.uniforms.fill(own, values)
        if self.stochastic:
            self._sow(own)
        self.records.fetch()
        partials = self._job(is_plain(values)).run(taken, self.records.elements)
        self.records.put_back(taken.gradients)
        self.uniforms.keep(there)
        increment_version(self.records.parameters)
        return self._total(taken.chunks, partials[:, 0]) if taken.squares is None else taken.squares

    def settle(self, steps: list[int]) -> None:
        """Takes back the steps that were skipped: none, since `update` knew it at once."""

    def _sow(self, steps: list[int]) -> None:
        """Writes the seed of each record's rounding."""
        own = [rounding.seed(t, i) for t, i in zip(steps, self.numbers, strict=True)]
        self.seeds[:] = (np.array(own)[:, None] + rounding.MEMBER * np.arange(self.each)).reshape(-1)

    def take(self, gradients: Sequence[Tensor | None]) -> Taken:
        """Looks the gradients over: each time, since a step brings new ones."""
        held = self.records.laid_out(gradients)
        if len(held) == len(gradients):
            addresses = self.records.addresses(held)
            return Taken(gradients, held, slice(None), addresses, self.chunks)
        there = [g is not None for g in gradients]
        if self.there is None or self.there[0] != there:
            records = np.repeat(there, self.each)
            self.there = there, records, self.chunks[records[self.chunks[:, 0]]]
        _, records, chunks = self.there
        addresses = self.records.addresses(held, self.records.sizes[there])
        return Taken(gradients, held, records, addresses, chunks)

    def _total(self, chunks: np.ndarray, partials: np.ndarray) -> float | np.ndarray:
        """The chunks' sums, added in their order: one number, or one a member."""
        if self.records.members is None:
            return float(partials.sum())
        return np.bincount(chunks[:, 0] % self.each, weights=partials, minlength=self.each)


@dataclass
class Taken:
    """Gradients as a kernel reads them, for one update: nothing of them may change before it."""

    gradients: Sequence[Tensor | None]
    held: list[Tensor]  # those there are, in their weights' type and layout
    records: Any  # which records have one, as NumPy takes them
    addresses: Any  # of these
    chunks: np.ndarray
    squares: float | np.ndarray | None = None  # once added up


class _Job:
    """One kernel with what its worker reads: see the places at the top of `llvm`."""

    def __init__(
        self,
        kernel: llvm.Kernel,
        pointers: np.ndarray,
        gradients: np.ndarray,
        uniforms: Uniforms | None,
        seeds: np.ndarray,
        chunks: int,
    ) -> None:
        self.held = (kernel, pointers, seeds)  # the worker has only addresses
        self.gradients, self.uniforms = gradients, uniforms  # the first are a column of `pointers`
        self.address, self.worker = kernel.address, threads.worker(kernel.address)
        self.partials = np.zeros((chunks, kernel.totals))
        self.fields = np.zeros(llvm.SEEDS + 1, dtype=np.int64)
        self.fields[llvm.POINTERS] = pointers.ctypes.data
        if uniforms is not None:
            self.fields[llvm.SCALARS] = uniforms.now.ctypes.data
            self.fields[llvm.NEW_SCALARS] = uniforms.new.ctypes.data
        self.fields[llvm.PARTIALS] = self.partials.ctypes.data
        self.fields[llvm.SEEDS] = seeds.ctypes.data
        self.where = self.fields.ctypes.data
        self.cut: tuple[np.ndarray, int] | None = None  # the chunks and threads that the parts are for

    def run(self, taken: Taken, elements: int) -> np.ndarray:
        """Does the chunks on as many threads as pay; returns the totals of each, a line a chunk."""
        chunks = taken.chunks
        self.gradients[taken.records] = taken.addresses
        count = 1 if elements <= ALONE else min(torch.get_num_threads(), len(chunks))
        if self.cut is None or self.cut[0] is not chunks or self.cut[1] != count:
            self._cut(chunks, count)
        self.fields[llvm.ARRIVED] = 0
        self.next[:] = self.first
        threads.run(self.worker, self.address, self.where, count)
        return self.partials[: len(chunks)]

    def _cut(self, chunks: np.ndarray, count: int) -> None:
        """Gives each thread a part of the chunks, of about as much work as the others'."""
        self.cut = None  # until all is there: what interrupts this leaves it to be done again
        table = np.ascontiguousarray(chunks)
        work = np.cumsum(table[:, 2] + OVERHEAD)
        ends = np.searchsorted(work, work[-1] * np.arange(1, count + 1) / count) + 1
        self.first = np.concatenate([[0], ends[:-1]])
        parts = np.zeros((count, llvm.PART), dtype=np.int64)
        parts[:, llvm.END] = ends
        self.parts, self.next = parts, parts[:, llvm.NEXT]
        self.fields[llvm.PARTS], self.fields[llvm.THREADS] = parts.ctypes.data, count
        self.fields[llvm.CHUNK_TABLE] = table.ctypes.data
        self.chunks, self.cut = table, (chunks, count)
