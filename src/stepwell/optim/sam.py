"""Sharpness-aware minimization."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from stepwell.errors import UserError
from stepwell.optim.clipping import norm_of
from stepwell.optim.wrapper import Wrapper


class SAM(Wrapper):
    """Descends by the gradient at the worst point near w: e = ρ g / ‖g‖; then the base's step at w with
    the gradient at w + e.

    base_optimizer: any torch optimizer that needs no closure. rho: ρ ≥ 0, how far the point is. adaptive:
    ASAM, where distances are measured in shares of each weight: e = ρ w² g / ‖w g‖ elementwise; its ρ is
    about ten times larger. The norm is that of all parameters together.

    `step(closure)` calls the closure twice, gradients cleared in between, and returns the first loss. In
    a loop without closure:

    >>> loss(x, y).backward(); optimizer.ascend(); optimizer.zero_grad()  # doctest: +SKIP
    >>> loss(x, y).backward(); optimizer.descend(); optimizer.zero_grad()  # doctest: +SKIP

    Each step costs two gradients, and batch norm's averages see each batch twice. Between `ascend` and
    `descend` the weights are w + e, and state_dict holds w.

    Source: Foret et al. 2021, Algorithm 1; Kwon et al. 2021, eq. 8, without their η on small weights.
    """

    key = "sam"
    kept = ("rho", "adaptive", "_before")

    def __init__(self, base_optimizer: Optimizer, rho: float = 0.05, adaptive: bool = False) -> None:
        super().__init__(base_optimizer)
        if isinstance(rho, bool) or not isinstance(rho, (int, float)) or not 0 <= rho < math.inf:
            raise UserError(f"rho={rho!r} cannot be used: give a number of at least 0")
        self.rho, self.adaptive = rho, adaptive
        self._before: dict[Tensor, Tensor] | None = None  # the weights w while they are w + e

    @torch.no_grad()
    def ascend(self) -> None:
        """Moves the weights to w + e, by the gradients that are there now."""
        if self._before is not None:
            raise UserError("the weights are at w + e already: call descend() before the next ascend()")
        pairs = [(p, p.grad) for p in self.parameters() if p.grad is not None]
        norm = norm_of(p * g if self.adaptive else g for p, g in pairs)
        scale = self.rho / (norm + 1e-12)
        self._before = {p: p.detach().clone() for p, _ in pairs}
        for p, g in pairs:
            p.add_((p * p * g if self.adaptive else g) * scale.to(p.device))

    def descend(self) -> None:
        """Moves the weights back to w and makes the base's step, by the gradients that are there now."""
        self.step()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Both halves with a closure; without one the second, after `ascend`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            self.ascend()
            try:
                self.zero_grad()
                with torch.enable_grad():
                    closure()
            except BaseException:
                self._return()  # an interrupted step leaves the weights as they were
                raise
        elif self._before is None:
            raise UserError("SAM needs two gradients a step: give step a closure, or call ascend() first")
        self._return()
        self.base.step()
        return loss

    @torch.no_grad()
    def _return(self) -> None:
        for p, before in (self._before or {}).items():
            p.copy_(before)
        self._before = None

    def settled(self, p: Tensor) -> Tensor:
        return super().settled(p) if self._before is None else self._before.get(p, p)

    def _told(self) -> dict[str, Any]:
        before = None if self._before is None else self._numbered(self._before)
        return {"rho": self.rho, "adaptive": self.adaptive, "before": before}

    def _take(self, told: dict[str, Any]) -> None:
        self.rho, self.adaptive = told["rho"], told["adaptive"]
        self._before = None if told["before"] is None else self._by_parameter(told["before"])
