"""Spectral normalization (Miyato, Kataoka, Koyama & Yoshida 2018)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils import parametrize

Layer = TypeVar("Layer", bound=nn.Module)
FIRST = 15  # power iterations at the start, as torch's


class SpectralNorm(nn.Module):
    """w = W / σ, σ = uᵀ W v about the largest singular value of W as a matrix (units × inputs).

    Each training forward makes one power iteration, u ← W v / ‖W v‖ and v ← Wᵀu / ‖Wᵀu‖, without
    gradients; σ has one, in W. u and v are the buffers `_u`, `_v`, as in torch's
    `parametrizations.spectral_norm`, with the same numbers, but a forward *rebinds* them as `BatchNorm` does
    its statistics, and works under vmap. Computed in W's own precision under autocast too.

    dim: where the units are, 0; of a transposed convolution 1, as in torch.

    Traps: ‖W x‖ ≤ ‖x‖ only as far as the iteration has converged; the bound of a convolution as an
    operator is another one (larger, up to the window's size). W = 0 has no direction. Source: Miyato et
    al. 2018, algorithm 1.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        units, inputs = self._matrix(weight).shape
        for name, size in (("_u", units), ("_v", inputs)):
            start = weight.new_empty(size).normal_(0, 1)
            self.register_buffer(name, F.normalize(start.detach(), dim=0, eps=eps))
        for _ in range(FIRST):
            self._iterate(self._matrix(weight.detach()))

    def forward(self, weight: Tensor) -> Tensor:
        kind = weight.device.type
        with torch.autocast(kind, enabled=False) if kind != "meta" else nullcontext():
            matrix = self._matrix(weight)
            if self.training:
                self._iterate(matrix.detach())
            return weight / (self._u @ (matrix @ self._v))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning to `layer.weight` sets W, whatever its σ."""
        return weight

    def _matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.dim, 0).flatten(1)

    def _iterate(self, matrix: Tensor) -> None:
        self._u = F.normalize(matrix @ self._v, dim=0, eps=self.eps)
        self._v = F.normalize(matrix.T @ self._u, dim=0, eps=self.eps)


def spectral_norm(layer: Layer, name: str = "weight") -> Layer:
    """Puts `SpectralNorm` on the layer's weight; returns the layer, whose weight is now of norm about 1.

    >>> sorted(name for name, _ in spectral_norm(nn.Linear(3, 2)).named_buffers())
    ['parametrizations.weight.0._u', 'parametrizations.weight.0._v']
    """
    dim = 1 if isinstance(layer, _ConvTransposeNd) else 0
    parametrize.register_parametrization(layer, name, SpectralNorm(getattr(layer, name), dim))
    return layer
