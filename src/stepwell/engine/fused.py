"""The fused engine: the whole update of all parameters as one pass over memory, on a CPU or a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepwell.engine.program import Program, Untraceable, trace, trace_sums
from stepwell.engine.records import layout
from stepwell.engine.state import Unsupported, check_shapes, new_state, state_name
from stepwell.engine.sums import add_up
from stepwell.engine.text import Folded
from stepwell.errors import UserError
from stepwell.rules import Rule

KINDS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _by_llvm() -> Any:
    from stepwell.engine.table import Table  # llvmlite loads when used

    return Table


def _by_triton() -> Any:
    try:
        from stepwell.engine.device_table import DeviceTable
    except ImportError as error:
        raise Unsupported("Triton is not installed (pip install triton)") from error
    return DeviceTable


# What makes the pass over parameters on a device, by its type.
TABLES: dict[str, Callable[[], Any]] = {"cpu": _by_llvm, "cuda": _by_triton}


class Fused:
    """Runs `rule` on a fixed list of parameters on one device, all with the same hyperparameters.

    As `Eager`, whose results it reproduces: `state`, `steps`, `norm`, `step`. Weights are float64,
    float32, bfloat16 or float16, in any memory layout; what is not dense is copied to and fro. On a GPU
    nothing waits for the device but `steps`, and that only where updates were skipped.

    average: keeps the average of the weights as state "ema". kind: the type of the state, default the
    weights' own. stochastic: bfloat16 results are rounded up or down by chance, seeded by the step.
    members: the parameters are those of so many models, one behind the other in the first dimension;
    every hyperparameter and part of `Folded` may then be a tensor with one value for each, and norms are
    such tensors. Raises Unsupported, also from `follow` when parameters were moved to where there is no
    kernel.
    """

    def __init__(
        self,
        rule: Rule,
        parameters: Sequence[Tensor],
        h: Mapping[str, Any],
        average: bool = False,
        kind: torch.dtype | None = None,
        stochastic: bool = False,
        members: int | None = None,
    ) -> None:
        self.rule, self.parameters = rule, list(parameters)
        self.average, self.kind, self.stochastic, self.members = average, kind, stochastic, members
        try:
            self.program = trace(rule, average)
        except Untraceable as error:
            raise Unsupported(str(error)) from error
        self._kind = _supported(self.parameters, members)
        self._sums = _sums(rule) if self.parameters and self.parameters[0].is_cpu else None
        self._steps = [0] * len(self.parameters)  # updates begun
        self._state = [new_state(rule, p, h, average, kind, members) for p in self.parameters]
        self._shown = False  # whether anybody else has the state's tensors, and may have moved them
        self._build()

    @property
    def state(self) -> list[dict[str, Tensor]]:
        """Each parameter's state by name, the tensors that the kernel works on."""
        self._shown = True
        return self._state

    def _build(self) -> None:
        """Makes the tables of addresses for the parameters and the state where they lie now."""
        kinds: dict[tuple[torch.dtype, ...], list[int]] = {}
        for i, (p, state) in enumerate(zip(self.parameters, self._state, strict=True)):
            types = (
                p.dtype if n in ("w", "g") else state[state_name(n)].dtype for n in self.program.elements
            )
            kinds.setdefault(tuple(types), []).append(i)
        own = (self.program, self.parameters, self._state)
        self._tables = [
            self._kind(*own, n, types, self.members, self.stochastic) for types, n in kinds.items()
        ]
        self._kept = [value for state in self._state for value in state.values()]
        # Held, so that no other storage gets these addresses: an equal address is the same memory.
        self._seen = [p.detach() for p in self.parameters]
        self._seen_kept = [value.detach() for value in self._kept]
        self._layout, self._kept_at = layout(self.parameters), list(map(Tensor.data_ptr, self._kept))

    @property
    def steps(self) -> list[int]:
        """The number of updates that each parameter has had."""
        for table in self._tables:
            table.settle(self._steps)
        return self._steps

    def follow(self) -> None:
        """Takes the parameters where they lie now, and the state to their type."""
        if layout(self.parameters) == self._layout and (
            not self._shown or list(map(Tensor.data_ptr, self._kept)) == self._kept_at
        ):
            return
        check_shapes(self.rule, self.parameters, self._seen)
        self._kind = _supported(self.parameters, self.members)
        self._sums = _sums(self.rule) if self.parameters[0].is_cpu else None
        self._steps = self.steps
        for i, (p, state) in enumerate(zip(self.parameters, self._state, strict=True)):
            like = new_state(self.rule, p, dict(self.rule.defaults), self.average, self.kind, self.members)
            for name, value in state.items():
                if value.shape != like[name].shape:
                    raise UserError(
                        f"state {name} of parameter {i} has shape {tuple(value.shape)}, which does not fit it"
                    )
                if (value.dtype, value.device, value.stride()) != (
                    like[name].dtype,
                    like[name].device,
                    like[name].stride(),
                ):
                    state[name] = like[name].copy_(value)
        self._build()

    def norm(self, gradients: Sequence[Tensor | None]) -> Tensor | None:
        """The Euclidean norm of the gradients, None without one."""
        looked = self.look(gradients)
        self.measure(looked)
        return _tensor(looked.norm)

    def step(
        self,
        gradients: Sequence[Tensor | None],
        h: Mapping[str, Any],
        folded: Folded = Folded(),  # noqa: B008  (it is immutable)
        skip: Tensor | None = None,
    ) -> Tensor | None:
        """Makes one update of every parameter that has a gradient; returns the gradients' norm.

        The norm is of the gradients as they are, before anything is folded in, a float64 tensor; None
        without a gradient, and 0 where `skip` is true: then nothing changes and no step is counted.
        """
        looked = self.look(gradients)
        self.update(looked, h, folded, skip)
        return _tensor(looked.norm)

    def look(self, gradients: Sequence[Tensor | None]) -> Looked:
        """The gradients of one update, looked over once for `measure`, `sums` and `update`.

        Nothing of them may be changed between: a kernel reads what was there.
        """
        tables = self._tables
        parts = [gradients] if len(tables) == 1 else [[gradients[i] for i in t.numbers] for t in tables]
        return Looked(gradients, [table.take(part) for table, part in zip(tables, parts, strict=True)])

    def measure(self, looked: Looked) -> None:
        """Puts the gradients' norm into `looked`."""
        looked.norm = _norm([t.squares(part) for t, part in zip(self._tables, looked.parts, strict=True)])

    def update(self, looked: Looked, h: Mapping[str, Any], folded: Folded, skip: Tensor | None) -> None:
        """`step`, which puts the norm into `looked`."""
        values = {**h, **vars(folded)}
        if "sums" in values:
            values |= {f"sums.{i}": total for i, total in enumerate(values.pop("sums"))}
        pairs = zip(self._tables, looked.parts, strict=True)
        squares = [table.update(part, self._steps, values, skip) for table, part in pairs]
        if looked.norm is None or skip is not None:
            looked.norm = _norm(squares)

    def sums(
        self, gradients: Sequence[Tensor | None] | Looked, h: Mapping[str, Any], folded: Folded
    ) -> list[Tensor]:
        """What the rule adds up over all parameters before the update, for these."""
        looked = gradients if isinstance(gradients, Looked) else self.look(gradients)
        if self._sums is None:  # a GPU, or a text that does not trace
            own = (self.parameters, looked.gradients, self._state, self.steps)
            return add_up(self.rule, *own, h, folded)
        values = {**h, **vars(folded)}
        pairs = zip(self._tables, looked.parts, strict=True)
        parts = [table.sums(self._sums, part, self._steps, values) for table, part in pairs]
        columns = zip(*(own for own in parts if own), strict=True)
        return [torch.as_tensor(sum(column), dtype=torch.float64) for column in columns]


