"""Schemes that fill one tensor: ones that keep the variance of signals, and bad ones to compare with.

Each fills a tensor in place and returns it. fan_in is how many inputs a unit has, and fan_out how many
units an input reaches: of a matrix its columns and rows, of a convolution's filters both times the size
of the window.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Generator, Tensor

from stepwell.errors import UserError


@torch.no_grad()
def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """w ~ U(−a, a), a = gain √(6 / (fan_in + fan_out)): variance gain² · 2 / (fan_in + fan_out).

    For tanh and linear layers: signals keep their variance forward and gradients backward, on average. As
    torch.nn.init.xavier_uniform_. Source: Glorot & Bengio 2010, eq. 16.
    """
    fan_in, fan_out = fans(tensor)
    bound = math.sqrt(3.0) * (gain * math.sqrt(2.0 / (fan_in + fan_out)))
    return tensor.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """w ~ N(0, gain² · 2 / (fan_in + fan_out)): `xavier_uniform_` with a normal distribution.

    As torch.nn.init.xavier_normal_. Source: Glorot & Bengio 2010, eq. 12.
    """
    fan_in, fan_out = fans(tensor)
    return tensor.normal_(0.0, gain * math.sqrt(2.0 / (fan_in + fan_out)), generator=generator)


@torch.no_grad()
def he_uniform_(
    tensor: Tensor,
    gain: float = math.sqrt(2.0),
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    generator: Generator | None = None,
) -> Tensor:
    """w ~ U(−a, a), a = gain √(3 / fan): variance gain² / fan, and gain² = 2 makes up for ReLU's zeros.

    mode: fan_in keeps the variance of signals forward, fan_out that of gradients backward. As
    torch.nn.init.kaiming_uniform_(nonlinearity="relu"). Source: He et al. 2015, eq. 10 and 14.
    """
    bound = math.sqrt(3.0) * (gain / math.sqrt(_fan(tensor, mode)))
    return tensor.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def he_normal_(
    tensor: Tensor,
    gain: float = math.sqrt(2.0),
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    generator: Generator | None = None,
) -> Tensor:
    """w ~ N(0, gain² / fan): `he_uniform_` with a normal distribution.

    As torch.nn.init.kaiming_normal_(nonlinearity="relu"). Source: He et al. 2015, eq. 10 and 14.
    """
    return tensor.normal_(0.0, gain / math.sqrt(_fan(tensor, mode)), generator=generator)


@torch.no_grad()
def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """gain · Q with Q from the QR decomposition of a normal matrix: its rows, or columns if these are
    fewer, are orthonormal.

    A tensor of more dimensions counts as the matrix of its units (first dimension). Signs are those of
    R's diagonal, so that Q is uniform over all orthogonal matrices. As torch.nn.init.orthogonal_. Source:
    Saxe et al. 2014; Mezzadri 2007 for the signs.
    """
    _check_matrix(tensor)
    if tensor.numel() == 0:
        return tensor
    flat = tensor.new_empty((len(tensor), tensor.numel() // len(tensor))).normal_(0, 1, generator=generator)
    wide = flat.shape[0] < flat.shape[1]
    q, r = torch.linalg.qr(flat.T if wide else flat)
    q = q * r.diagonal().sign()
    return tensor.copy_((q.T if wide else q).reshape(tensor.shape)).mul_(gain)


@torch.no_grad()
def zeros_(tensor: Tensor) -> Tensor:
    """w = 0, a bad one: the units of a layer stay equal to one another, and layers below get no gradient."""
    return tensor.zero_()


@torch.no_grad()
def small_normal_(tensor: Tensor, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """w ~ N(0, 0.01²) whatever the fans, a bad one: signals shrink from layer to layer, and gradients."""
    return tensor.normal_(0.0, std, generator=generator)


@torch.no_grad()
def large_normal_(tensor: Tensor, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """w ~ N(0, 1) whatever the fans, a bad one: signals grow from layer to layer, or tanh saturates."""
    return tensor.normal_(0.0, std, generator=generator)


def fans(tensor: Tensor) -> tuple[int, int]:
    """fan_in and fan_out of a weight whose first dimension is its units; at least 1, of an empty one too."""
    _check_matrix(tensor)
    window = math.prod(tensor.shape[2:])
    return max(tensor.shape[1] * window, 1), max(tensor.shape[0] * window, 1)


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise UserError(f"mode={mode!r} does not exist: give fan_in or fan_out")
    return fans(tensor)[mode == "fan_out"]


def _check_matrix(tensor: Tensor) -> None:
    if tensor.dim() < 2:
        raise UserError(
            f"a tensor of shape {tuple(tensor.shape)} has no units with inputs: "
            "give the weight of a layer, of at least two dimensions, and set biases to 0"
        )
