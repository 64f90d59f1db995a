"""The stacked engine: one rule on many models at once, each with its own hyperparameters, on any device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stepwell.engine.program import FOLDED, Program, Untraceable, trace
from stepwell.engine.state import AVERAGE, check_shapes, new_state
from stepwell.engine.text import Folded, whole_update
from stepwell.rules import Rule


class Stacked:
    """Runs `rule` on parameters of `members` models, one behind the other in the first dimension.

    As `Fused(members=K)`, whose results it reproduces where there is no kernel: for rules that need whole
    tensors, and on other devices. Every hyperparameter and part of `Folded` is a number or a tensor of K
    values; norms are tensors of K values.
    """

    def __init__(
        self,
        rule: Rule,
        parameters: Sequence[Tensor],
        h: Mapping[str, Any],
        average: bool = False,
        kind: torch.dtype | None = None,
        *,
        members: int,
    ) -> None:
        self.rule, self.parameters, self.members = rule, list(parameters), members
        self.average, self.kind = average, kind
        self.steps = [0] * len(self.parameters)
        self.state = [new_state(rule, p, h, average, kind, members) for p in self.parameters]
        self._seen = [p.detach() for p in self.parameters]
        try:
            self._program: Program | None = trace(rule, average)
        except Untraceable:
            self._program = None
        self._mapped = not rule.matrices  # until a rule turns out to be one that torch.vmap cannot map

    def follow(self) -> None:
        """Takes the state to the parameters' type and device."""
        check_shapes(self.rule, self.parameters, self._seen)
        h = dict(self.rule.defaults)
        for p, seen, state in zip(self.parameters, self._seen, self.state, strict=True):
            if (p.dtype, p.device) != (seen.dtype, seen.device):
                like = new_state(self.rule, p, h, self.average, self.kind, self.members)
                for name, value in state.items():
                    state[name] = value.to(like[name])
        self._seen = [p.detach() for p in self.parameters]

    def norm(self, gradients: Sequence[Tensor | None]) -> Tensor | None:
        """The Euclidean norm of each member's gradients, None without one."""
        parts = [g.reshape(self.members, -1) for g in gradients if g is not None]
        squares = [torch.linalg.vector_norm(part, dim=1, dtype=_wide(part)).double() ** 2 for part in parts]
        return torch.stack(squares).sum(0).sqrt() if squares else None

    @torch.no_grad()
    def step(
        self,
        gradients: Sequence[Tensor | None],
        h: Mapping[str, Any],
        folded: Folded = Folded(),  # noqa: B008  (it is immutable)
    ) -> Tensor | None:
        """Makes one update of every parameter that has a gradient; returns each member's gradients' norm."""
        norm = self.norm(gradients)
        for i, (p, g, state) in enumerate(zip(self.parameters, gradients, self.state, strict=True)):
            if g is None:
                continue
            self.steps[i] += 1
            run = self._by_program if self._program is not None else self._whole
            for name, value in run(p.detach(), g, state, self.steps[i], h, folded).items():
                (p if name == "w" else state[name]).copy_(value)
        return norm

    def _by_program(
        self, w: Tensor, g: Tensor, state: dict[str, Tensor], t: int, h: Mapping[str, Any], folded: Folded
    ) -> dict[str, Tensor]:
        """Uniform operations once a member in float64, the others on whole tensors."""
        program = self._program
        assert program is not None
        kind, shape = _wide(w), (-1,) + (1,) * (w.dim() - 1)
        elements = {f"state.{s.name}": state[s.name] for s in self.rule.state} | {"w": w, "g": g}
        if self.average:
            elements["average"] = state[AVERAGE]
        values = {**h, **{name: getattr(folded, name) for name in FOLDED}, "t": t}
        values |= {f"sums.{i}": total for i, total in enumerate(values.pop("sums", ()))}
        places: list[Any] = []
        for op in program.operations:
            if op.name == "constant":
                places.append(op.value)
            elif op.name == "input" and op.uniform:
                value = elements.get(op.value, values.get(op.value))
                value = torch.as_tensor(value, dtype=torch.float64, device=w.device)
                places.append(value.reshape(shape) if value.dim() else value)
            elif op.name == "input":
                places.append(elements[op.value].to(kind))
            else:
                inputs = [places[i] for i in op.inputs]
                if not op.uniform:
                    inputs = [
                        x.to(kind) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs
                    ]
                places.append(ON_TENSORS[op.name](*inputs))
        results = {}
        for name, place in program.results.items():
            own = AVERAGE if name == "average" else name.removeprefix("state.")
            value = torch.as_tensor(places[place], device=w.device)
            scalar = own in state and name in program.scalars
            results[own] = value.reshape(-1).expand(self.members) if scalar else value
        return results

    def _whole(
        self, w: Tensor, g: Tensor, state: dict[str, Tensor], t: int, h: Mapping[str, Any], folded: Folded
    ) -> dict[str, Tensor]:
        """Each member's whole tensors: all at once, or one after the other where that cannot be."""
        if self._mapped:
            try:
                return self._by_vmap(w, g, state, t, h, folded)
            except RuntimeError:  # it compares a hyperparameter, or asks for its value
                self._mapped = False
        ends = []
        for k in range(self.members):
            own = {name: _member(v, k) for name, v in h.items()}
            around = Folded(**{name: _member(getattr(folded, name), k) for name in FOLDED})
            kept = [_precise(state[s.name][k]) for s in self.rule.state]
            average = _precise(state[AVERAGE][k]) if self.average else None
            new = whole_update(self.rule, _precise(w[k]), _precise(g[k]), kept, average, t, own, around)
            ends.append(new)
        results = {"w": torch.stack([new for new, _, _ in ends])}
        for number, s in enumerate(self.rule.state):
            results[s.name] = torch.stack([kept[number] for _, kept, _ in ends])
        if self.average:
            results[AVERAGE] = torch.stack([average for _, _, average in ends])
        return results

    def _by_vmap(
        self, w: Tensor, g: Tensor, state: dict[str, Tensor], t: int, h: Mapping[str, Any], folded: Folded
    ) -> dict[str, Tensor]:
        """The rule's text mapped over the members by torch.vmap."""
        names = [s.name for s in self.rule.state]
        values = {**h, **{name: getattr(folded, name) for name in FOLDED}}
        each = {
            name: torch.as_tensor(v, device=w.device)
            for name, v in values.items()
            if isinstance(v, Tensor) and v.dim()
        }

        def one(
            w: Tensor, g: Tensor, kept: list[Tensor], average: Tensor | None, own: dict[str, Tensor]
        ) -> Any:
            now = {**values, **own}
            around = replace(folded, **{name: now.pop(name) for name in FOLDED})
            new, kept_now, mean = whole_update(self.rule, w, g, kept, average, t, now, around)
            return new, kept_now, [] if mean is None else [mean]

        kept = [_precise(state[name]) for name in names]
        average = _precise(state[AVERAGE]) if self.average else None
        mapped = torch.vmap(one, in_dims=(0, 0, 0, None if average is None else 0, 0))
        new, kept, mean = mapped(_precise(w), _precise(g), kept, average, each)
        return {"w": new, **dict(zip(names, kept, strict=True)), **({AVERAGE: mean[0]} if mean else {})}


