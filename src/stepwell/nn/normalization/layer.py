"""Layer normalization (Ba, Kiros & Hinton 2016)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """y = (x − μ) / √(σ² + ε) · γ + β, μ and σ² of each sample by itself, γ and β of each channel.

    channel_dim=-1: (…, C), μ and σ² over the last dimension, each position by itself; this is
    torch.nn.LayerNorm(C). channel_dim=1: (B, C, …), over all channels and places of a sample; this is
    torch.nn.GroupNorm(1, C), and what is called layer normalization of images (Wu & He 2018, section 3).
    σ² is divided by n, not n − 1. The same in training and evaluation. Source: Ba et al. 2016, eq. 3.
    """

    def __init__(self, channels: int, eps: float = 1e-5, *, channel_dim: int = -1) -> None:
        super().__init__(channels, eps)
        self.channel_dim = channel_dim

    def forward(self, input: Tensor) -> Tensor:
        if self.channel_dim == 1:
            return F.group_norm(input, 1, self.weight, self.bias, self.eps)
        return super().forward(input)
