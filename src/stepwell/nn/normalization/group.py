"""Group normalization (Wu & He 2018)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stepwell.errors import UserError


class GroupNorm(nn.GroupNorm):
    """y = (x − μ) / √(σ² + ε) · γ + β, μ and σ² of each sample's each group of C/G channels.

    x: (B, C, …), over the group's channels and all places, as torch.nn.GroupNorm; with channel_dim=-1
    (…, C), over the group's channels at each position by itself. One group is layer norm, C groups of
    an image are instance norm. Independent of the batch's size, in training and evaluation the same.
    Source: Wu & He 2018, eq. 1 and 7.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, *, channel_dim: int = 1
    ) -> None:
        if num_channels % num_groups:
            raise UserError(
                f"{num_groups} groups do not divide {num_channels} channels: give a number that does"
            )
        super().__init__(num_groups, num_channels, eps)
        self.channel_dim = channel_dim

    def forward(self, input: Tensor) -> Tensor:
        x = input if self.channel_dim == 1 else input.flatten(0, -2)
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps).view(input.shape)
