"""Muon for a whole network: matrices by Muon, everything else by AdamW."""

from collections.abc import Iterable
from typing import Any, ClassVar, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules import Rule
from stepwell.rules.adam import ADAM
from stepwell.rules.muon import MUONS


class MuonWithAdamW(RuleOptimizer):
    """Muon's update for parameters of two dimensions or more, AdamW's for biases, norms and scalars.

    lr: η ≥ 0, for both: Muon's steps have the size that Adam's rates are made for (0.2 √max(rows, columns)).
    weight_decay: decoupled, for both. momentum, ns_steps: Muon's. betas, eps: AdamW's. A filter of a
    convolution counts as a row. Each parameter group given becomes two. torch.optim has only the first
    half, for matrices alone. Source: Jordan et al. 2024; Liu et al. 2025, §2.2.
    """

    rules = (ADAM, MUONS[True, "match_rms_adamw"])
    spread: ClassVar = {"betas": ("beta1", "beta2")}

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        weight_decay: Number = 0.1,
        momentum: Number = 0.95,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        ns_steps: int = 5,
        **extras: Unpack[Extras],
    ) -> None:
        a, b, c = (self.rules[1].defaults[name] for name in ("ns_a", "ns_b", "ns_c"))
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "ns_steps": ns_steps,
            "ns_a": a,
            "ns_b": b,
            "ns_c": c,
            "decoupled": True,
        }
        super().__init__(params, defaults, extras)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        params = param_group["params"] if isinstance(param_group, dict) else param_group
        params = [params] if hasattr(params, "dim") else list(params)
        parts = {True: [p for p in params if p.dim() > 1], False: [p for p in params if p.dim() < 2]}
        for matrices, own in parts.items():
            if own:
                super().add_param_group({**param_group, "params": own, "matrices": matrices})

    def rule_of(self, group: dict[str, Any]) -> Rule:
        return self.rules[1] if group.get("matrices") else ADAM

    def _check_state(self, names: set[str], rule: Rule) -> None:
        if names != {s.name for s in rule.state}:
            super()._check_state(names, rule)