class Looked:
    """Gradients that were looked over for one update: see `Fused.look`.

    norm: theirs, once it is known: a number, a tensor on a GPU or with a value for each member.
    """

    def __init__(self, gradients: Sequence[Tensor | None], parts: list[Any]) -> None:
        self.gradients, self.parts = gradients, parts  # the second as each table has them
        self.norm: float | Tensor | None = None

    def __iter__(self) -> Iterator[Tensor | None]:
        return iter(self.gradients)


def _norm(squares: list[Any]) -> float | Tensor | None:
    """The norm from each table's Σ g²; None where none has one."""
    parts = [s for s in squares if s is not None]
    if not parts:
        return None
    total = sum(parts)
    if isinstance(total, float):
        return math.sqrt(total)
    return total.sqrt() if isinstance(total, Tensor) else torch.as_tensor(np.sqrt(total), dtype=torch.float64)


def _tensor(norm: float | Tensor | None) -> Tensor | None:
    if norm is None or isinstance(norm, Tensor):
        return norm
    return torch.scalar_tensor(norm, dtype=torch.float64)


def _sums(rule: Rule) -> Program | None:
    """The program of the rule's sums, None where it has none or their text does not trace."""
    if rule.sums is None:
        return None
    try:
        return trace_sums(rule)
    except Untraceable:
        return None


def _supported(parameters: Sequence[Tensor], members: int | None) -> Any:
    """What makes the pass over these parameters; raises Unsupported where nothing does."""
    for p in parameters:
        if p.device.type not in TABLES:
            raise Unsupported(f"a parameter is on {p.device}")
        if p.device != parameters[0].device:
            raise Unsupported(f"parameters are on {parameters[0].device} and {p.device}")
        if p.layout is not torch.strided or type(p.data) is not Tensor:
            raise Unsupported("a parameter is no plain tensor")
        if p.dtype not in KINDS:
            raise Unsupported(f"a parameter is {p.dtype}")
        overlaps = torch._debug_has_internal_overlap  # pyright: ignore[reportPrivateImportUsage]
        if p.is_neg() or overlaps(p) == 1:
            raise Unsupported("a parameter's memory does not hold each of its elements once, as it is")
        if members is not None and not (p.is_contiguous() and p.dim() and len(p) == members):
            raise Unsupported("a parameter does not hold its members one behind the other")
    spans = sorted((p.data_ptr(), p.data_ptr() + _extent(p)) for p in parameters if p.numel())
    if any(end > start for (_, end), (start, _) in pairwise(spans)):
        raise Unsupported("two parameters share memory")
    return TABLES[parameters[0].device.type if parameters else "cpu"]()


def _extent(p: Tensor) -> int:
    """Bytes from a tensor's first element to the end of its last."""
    return p.element_size() * (1 + sum((n - 1) * s for n, s in zip(p.shape, p.stride(), strict=True)))
