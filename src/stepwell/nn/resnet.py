"""Residual network for small images (He, Zhang, Ren & Sun 2016, section 4.2)."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepwell.data.dataset import Kind
from stepwell.nn import dropout, stochastic_depth
from stepwell.nn.configs import ResNetModel
from stepwell.nn.convolution import ChannelsLastConv2d
from stepwell.nn.kinds import accept
from stepwell.nn.normalization import registry as norms
from stepwell.nn.stochastic_depth import StochasticDepth


class Block(nn.Module):
    """y = relu(x' + norm₂(conv₂(dropout(relu(norm₁(conv₁(x))))))).

    (B, C, H, W) → (B, C', H/stride, W/stride). x' is the shortcut's option A of the paper: no
    parameters; where the block changes the size, every second pixel is taken and the new channels are
    zero. Dropout stands between the convolutions, as in Wide ResNets (Zagoruyko & Komodakis 2016).
    places: of the block's output.
    """

    branch_ends = ("norm2",)  # whose weight, if it is zero, makes y = relu(x'); without a norm conv2's

    def __init__(
        self,
        channels_in: int,
        channels: int,
        stride: int,
        config: ResNetModel,
        places: int,
        depth: StochasticDepth,
    ) -> None:
        super().__init__()
        norm1, norm2 = (norms.after(config.norm, channels, "image", places) for _ in range(2))
        bias = not norms.has_bias(norm1)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=bias)
        self.norm1 = norm1
        self.dropout = dropout.build(config.dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=bias)
        self.norm2, self.depth = norm2, depth
        self.stride, self.new_channels = stride, channels - channels_in

    def branch(self, x: Tensor) -> Tensor:
        """The way through the convolutions."""
        y = self.dropout(torch.relu(self.norm1(self.conv1(x))))
        return self.norm2(self.conv2(y))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.new_channels:
            shortcut = x[:, :, :: self.stride, :: self.stride]
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        return torch.relu(self.depth(shortcut, self.branch, x))


class ResNet(nn.Module):
    """A 3×3 convolution, three groups of n blocks with width, 2·width and 4·width channels, mean, linear."""

    def __init__(self, config: ResNetModel, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        channels_in, *sides = input_shape
        width, blocks = config.width, (config.depth - 2) // 6
        norm = norms.after(config.norm, width, "image", prod(sides))
        self.conv = ChannelsLastConv2d(channels_in, width, 3, 1, 1, bias=not norms.has_bias(norm))
        self.norm = norm
        depths = stochastic_depth.build(config.stochastic_depth, 3 * blocks)
        groups = []
        channels_in = width
        for channels, first_stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            for stride in (first_stride, *[1] * (blocks - 1)):
                sides = [-(-side // stride) for side in sides]
                depth = depths[len(groups)]
                groups.append(Block(channels_in, channels, stride, config, prod(sides), depth))
                channels_in = channels
        self.blocks = nn.Sequential(*groups)
        self.linear = nn.Linear(channels_in, outputs)
        convolutions = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        for conv in convolutions:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        norms.normalize_weights(config.norm, convolutions)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        return self.linear(self.blocks(x).mean((2, 3)))


def build(
    config: ResNetModel, input_shape: tuple[int, ...], outputs: int, kind: Kind | None = None
) -> ResNet:
    """Depth 6n + 2 with shortcuts of option A: (B, C, H, W) → (B, outputs).

    Convolutions start as He's normal, N(0, 2 / fan_in). Depth 20 on 3×32×32 with ten outputs has
    269,722 parameters.
    """
    accept(config.name, ("image",), kind, input_shape)
    return ResNet(config, input_shape, outputs)
