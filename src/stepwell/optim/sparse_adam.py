"""SparseAdam."""

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Unpack

from stepwell.errors import UserError
from stepwell.optim.extras import Extras, Number
from stepwell.optim.hyperparameters import ABOVE_0
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.sparse_adam import SPARSE_ADAM


class SparseAdam(RuleOptimizer):
    """Adam on the rows that a sparse gradient has, as `torch.nn.Embedding(sparse=True)` makes them.

    w ← w − η √(1−β2ᵗ) / (1−β1ᵗ) · m / (√v + ε); a row without a gradient keeps its weight and its m and v,
    where Adam would move it on.

    lr: η > 0. betas: β1, β2 in [0, 1). eps: ε > 0, added to the root before its correction. maximize:
    climbs. As `torch.optim.SparseAdam`, its arguments in its order; besides them see `Extras`, of which
    those that change every row (decay, l1, clip_adaptive, max_norm) are refused, and `engine` has no effect.
    """

    rules = (SPARSE_ADAM,)
    lazy = (SPARSE_ADAM,)
    ranges: ClassVar = {"lr": (ABOVE_0, math.inf), "eps": (ABOVE_0, math.inf)}

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize}
        super().__init__(params, defaults, extras)

    def update(self) -> None:
        """One update; refuses dense gradients, before any weight is changed."""
        for group in self.param_groups:
            if any(p.grad is not None and not p.grad.is_sparse for p in group["params"]):
                raise _DenseError(
                    "SparseAdam does not support dense gradients: use Adam, or build layers with sparse=True"
                )
        super().update()

    def _told_step(self, step: int) -> int:
        return step  # torch's class keeps a plain number, and would lose digits with a tensor


class _DenseError(UserError, RuntimeError):
    """torch raises a RuntimeError here."""
