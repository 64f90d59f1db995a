"""Lookahead: slow weights that follow another optimizer's fast ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from stepwell.errors import UserError
from stepwell.optim.wrapper import Wrapper


class Lookahead(Wrapper):
    """The base's step, and after every k of them: φ ← φ + α (w − φ);  w ← φ

    base: any torch optimizer. k: steps between the slow weights' own, at least 1. alpha: α in [0, 1]. The
    slow weights φ start at the weights before a parameter's first step. The base's state, momentum say,
    goes on as it is.

    Source: Zhang et al. 2019, Algorithm 1.
    """

    key = "lookahead"
    kept = ("k", "alpha", "_steps", "_slow")

    def __init__(self, base: Optimizer, k: int = 5, alpha: float = 0.5) -> None:
        super().__init__(base)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise UserError(f"k={k!r} cannot be used: give a whole number of at least 1")
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
            raise UserError(f"alpha={alpha!r} cannot be used: give a number from 0 to 1")
        self.k, self.alpha = k, alpha
        self._steps = 0
        self._slow: dict[Tensor, Tensor] = {}

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Makes the base's step, and the slow weights' when it is time; returns what the base returns."""
        for p in self.parameters():
            if p not in self._slow:
                self._slow[p] = self.settled(p).detach().clone()
        loss = self._base_step(closure)
        self._steps += 1
        if self._steps % self.k == 0:
            self._follow()
        return loss

    @torch.no_grad()
    def _follow(self) -> None:
        for p in self.parameters():
            slow = self._slow[p] = self._slow[p].to(p)  # the model may have moved
            p.copy_(slow.lerp_(p, self.alpha))

    def _told(self) -> dict[str, Any]:
        return {"k": self.k, "alpha": self.alpha, "steps": self._steps, "slow": self._numbered(self._slow)}

    def _take(self, told: dict[str, Any]) -> None:
        self.k, self.alpha, self._steps = told["k"], told["alpha"], told["steps"]
        self._slow = self._by_parameter(told["slow"])
