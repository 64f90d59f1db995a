"""Muon."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.errors import UserError
from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules import Rule
from stepwell.rules.muon import MUON, MUONS


class Muon(RuleOptimizer):
    """b ← ρ b + (1−ρ) g; w ← w − η s orthogonalized((1−ρ) g + ρ b), for matrices.

    lr: η ≥ 0. weight_decay: w ← (1 − η · weight_decay) w before the step (decoupled). momentum: ρ in
    [0, 1). nesterov: looks ahead; without it b itself is orthogonalized. ns_coefficients, ns_steps: of the
    Newton–Schulz iteration, 0 to 99 steps of it in bfloat16. eps: ε > 0 below which ‖x‖ is not divided by.
    adjust_lr_fn: s, by name: "original" (also None), √max(1, rows / columns), or "match_rms_adamw",
    0.2 √max(rows, columns). Only for parameters of two dimensions: give the others, and embeddings, to
    AdamW. As `torch.optim.Muon`, its arguments in its order; besides them see `Extras`. Source: Jordan et
    al. 2024.
    """

    rules = (MUON,)
    spread = {"ns_coefficients": ("ns_a", "ns_b", "ns_c")}  # noqa: RUF012  (as declared by the base)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        weight_decay: Number = 0.1,
        momentum: Number = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[Number, Number, Number] = (3.4445, -4.7750, 2.0315),
        eps: Number = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "decoupled": True,
        }
        super().__init__(params, defaults, extras)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if isinstance(param_group, dict):
            self.rule_of({**self.defaults, **param_group})
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.dim() != 2:
                self.param_groups.pop()
                self._schedules.pop()
                raise UserError(
                    f"Muon is for matrices, and a parameter has shape {tuple(p.shape)}: give it to AdamW"
                )

    def rule_of(self, group: dict[str, Any]) -> Rule:
        name = group["adjust_lr_fn"]
        key = bool(group["nesterov"]), "original" if name is None else name
        if key not in MUONS:
            raise UserError(f"adjust_lr_fn={name!r} does not exist: give original or match_rms_adamw")
        return MUONS[key]
