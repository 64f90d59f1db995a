"""Adan."""

from collections.abc import Iterable
from typing import Any, ClassVar, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.adan import ADAN


class Adan(RuleOptimizer):
    """w ← (w − η (m̂ + β2 d̂) / (√n̂ + ε)) / (1 + η λ), with the means m of g and d of its changes.

    lr: η ≥ 0. betas: β1, β2, β3 in [0, 1), of m, d and n; in the paper 1 − ours. eps: ε ≥ 0. weight_decay: λ,
    in the paper's proximal form; no_prox=True makes it AdamW's. maximize: climbs. See `Extras`; `clip_norm`
    is what the authors call max_grad_norm. torch.optim does not have it. Source: Xie et al. 2022; arguments
    and defaults are those of the authors' code.
    """

    rules = (ADAN,)
    spread: ClassVar = {"betas": ("beta1", "beta2", "beta3")}
    ranges: ClassVar = {"betas": ((0.0, 1.0),) * 3}

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        betas: tuple[Number, Number, Number] = (0.98, 0.92, 0.99),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        *,
        no_prox: bool = False,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "no_prox": no_prox,
            "decoupled": True,
            "maximize": maximize,
        }
        super().__init__(params, defaults, extras)

    def _named(self, values: dict[str, Any]) -> dict[str, Any]:
        return super()._named(values if _proximal(values) else {**values, "weight_decay": 0.0})

    def _around(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return super()._around({**group, "weight_decay": 0.0} if _proximal(group) else group)


def _proximal(group: dict[str, Any]) -> bool:
    """Whether the rule's own form of the decay is asked for."""
    return group["decoupled"] and not group["no_prox"]
