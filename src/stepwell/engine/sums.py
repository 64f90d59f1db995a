"""The sums over all parameters that some rules ask for before an update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stepwell.engine.text import Folded, gradient
from stepwell.rules import Rule


@torch.no_grad()
def add_up(
    rule: Rule,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    state: Sequence[Mapping[str, Tensor]],
    steps: Sequence[int],
    h: Mapping[str, Any],
    folded: Folded,
) -> list[Tensor]:
    """Σ over parameters with a gradient of `rule.sums` (none without a gradient), 0-d float64 tensors."""
    assert rule.sums is not None
    totals: list[Tensor] = []
    for p, g, kept, step in zip(parameters, gradients, state, steps, strict=True):
        if g is None:
            continue
        w = p.detach()
        if w.dtype in (torch.bfloat16, torch.float16):
            w, g = w.float(), g.float()
        values = [kept[s.name] for s in rule.state]
        summands = rule.sums(w, gradient(w, g, folded), *values, t=step + 1, **h)
        parts = [x.sum(dtype=torch.float64) for x in summands]
        totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
    return totals
