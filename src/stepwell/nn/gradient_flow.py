"""How gradients flow in training: norms and ratios by weight, dead and saturated units by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from stepwell.errors import UserError
from stepwell.nn.units import Units


class GradientFlow:
    """Looks at every `every`-th step of a training loop of one's own.

    flow = GradientFlow(model, every=50)
    for x, y in batches:
        optimizer.zero_grad()
        with flow:
            loss(model(x), y).backward()
            optimizer.step()
    print(flow)

    `rows` has a dict for each step that was looked at: {"update", "layers", "units"}, where layers says of
    each weight the L2 norms of "grad", "update" and "weight", and units of each activation function the
    share "dead" or "saturated" (see `Units`), as metrics.jsonl of a run does. The numbers of the training
    stay as they are, bit for bit. Gradients are read where the `with` ends: set them to zero before it.
    """

    def __init__(self, model: nn.Module, every: int = 50) -> None:
        if every < 1:
            raise UserError(f"every={every} must be at least 1: the steps from one look to the next")
        self.model, self.every = model, every
        self.step = 0
        self.rows: list[dict[str, Any]] = []
        self._units = Units()
        self._before: dict[str, Tensor] = {}
        self._watching = ExitStack()

    def __enter__(self) -> GradientFlow:
        self.step += 1
        if self.step % self.every == 0:
            trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
            self._before = {n: p.detach().clone() for n, p in trained.items()}
            self._watching.enter_context(self._units.watching(self.model))
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._watching.__exit__(kind, error, trace)
        if self._before and error is None:
            now = {n: p for n, p in self.model.named_parameters() if n in self._before}
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in now.values()]
            before = [self._before[n] for n in now]
            layers = norms(list(now), gradients, before, [p.detach() for p in now.values()])
            self.rows.append({"update": self.step, "layers": layers, "units": self._units.commit()})
        self._before = {}

    def __str__(self) -> str:
        """The newest row: by weight the gradient's norm and update / weight, by layer the units' shares."""
        if not self.rows:
            return f"Nothing has been looked at in {self.step} steps."
        row = self.rows[-1]
        width = max(len(name) for name in [*row["layers"], *row["units"]])
        lines = [f"step {row['update']}", f"{'weight':<{width}}  ‖gradient‖  ‖update‖ / ‖weight‖"]
        for name, n in row["layers"].items():
            grad, update, weight = (
                n[key] if n[key] is not None else math.nan for key in ("grad", "update", "weight")
            )
            lines.append(f"{name:<{width}}  {grad:<10.3g}  {update / weight if weight else math.nan:.3g}")
        for name, shares in row["units"].items():
            kind, share = next(iter(shares.items()))
            lines.append(f"{name:<{width}}  {kind}: {'not yet known' if share is None else f'{share:.0%}'}")
        return "\n".join(lines)


def norms(
    names: Sequence[str], gradients: Sequence[Tensor], before: Sequence[Tensor], after: Sequence[Tensor]
) -> dict[str, dict[str, float | None]]:
    """L2 norms of each weight's gradient, update and value after the update; None where not finite."""
    updates = torch._foreach_sub(list(after), list(before))  # pyright: ignore[reportPrivateImportUsage]
    found = torch.stack([torch.stack(tensor_norms(part)) for part in (gradients, updates, after)])
    return {
        name: {"grad": finite(g), "update": finite(u), "weight": finite(w)}
        for name, (g, u, w) in zip(names, found.T.double().tolist(), strict=True)
    }


def tensor_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The L2 norm of each tensor, without waiting for the device."""
    return list(torch._foreach_norm(list(tensors)))  # pyright: ignore[reportPrivateImportUsage]


def finite(value: float) -> float | None:
    """JSON has no infinity; fp16 has one in the gradients of an update that it skips, a rule as a limit."""
    return value if math.isfinite(value) else None
