"""Instance normalization (Ulyanov, Vedaldi & Lempitsky 2016)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stepwell.errors import UserError


class InstanceNorm(nn.GroupNorm):
    """y = (x − μ) / √(σ² + ε) · γ + β, μ and σ² of each sample's each channel, over its places.

    x: (B, C, …), with channel_dim=-1 (B, …, C), at least two places. As torch.nn.InstanceNorm1d, 2d and
    3d with affine=True and no running statistics: the same in training and evaluation. Trap: a
    channel's mean over the places is β_c after it, whatever came in; so it goes before a non-linearity, never
    just before a mean over the image. Source: Ulyanov et al. 2016, eq. 3.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, *, channel_dim: int = 1) -> None:
        super().__init__(num_features, num_features, eps)
        self.channel_dim = channel_dim

    def forward(self, input: Tensor) -> Tensor:
        x = input if self.channel_dim == 1 else input.movedim(-1, 1)
        if x.dim() < 3 or x[0, 0].numel() < 2:
            raise UserError(
                f"instance norm averages over a sample's places, of which {tuple(input.shape)} has not two: "
                "use layer norm"
            )
        y = F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        return y if self.channel_dim == 1 else y.movedim(1, -1)
