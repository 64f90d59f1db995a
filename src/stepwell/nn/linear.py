"""Linear model: y = W x + b."""

from __future__ import annotations

from math import prod

from torch import nn

from stepwell.data.dataset import Kind
from stepwell.nn.configs import LinearModel
from stepwell.nn.kinds import accept


def build(
    config: LinearModel, input_shape: tuple[int, ...], outputs: int, kind: Kind | None = None
) -> nn.Sequential:
    """y = W x + b over the flattened input: (B, *input_shape) → (B, outputs).

    W starts as Xavier's uniform, b at zero. Refuses text.
    """
    accept(config.name, ("features", "image", "sequence"), kind, input_shape)
    layer = nn.Linear(prod(input_shape), outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), layer)
