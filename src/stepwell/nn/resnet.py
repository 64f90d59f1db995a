"""Residual network for small images (He, Zhang, Ren & Sun 2016, section 4.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepwell.data.dataset import Kind
from stepwell.nn.configs import ResNetModel
from stepwell.nn.convolution import ChannelsLastConv2d
from stepwell.nn.kinds import accept


class Block(nn.Module):
    """y = relu(x' + norm₂(conv₂(relu(norm₁(conv₁(x)))))), (B, C, H, W) → (B, C', H/stride, W/stride).

    x' is the shortcut's option A of the paper: no parameters; where the block changes the size, every
    second pixel is taken and the new channels are zero.
    """

    branch_ends = ("norm2",)  # for zero_init_residual

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.stride, self.new_channels = stride, channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.new_channels:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return torch.relu(x + y)


class ResNet(nn.Module):
    """A 3×3 convolution, three groups of n blocks with width, 2·width and 4·width channels, mean, linear."""

    def __init__(self, blocks: int, width: int, channels_in: int, outputs: int) -> None:
        super().__init__()
        self.conv = ChannelsLastConv2d(channels_in, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        groups = []
        channels_in = width
        for channels, first_stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            for stride in (first_stride, *[1] * (blocks - 1)):
                groups.append(Block(channels_in, channels, stride))
                channels_in = channels
        self.blocks = nn.Sequential(*groups)
        self.linear = nn.Linear(channels_in, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
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
    return ResNet((config.depth - 2) // 6, config.width, input_shape[0], outputs)
