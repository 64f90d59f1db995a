"""AdEMAMix."""

from collections.abc import Iterable
from typing import Any, ClassVar, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.ademamix import ADEMAMIX


class AdEMAMix(RuleOptimizer):
    """w ← w − η (m̂1 + α m2) / (√v̂ + ε), with a fast mean m1 and a slow mean m2 of the gradients.

    lr: η ≥ 0. betas: β1, β2, β3 in [0, 1), of m1, v and m2. alpha: α ≥ 0. beta3_warmup, alpha_warmup: steps
    in which β3 rises from β1 and α from 0; None is no warm-up, the authors advise the length of the run.
    eps: ε ≥ 0. weight_decay: decoupled, as in the paper; decoupled=False adds it to the gradient. maximize:
    climbs. See `Extras`. torch.optim does not have it. Source: Pagliardini et al. 2024; arguments and
    defaults are those of the authors' code.
    """

    rules = (ADEMAMIX,)
    spread: ClassVar = {"betas": ("beta1", "beta2", "beta3")}
    ranges: ClassVar = {"betas": ((0.0, 1.0),) * 3, "alpha": (0.0, float("inf"))}

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        betas: tuple[Number, Number, Number] = (0.9, 0.999, 0.9999),
        alpha: Number = 2.0,
        beta3_warmup: Number | None = None,
        alpha_warmup: Number | None = None,
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        *,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "alpha": alpha,
            "beta3_warmup": beta3_warmup,
            "alpha_warmup": alpha_warmup,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled": True,
            "maximize": maximize,
        }
        super().__init__(params, defaults, extras)

    def _named(self, values: dict[str, Any]) -> dict[str, Any]:
        named = super()._named(values)
        return named | {name: 0.0 for name in ("alpha_warmup", "beta3_warmup") if named[name] is None}
