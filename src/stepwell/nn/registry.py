"""Every model by name: its config and the function that builds it. A new model is one file and one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from torch import nn

from stepwell.data.dataset import Kind
from stepwell.nn import cnn, linear, mlp, resnet, rnn, transformer, user
from stepwell.nn.configs import CONFIGS

Build = Callable[..., nn.Module]  # (config, input_shape, outputs, kind=None)

BUILDERS: dict[str, Build] = {
    "linear": linear.build,
    "mlp": mlp.build,
    "cnn": cnn.build,
    "resnet": resnet.build,
    "rnn": rnn.build,
    "transformer": transformer.build,
}

MODELS: dict[str, tuple[type[BaseModel], Build]] = {
    name: (CONFIGS[name], BUILDERS[name]) for name in BUILDERS
}


def build(config: Any, input_shape: tuple[int, ...], outputs: int, kind: Kind | None = None) -> nn.Module:
    """Builds the model that `config` describes: (B, *input_shape) → (B, outputs), text → (B, T, outputs).

    config: one of `configs`' classes. kind: of the data; implied by the shape unless it is text.
    Weights are drawn from torch's global generator. Raises UserError where the model cannot take the data.
    """
    build_body = MODELS[config.name][1] if config.name in MODELS else user.build
    return build_body(config, input_shape, outputs, kind)
