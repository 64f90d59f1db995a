"""SOAP."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.own_decay import OwnDecay
from stepwell.rules import Rule
from stepwell.rules.soap import SOAP as RULE
from stepwell.rules.soap import soap_rule


class SOAP(OwnDecay):
    """Adam in the eigenbases of the running means of G Gᵀ and Gᵀ G.

    lr: η ≥ 0. betas: β1, β2 in [0, 1) of Adam. shampoo_beta: β in [0, 1) of the running means; negative
    means β2. eps: ε ≥ 0. weight_decay: w ← (1 − η · weight_decay) w after each step. precondition_frequency:
    steps between power iterations of the bases, of O(n³) each. max_precond_dim: a dimension longer than
    this stays as it is. precondition_1d: vectors have a basis too; otherwise they get Adam's step.
    maximize: climbs. The first step makes the bases and moves nothing. See `Extras`. torch.optim does not
    have it. Source: Vyas et al. 2024, with the arguments of the authors' code (which also merges
    dimensions and normalizes steps if asked to; here it cannot).
    """

    rules = (RULE,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 3e-3,
        betas: tuple[Number, Number] = (0.95, 0.95),
        shampoo_beta: Number = -1.0,
        eps: Number = 1e-8,
        weight_decay: Number = 0.01,
        precondition_frequency: int = 10,
        max_precond_dim: int = 10_000,
        precondition_1d: bool = False,
        *,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "shampoo_beta": shampoo_beta,
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_frequency": precondition_frequency,
            "max_precond_dim": max_precond_dim,
            "precondition_1d": precondition_1d,
            "maximize": maximize,
        }
        super().__init__(params, defaults, extras)

    def rule_of(self, group: dict[str, Any]) -> Rule:
        return soap_rule(group["max_precond_dim"], bool(group["precondition_1d"]))
