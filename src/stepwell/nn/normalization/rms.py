"""Root-mean-square normalization (Zhang & Sennrich 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """y = x / √(mean(x²) + ε) · γ: layer normalization without mean and without β.

    channel_dim=-1: (…, C), the mean over the last dimension; this is torch.nn.RMSNorm(C).
    channel_dim=1: (B, C, …), over all channels and places of a sample. eps: default the smallest ε with
    1 + ε > 1 in the type computed in, float32 for half precision, as torch. Source: Zhang & Sennrich
    2019, eq. 4, where there is no ε.
    """

    def __init__(self, channels: int, eps: float | None = None, *, channel_dim: int = -1) -> None:
        super().__init__(channels, eps)
        self.channel_dim = channel_dim

    def forward(self, x: Tensor) -> Tensor:
        if self.channel_dim != 1:
            return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)
        exact = x.to(torch.promote_types(x.dtype, torch.float32))  # x² of half precision overflows
        eps = torch.finfo(exact.dtype).eps if self.eps is None else self.eps
        mean = exact.square().mean(list(range(1, x.dim())), keepdim=True)
        gain = self.weight.view(-1, *[1] * (x.dim() - 2))
        return (exact * (mean + eps).rsqrt()).to(x.dtype) * gain.to(x.dtype)
