"""The fused engine: the whole update of all parameters as one pass over memory (CPU)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from stepwell.engine import llvm, threads
from stepwell.engine.program import FOLDED, Operation, Program, Untraceable, trace
from stepwell.engine.state import AVERAGE, Unsupported, check_shapes, new_state
from stepwell.engine.text import Folded
from stepwell.errors import UserError
from stepwell.rules import Rule

ALONE = 1 << 15  # so many elements one thread does alone: waking others takes longer
KINDS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SQUARES = Program((Operation("input", (), "g", False),), ("g",), (), {})  # adds up g², changes nothing


class Fused:
    """Runs `rule` on a fixed list of CPU parameters, all with the same hyperparameters.

    As `Eager`, whose results it reproduces: `state`, `steps`, `norm`, `step`. Weights are float64,
    float32, bfloat16 or float16, in any memory layout; what is not dense is copied to and fro.

    average: keeps the average of the weights as state "ema". kind: the type of the state, default the
    weights' own. stochastic: bfloat16 results are rounded up or down by chance, seeded by the step.
    Raises Unsupported, also from `follow` when parameters were moved to where there is no kernel.
    """

    def __init__(
        self,
        rule: Rule,
        parameters: Sequence[Tensor],
        h: Mapping[str, float],
        average: bool = False,
        kind: torch.dtype | None = None,
        stochastic: bool = False,
    ) -> None:
        self.rule, self.parameters = rule, list(parameters)
        self.average, self.kind, self.stochastic = average, kind, stochastic
        try:
            self.program = trace(rule, average)
        except Untraceable as error:
            raise Unsupported(str(error)) from error
        _check_supported(self.parameters)
        self.steps = [0] * len(self.parameters)
        self.state = [new_state(rule, p, h, average, kind) for p in self.parameters]
        self._build()

    def _build(self) -> None:
        """Makes the tables of addresses for the parameters and the state where they lie now."""
        kinds: dict[tuple[torch.dtype, ...], list[int]] = {}
        for i, (p, state) in enumerate(zip(self.parameters, self.state, strict=True)):
            types = tuple(self._type(name, p, state) for name in self.program.elements)
            kinds.setdefault(types, []).append(i)
        self._tables = [_Table(self, members, types) for types, members in kinds.items()]
        self._seen = [
            p.detach() for p in self.parameters
        ]  # held, so that no other storage gets these addresses
        self._places = list(map(Tensor.data_ptr, self.parameters))

    def _type(self, name: str, p: Tensor, state: dict[str, Tensor]) -> torch.dtype:
        return p.dtype if name in ("w", "g") else state[_state_name(name)].dtype

    def follow(self) -> None:
        """Takes the parameters where they lie now, and the state to their type."""
        if list(map(Tensor.data_ptr, self.parameters)) == self._places:
            return
        check_shapes(self.rule, self.parameters, self._seen)
        _check_supported(self.parameters)
        for p, seen, state in zip(self.parameters, self._seen, self.state, strict=True):
            if p.dtype != seen.dtype or p.stride() != seen.stride():
                for name, value in state.items():
                    if value.dim() == p.dim() and value.shape == p.shape and value.dtype != torch.float64:
                        moved = torch.empty_like(p.detach(), dtype=self.kind or p.dtype)
                        state[name] = moved.copy_(value)
        self._build()

    def norm(self, gradients: Sequence[Tensor | None]) -> Tensor | None:
        """The Euclidean norm of the gradients, None without one."""
        return self._norm([table.squares(self._of(table, gradients)) for table in self._tables])

    def step(
        self,
        gradients: Sequence[Tensor | None],
        h: Mapping[str, Any],
        folded: Folded = Folded(),  # noqa: B008  (it is immutable)
        skip: Tensor | None = None,
    ) -> Tensor | None:
        """Makes one update of every parameter that has a gradient; returns the gradients' norm.

        The norm is of the gradients as they are, before anything is folded in, a 0-d tensor; None
        without a gradient, and 0 where `skip` is true: then nothing changes and no step is counted.
        """
        if skip is not None and bool(skip):
            return torch.zeros((), dtype=torch.float64)
        values = {**h, **{name: getattr(folded, name) for name in FOLDED}}
        values |= {f"sums.{i}": total for i, total in enumerate(values.pop("sums", ()))}
        return self._norm([table.update(self._of(table, gradients), values) for table in self._tables])

    def _of(self, table: _Table, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return gradients if len(self._tables) == 1 else [gradients[i] for i in table.members]

    def _norm(self, squares: list[float | None]) -> Tensor | None:
        parts = [s for s in squares if s is not None]
        return torch.tensor(math.sqrt(sum(parts)), dtype=torch.float64) if parts else None


class _Table:
    """Parameters of equal types: their addresses, scalars and chunks, one record each."""

    def __init__(self, engine: Fused, members: list[int], types: tuple[torch.dtype, ...]) -> None:
        program = engine.program
        self.engine, self.members = engine, members
        self.parameters = [engine.parameters[i].detach() for i in members]
        # What is not dense is updated in a dense copy.
        self.copies = {
            k: torch.empty_like(p) for k, p in enumerate(self.parameters) if not _dense(p.shape, p.stride())
        }
        weights = [self.copies.get(k, p) for k, p in enumerate(self.parameters)]
        self.plain = all(w.is_contiguous() for w in weights)
        self.weights, self.type = weights, types[0]
        self.chunks = _chunks([w.numel() for w in weights])
        self.elements = sum(w.numel() for w in weights)

        self.scalar_states = [name for name in program.results if name in program.scalars]
        self.kept = [[engine.state[i][_state_name(n)] for n in self.scalar_states] for i in members]
        self.scalars = np.zeros((len(members), len(program.scalars)))
        self.filled: dict[str, Any] = {}
        self.new_scalars = np.zeros((len(members), len(self.scalar_states)))
        self.pointers = np.zeros((len(members), len(program.elements)), dtype=np.int64)
        for column, name in enumerate(program.elements):
            if name == "w":
                self.pointers[:, column] = [w.data_ptr() for w in weights]
            elif name != "g":
                self.pointers[:, column] = [engine.state[i][_state_name(name)].data_ptr() for i in members]
        self.gradient_column = program.elements.index("g")
        of_element = dict(zip(program.elements, types, strict=True))
        kernel = llvm.kernel(program, of_element, engine.stochastic and torch.bfloat16 in types)
        self.kernel = _Job(kernel, self.pointers, self.scalars, self.new_scalars, len(self.chunks))
        self.gradient_pointers = np.zeros((len(members), 1), dtype=np.int64)
        self._squares: _Job | None = None

    def squares(self, gradients: Sequence[Tensor | None]) -> float | None:
        """Σ g², None without a gradient."""
        if self._squares is None:
            none = np.zeros((len(self.members), 0))
            kernel = llvm.kernel(SQUARES, {"g": self.type})
            self._squares = _Job(kernel, self.gradient_pointers, none, none, len(self.chunks))
        chunks, held = self._take(gradients, self.gradient_pointers, 0)
        return self._squares.run(chunks, self.elements) if held else None

    def update(self, gradients: Sequence[Tensor | None], values: Mapping[str, Any]) -> float | None:
        """Updates the members that have a gradient; returns Σ g²."""
        chunks, held = self._take(gradients, self.pointers, self.gradient_column)
        if not held:
            return None
        engine, scalars = self.engine, self.scalars
        steps = engine.steps
        for i, g in zip(self.members, gradients, strict=True):
            if g is not None:
                steps[i] += 1
        for column, name in enumerate(engine.program.scalars):
            if name == "t":
                scalars[:, column] = [steps[i] for i in self.members] if len(steps) > 1 else steps[0]
            elif name in self.scalar_states:
                number = self.scalar_states.index(name)
                scalars[:, column] = [float(kept[number]) for kept in self.kept]
            elif self.filled.get(name) is not (value := values[name]):
                scalars[:, column] = float(value)
                self.filled[name] = value
        for k, copy in self.copies.items():
            copy.copy_(self.parameters[k])
        total = self.kernel.run(chunks, self.elements, seed=hash((max(steps), self.members[0])))
        for k, copy in self.copies.items():
            if gradients[k] is not None:
                self.parameters[k].copy_(copy)
        for number in range(len(self.scalar_states)):
            for k, g in enumerate(gradients):
                if g is not None:
                    self.kept[k][number].fill_(self.new_scalars[k, number])
        increment_version(self.parameters)
        return total

    def _take(
        self, gradients: Sequence[Tensor | None], pointers: np.ndarray, column: int
    ) -> tuple[np.ndarray, list[Tensor]]:
        """Writes the gradients' addresses; returns the chunks to do and the tensors to hold meanwhile."""
        held = [g for g in gradients if g is not None]
        chunks = self.chunks
        if len(held) < len(gradients):
            there = np.array([g is not None for g in gradients])
            chunks = chunks[there[chunks[:, 0]]]
        if not (
            self.plain and all(map(Tensor.is_contiguous, held)) and {g.dtype for g in held} <= {self.type}
        ):
            weights = [w for w, g in zip(self.weights, gradients, strict=True) if g is not None]
            held = [_laid_out(g, w) for g, w in zip(held, weights, strict=True)]
        addresses = list(map(Tensor.data_ptr, held))
        if len(held) == len(gradients):
            pointers[:, column] = addresses
        else:
            pointers[there, column] = addresses
        return chunks, held


