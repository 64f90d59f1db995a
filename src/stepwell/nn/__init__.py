"""Layers, models and losses; `init` holds the schemes that fill one tensor, `initialize` fills a model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.nn import initialization as init
    from stepwell.nn.dropout import Dropout
    from stepwell.nn.gradient_flow import GradientFlow
    from stepwell.nn.initialization.layers import initialize
    from stepwell.nn.initialization.residual import zero_init_residual
    from stepwell.nn.inspection import signals
    from stepwell.nn.mixed import mixed_loss
    from stepwell.nn.normalization.batch import BatchNorm
    from stepwell.nn.normalization.group import GroupNorm
    from stepwell.nn.normalization.instance import InstanceNorm
    from stepwell.nn.normalization.layer import LayerNorm
    from stepwell.nn.normalization.rms import RMSNorm
    from stepwell.nn.normalization.spectral import spectral_norm
    from stepwell.nn.normalization.weight import weight_norm
    from stepwell.nn.running_statistics import reestimate
    from stepwell.nn.stochastic_depth import StochasticDepth
    from stepwell.nn.uncertainty import monte_carlo

__all__ = [
    "BatchNorm",
    "Dropout",
    "GradientFlow",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "RMSNorm",
    "StochasticDepth",
    "init",
    "initialize",
    "mixed_loss",
    "monte_carlo",
    "reestimate",
    "signals",
    "spectral_norm",
    "weight_norm",
    "zero_init_residual",
]

# Fetched when asked for, since configs are read without torch.
_PLACES = {
    "BatchNorm": "normalization.batch",
    "Dropout": "dropout",
    "GradientFlow": "gradient_flow",
    "GroupNorm": "normalization.group",
    "InstanceNorm": "normalization.instance",
    "LayerNorm": "normalization.layer",
    "RMSNorm": "normalization.rms",
    "StochasticDepth": "stochastic_depth",
    "initialize": "initialization.layers",
    "mixed_loss": "mixed",
    "monte_carlo": "uncertainty",
    "reestimate": "running_statistics",
    "signals": "inspection",
    "spectral_norm": "normalization.spectral",
    "weight_norm": "normalization.weight",
    "zero_init_residual": "initialization.residual",
}


def __getattr__(name: str) -> Any:
    if name == "init":
        return import_module("stepwell.nn.initialization")
    if name in _PLACES:
        return getattr(import_module(f"stepwell.nn.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'stepwell.nn' has no attribute '{name}'")
