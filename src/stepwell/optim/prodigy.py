"""Prodigy."""

import math
from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.errors import UserError
from stepwell.optim.extras import Extras, Number
from stepwell.optim.hyperparameters import number
from stepwell.optim.shared_scalars import SharedScalars
from stepwell.rules.prodigy import PRODIGY

ONE_FOR_ALL = ("lr", "beta3", "d0", "d_coef", "growth_rate", "use_bias_correction", "safeguard_warmup")


class Prodigy(SharedScalars):
    """Adam with the rate d η, where d is estimated from the gradients and the way come so far.

    lr: η, 1 or a schedule that starts at 1; the same in all groups, or 0. betas: β1, β2 in [0, 1). beta3: of
    the estimate, in [0, 1); None is √β2. eps: ε ≥ 0. weight_decay: w ← w − d η · weight_decay · w;
    decouple=False adds it to the gradient; so does `decay`, always decoupled. use_bias_correction: Adam's.
    safeguard_warmup: for schedules that start low. d0 > 0: d at first. d_coef > 0: multiplies d, the one
    to tune. growth_rate ≥ 1: the most that d grows by in a step. maximize: climbs. See `Extras`.

    d is `state[p]["d"]`, the same for all parameters. torch.optim does not have it. Source: Mishchenko &
    Defazio 2023, Algorithm 4; arguments and defaults are those of the authors' `prodigyopt`.
    """

    rules = (PRODIGY,)
    shared = ("updates", "d", "d_max", "d_numerator")

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1.0,
        betas: tuple[Number, Number] = (0.9, 0.999),
        beta3: Number | None = None,
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        decouple: bool = True,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: Number = 1e-6,
        d_coef: Number = 1.0,
        growth_rate: float = math.inf,
        *,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "beta3": beta3,
            "eps": eps,
            "weight_decay": weight_decay,
            "decouple": decouple,
            "use_bias_correction": use_bias_correction,
            "safeguard_warmup": safeguard_warmup,
            "d0": d0,
            "d_coef": d_coef,
            "growth_rate": growth_rate,
            "maximize": maximize,
        }
        super().__init__(params, defaults, extras)

    def check_together(self, group: dict[str, Any]) -> None:
        growth = group["growth_rate"]
        if isinstance(growth, bool) or not isinstance(growth, (int, float)) or not growth >= 1:
            raise UserError(
                f"growth_rate={growth!r} cannot be used: give a number of at least 1, math.inf for no limit"
            )
        for i, other in enumerate(self.param_groups):
            for name in ONE_FOR_ALL:
                if group[name] != other[name] and not (name == "lr" and 0 in (group[name], other[name])):
                    raise UserError(
                        f"{name}={group[name]!r} cannot be used where group {i} has {other[name]!r}: Prodigy "
                        "estimates one d for all groups, so give them the same"
                    )

    def _named(self, values: dict[str, Any]) -> dict[str, Any]:
        named = super()._named({**values, "weight_decay": _decays(values)[1]})
        return named if named["beta3"] is not None else {**named, "beta3": number(named["beta2"]) ** 0.5}

    def _around(self, group: dict[str, Any]) -> tuple[Any, ...]:
        own = {"weight_decay": _decays(group)[0], "decay": 0.0, "decoupled": False}
        return super()._around({**group, **own})


def _decays(group: dict[str, Any]) -> tuple[float, float]:
    """The coupled decay, and the decoupled one, whose rate is d η: the rule's own."""
    coupled, decoupled = number(group["weight_decay"]), number(group["decay"])
    return (0.0, coupled + decoupled) if group["decouple"] or group["decoupled"] else (coupled, decoupled)