class _Job:
    """What a kernel's worker reads: see the places at the top of `llvm`."""

    def __init__(
        self,
        kernel: llvm.Kernel,
        pointers: np.ndarray,
        scalars: np.ndarray,
        new_scalars: np.ndarray,
        chunks: int,
    ) -> None:
        self.held = (kernel, pointers, scalars, new_scalars)  # machine code and memory that stay as long
        self.address, self.worker = kernel.address, threads.worker(kernel.address)
        self.partials = np.zeros(chunks)
        self.fields = np.zeros(8, dtype=np.int64)
        self.fields[llvm.POINTERS] = pointers.ctypes.data
        self.fields[llvm.SCALARS] = scalars.ctypes.data
        self.fields[llvm.NEW_SCALARS] = new_scalars.ctypes.data
        self.fields[llvm.PARTIALS] = self.partials.ctypes.data
        self.where = self.fields.ctypes.data
        self.chunks: np.ndarray | None = None

    def run(self, chunks: np.ndarray, elements: int, seed: int = 0) -> float:
        """Does the chunks on as many threads as pay; returns the sum of their sums, added in their order."""
        if chunks is not self.chunks:
            self.chunks = np.ascontiguousarray(chunks)
            self.fields[llvm.CHUNK_TABLE] = self.chunks.ctypes.data
            self.fields[llvm.CHUNKS] = len(chunks)
        self.fields[llvm.COUNTER] = 0
        self.fields[llvm.SEED] = seed & 0x7FFFFFFF
        count = 1 if elements <= ALONE else min(torch.get_num_threads(), len(chunks))
        threads.run(self.worker, self.address, self.where, count)
        return float(self.partials[: len(chunks)].sum())


