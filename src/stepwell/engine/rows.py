"""The engine of sparse gradients: the rule's own text on the rows that have a gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stepwell.engine.eager import total_norm
from stepwell.engine.state import AVERAGE, check_shapes, new_state
from stepwell.engine.text import Folded, whole_update
from stepwell.errors import UserError
from stepwell.rules import Rule


class Rows:
    """Runs an elementwise `rule` on a list of parameters, and of each only on what its gradient names.

    As `Eager`: `state`, `steps`, `norm`, `step`, `follow`. A sparse gradient's rows are gathered from
    the weight and its state, updated by the rule's text and put back; all other rows, and their state,
    stay as they are, and cost nothing. A dense gradient names every row. Rows that a gradient names twice
    are added up first. The average of the weights, if there is one, moves in every row.
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
        if stochastic:
            raise UserError(
                "stochastic_rounding does not go with sparse gradients: leave it out, or build the layer "
                "with sparse=False"
            )
        self.rule, self.parameters = rule, list(parameters)
        self.steps = [0] * len(self.parameters)
        self.state = [new_state(rule, p, h, average, kind) for p in self.parameters]
        self._seen = [p.detach() for p in self.parameters]

    def follow(self) -> None:
        """Takes the state to the dtype and device of the parameters as they are now."""
        check_shapes(self.rule, self.parameters, self._seen)
        for p, seen, state in zip(self.parameters, self._seen, self.state, strict=True):
            if p.dtype != seen.dtype or p.device != seen.device:
                for name, value in state.items():
                    state[name] = value.to(p.device, p.dtype if value.dtype == seen.dtype else value.dtype)
        self._seen = [p.detach() for p in self.parameters]

    def norm(self, gradients: Sequence[Tensor | None]) -> Tensor | None:
        """The Euclidean norm of the gradients, None without one."""
        there = [g for g in gradients if g is not None]
        return total_norm([torch.linalg.vector_norm(_rows(g)[1]) for g in there])

    @torch.no_grad()
    def step(
        self,
        gradients: Sequence[Tensor | None],
        h: Mapping[str, Any],
        folded: Folded = Folded(),  # noqa: B008  (it is immutable)
        skip: Tensor | None = None,
    ) -> Tensor | None:
        """Makes one update of every parameter that has a gradient; returns the gradients' norm.

        skip: where it is true, nothing changes, no step is counted and the norm is 0.
        """
        if skip is not None and bool(skip):
            return torch.zeros((), dtype=torch.float64)
        norms = []
        for i, (p, g) in enumerate(zip(self.parameters, gradients, strict=True)):
            if g is None:
                continue
            self.steps[i] += 1
            where, values = _rows(g)
            norms.append(torch.linalg.vector_norm(values))
            self._update(p, where, values, self.state[i], self.steps[i], dict(h), folded)
        return total_norm(norms)

    def _update(
        self,
        p: Tensor,
        where: Any,
        g: Tensor,
        state: dict[str, Tensor],
        t: int,
        h: dict[str, Any],
        folded: Folded,
    ) -> None:
        w = p.detach()
        before = [state[s.name] if s.scalar else _precise(state[s.name][where]) for s in self.rule.state]
        new, after, _ = whole_update(self.rule, _precise(w[where]), _precise(g), before, None, t, h, folded)
        w[where] = new.to(w.dtype)
        for s, value in zip(self.rule.state, after, strict=True):
            if s.scalar:
                state[s.name].fill_(value)
            else:
                state[s.name][where] = value.to(state[s.name].dtype)
        if AVERAGE in state:
            state[AVERAGE].lerp_(w.to(state[AVERAGE].dtype), 1 - folded.ema)


def _rows(g: Tensor) -> tuple[Any, Tensor]:
    """Where a gradient has values, as an index, and the values."""
    if not g.is_sparse:
        return ..., g
    g = g.coalesce()
    return tuple(g.indices()), g.values()


def _precise(x: Tensor) -> Tensor:
    """Half precision is computed in float32 and rounded once, when it is stored."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