def _member(value: Any, k: int) -> Any:
    """A hyperparameter's value for member k, as a number."""
    if isinstance(value, tuple):
        return tuple(_member(v, k) for v in value)
    return value[k].item() if isinstance(value, Tensor) and value.dim() else value


def _wide(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype


def _precise(x: Tensor) -> Tensor:
    return x.to(_wide(x))


def _tensor_or_number(on_tensors: Callable[..., Any], on_numbers: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: on_tensors(x) if isinstance(x, Tensor) else on_numbers(x)


def _largest(x: Any, y: Any) -> Any:
    return torch.maximum(*torch.broadcast_tensors(*_tensors(x, y)))


def _smallest(x: Any, y: Any) -> Any:
    return torch.minimum(*torch.broadcast_tensors(*_tensors(x, y)))


def _tensors(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    like = x if isinstance(x, Tensor) else y
    return torch.as_tensor(x).to(like), torch.as_tensor(y).to(like)


# A program's operations on tensors and numbers.
ON_TENSORS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x**y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "and": torch.logical_and,
    "or": torch.logical_or,
    "neg": lambda x: -x,
    "abs": abs,
    "where": torch.where,
    "max": _largest,
    "min": _smallest,
    "sqrt": _tensor_or_number(torch.sqrt, math.sqrt),
    "exp": _tensor_or_number(torch.exp, math.exp),
    "log": _tensor_or_number(torch.log, math.log),
    "tanh": _tensor_or_number(torch.tanh, math.tanh),
    "sign": torch.sign,
}