def _state_name(element: str) -> str:
    return AVERAGE if element == "average" else element.removeprefix("state.")


def _check_supported(parameters: Sequence[Tensor]) -> None:
    for p in parameters:
        if p.device.type != "cpu" or p.layout is not torch.strided or type(p.data) is not Tensor:
            raise Unsupported(
                f"a parameter is on {p.device}"
                if p.device.type != "cpu"
                else "a parameter is no plain tensor"
            )
        if p.dtype not in KINDS:
            raise Unsupported(f"a parameter is {p.dtype}")
    spans = sorted((p.data_ptr(), p.data_ptr() + _extent(p)) for p in parameters if p.numel())
    if any(end > start for (_, end), (start, _) in pairwise(spans)):
        raise Unsupported("two parameters share memory")


def _extent(p: Tensor) -> int:
    """Bytes from a tensor's first element to the end of its last."""
    return p.element_size() * (1 + sum((n - 1) * s for n, s in zip(p.shape, p.stride(), strict=True)))


def _dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
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


def _chunks(sizes: Sequence[int]) -> np.ndarray:
    """Lines of (record, start, length); an empty tensor has one, since its scalars move on too."""
    lines = []
    for record, size in enumerate(sizes):
        starts = np.arange(0, max(size, 1), llvm.CHUNK)
        lengths = np.minimum(llvm.CHUNK, size - starts)
        lines.append(np.stack([np.full_like(starts, record), starts, lengths], axis=1))
    return np.concatenate(lines).astype(np.int64)
