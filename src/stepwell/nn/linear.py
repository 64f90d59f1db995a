"""Linear model: y = W x + b."""

from __future__ import annotations

from math import prod

from torch import nn

from stepwell.data.dataset import Kind
from stepwell.nn.configs import LinearModel
from stepwell.nn.kinds import accept
from stepwell.nn.normalization import registry as norms


def build(
    config: LinearModel, input_shape: tuple[int, ...], outputs: int, kind: Kind | None = None
) -> nn.Sequential:
    """y = W x + b over the flattened input: (B, *input_shape) → (B, outputs).

    norm: of the standardized input, or of W. W starts as Xavier's uniform, b at zero. Refuses text.
    """
    kind = accept(config.name, ("features", "image", "sequence"), kind, input_shape)
    layer = nn.Linear(prod(input_shape), outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    norms.normalize_weights(config.norm, [layer])
    channels = input_shape[0] if kind == "image" else input_shape[-1]
    norm = norms.after(config.norm, channels, kind, prod(input_shape) // channels)
    first = [] if isinstance(norm, nn.Identity) else [norm]
    return nn.Sequential(*first, nn.Flatten(), layer)
