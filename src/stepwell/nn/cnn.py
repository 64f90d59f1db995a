"""Convolutional network."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from stepwell.data.dataset import Kind
from stepwell.nn import dropout
from stepwell.nn.configs import CNNModel
from stepwell.nn.convolution import ChannelsLastConv2d
from stepwell.nn.kinds import accept
from stepwell.nn.normalization import registry as norms


class GlobalAverage(nn.Module):
    """Mean over the image: (B, C, H, W) → (B, C), so that the head does not depend on the image's size."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def build(
    config: CNNModel, input_shape: tuple[int, ...], outputs: int, kind: Kind | None = None
) -> nn.Sequential:
    """Stages of convolution → norm → ReLU → 2×2 max-pooling; mean over the image; linear layer.

    (B, C, H, W) → (B, outputs). A stage does not pool where less than 2×2 would be left. On images
    larger than 127 the first convolution has stride ⌊side / 64⌋, or the first stage would cost more
    than all others. Dropout is before the last layer, spatial dropout after each stage. Convolutions
    start as He's normal, N(0, 2 / fan_in), the last layer as Xavier's uniform, all biases at zero.
    """
    accept(config.name, ("image",), kind, input_shape)
    channels_in, *sides = input_shape
    stride = max(1, min(sides) // 64)
    sides = [-(-side // stride) for side in sides]
    spatial = config.dropout is not None and config.dropout.kind == "spatial"
    stages = nn.Sequential()
    for channels in config.channels:
        convolution = nn.Conv2d if len(stages) else ChannelsLastConv2d
        norm = norms.after(config.norm, channels, "image", prod(sides))
        conv = convolution(
            channels_in, channels, config.kernel, stride, config.kernel // 2, bias=not norms.has_bias(norm)
        )
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        norms.normalize_weights(config.norm, [conv])
        stages.append(conv)
        if not isinstance(norm, nn.Identity):
            stages.append(norm)
        stages.append(nn.ReLU())
        if min(sides) >= 4:
            stages.append(nn.MaxPool2d(2))
            sides = [side // 2 for side in sides]
        if spatial:
            stages.append(dropout.build(config.dropout))
        channels_in, stride = channels, 1
    stages.append(GlobalAverage())
    if config.dropout is not None and not spatial:
        stages.append(dropout.build(config.dropout))
    last = nn.Linear(channels_in, outputs)
    nn.init.xavier_uniform_(last.weight)
    nn.init.zeros_(last.bias)
    stages.append(last)
    return stages
