"""A model of your own: stepwell train data=digits model=examples.own_model:wide"""

from math import prod

from torch import nn


def wide(input_shape: tuple[int, ...], outputs: int, width: int = 128) -> nn.Module:
    """(B, *input_shape) → (B, outputs). Inputs come standardized; outputs are logits."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(prod(input_shape), width),
        nn.GELU(),
        nn.LayerNorm(width),
        nn.Linear(width, outputs),
    )
