"""The recipe's `optimizer` section: one class a rule, and how each becomes an optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stepwell.optim import SGD, Adam, MomentumDisplacement
from stepwell.optim.optimizer import RuleOptimizer


class SgdConfig(BaseModel):
    """Stochastic gradient descent."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["sgd"] = "sgd"
    lr: float = Field(0.1, ge=0, allow_inf_nan=False, description="learning rate η, reached after warm-up")


class MomentumConfig(BaseModel):
    """Momentum, in the velocity form or the displacement form."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["momentum", "momentum-displacement"] = "momentum"
    lr: float = Field(0.01, ge=0, allow_inf_nan=False, description="learning rate η, reached after warm-up")
    momentum: float = Field(0.9, ge=0, lt=1, description="share of the last step that is kept, ρ")


class AdamConfig(BaseModel):
    """Adam."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["adam"] = "adam"
    lr: float = Field(1e-3, ge=0, allow_inf_nan=False, description="learning rate η, reached after warm-up")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of gradients, β1")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the mean of squared gradients, β2")
    eps: float = Field(1e-8, ge=0, allow_inf_nan=False, description="added to the root, ε")


OptimizerConfig = SgdConfig | MomentumConfig | AdamConfig

OPTIMIZERS: dict[str, type[SgdConfig] | type[MomentumConfig] | type[AdamConfig]] = {
    "sgd": SgdConfig,
    "momentum": MomentumConfig,
    "momentum-displacement": MomentumConfig,
    "adam": AdamConfig,
}


def build(
    config: OptimizerConfig, params: Iterable[Any], l2: float = 0.0, decay: float = 0.0
) -> RuleOptimizer:
    """Makes the optimizer that a recipe names; `l2` is coupled, `decay` decoupled weight decay."""
    if isinstance(config, AdamConfig):
        betas = (config.beta1, config.beta2)
        return Adam(params, config.lr, betas, config.eps, weight_decay=l2, decay=decay)
    if isinstance(config, SgdConfig):
        return SGD(params, config.lr, weight_decay=l2, decay=decay)
    kind = SGD if config.name == "momentum" else MomentumDisplacement
    return kind(params, config.lr, config.momentum, weight_decay=l2, decay=decay)
