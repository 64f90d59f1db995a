"""Adam and AdamW."""

from collections.abc import Iterable
from typing import Any, Unpack

from torch import Tensor

from stepwell.errors import UserError
from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules import Rule
from stepwell.rules.adam import ADAM
from stepwell.rules.adam_inside import ADAM_INSIDE
from stepwell.rules.adam_uncorrected import ADAM_UNCORRECTED
from stepwell.rules.amsgrad import AMSGRAD


class Adam(RuleOptimizer):
    """w ← w − η m̂ / (√v̂ + ε), with the moving means m of g and v of g², both debiased.

    lr: η ≥ 0. betas: β1, β2 in [0, 1). eps: ε ≥ 0, outside the root. weight_decay: adds
    weight_decay · w to the gradient (coupled); decoupled_weight_decay=True makes it AdamW's. amsgrad:
    v̂ never shrinks. maximize: climbs. foreach, fused and capturable choose torch's kernels and have no
    effect here; differentiable is refused. As `torch.optim.Adam`, its arguments in its order; besides
    them see `Extras`.

    torch has not: bias_correction=False takes m and v in place of m̂ and v̂; eps_inside=True makes the
    denominator √(v̂ + ε). Neither goes together with the other or with amsgrad.
    """

    rules = (ADAM, ADAM_UNCORRECTED, ADAM_INSIDE, AMSGRAD)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        bias_correction: bool = True,
        eps_inside: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
            "bias_correction": bias_correction,
            "eps_inside": eps_inside,
        }
        super().__init__(params, defaults, extras)

    def check_together(self, group: dict[str, Any]) -> None:
        if sum(map(bool, (group["amsgrad"], not group["bias_correction"], group["eps_inside"]))) > 1:
            raise UserError("amsgrad=True, bias_correction=False, eps_inside=True: give at most one of them")
        if group["foreach"] and not group["capturable"]:
            for name in ("lr", "betas"):
                parts = group[name] if isinstance(group[name], (tuple, list)) else (group[name],)
                if any(isinstance(v, Tensor) for v in parts):
                    raise UserError(
                        f"{name}={group[name]!r} cannot be used: with foreach=True and capturable=False give "
                        "a number, or leave foreach out"
                    )

    def rule_of(self, group: dict[str, Any]) -> Rule:
        if group["amsgrad"]:
            return AMSGRAD
        if group["eps_inside"]:
            return ADAM_INSIDE
        return ADAM if group["bias_correction"] else ADAM_UNCORRECTED


class AdamW(Adam):
    """Adam with decoupled weight decay: w ← (1 − η · weight_decay) w before the step of Adam.

    As `torch.optim.AdamW`, its arguments in its order; they are Adam's. Further ones, clip_norm, l1 and ema
    among them: see `Extras`. Source: Loshchilov & Hutter 2019, Algorithm 2
    with the decay multiplied by η alone.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        bias_correction: bool = True,
        eps_inside: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
            bias_correction=bias_correction,
            eps_inside=eps_inside,
            **extras,
        )
