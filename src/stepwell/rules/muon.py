"""Muon: momentum whose step has nearly equal singular values."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import moment


def muon(
    w: Tensor,
    g: Tensor,
    b: Tensor,
    *,
    t: int,
    lr: float,
    momentum: float,
    eps: float,
    ns_a: float,
    ns_b: float,
    ns_c: float,
    ns_steps: int,
    ahead: Callable[[Tensor, Tensor, float], Tensor],
    scale: Callable[[int, int], float],
) -> tuple[Tensor, Tensor]:
    """b ← ρ b + (1−ρ) g;  x = (1−ρ) g + ρ b;  w ← w − η s orthogonalized(x)

    ρ is `momentum`, in [0, 1), and x is b itself without Nesterov's look ahead. s makes up for the shape:
    √max(1, rows / columns), or 0.2 √max(rows, columns), at which Adam's rates do. A tensor of another
    shape than a matrix counts as the matrix of its units (first dimension).

    Source: Jordan et al. 2024, and Liu et al. 2025 (Muon is scalable for LLM training) for the second s;
    as torch.optim.Muon.
    """
    b = moment(b, g, momentum)
    x = ahead(g, b, momentum)
    rows = x if x.dim() == 2 else x.reshape(len(x) if x.dim() else 1, -1)
    step = orthogonalized(rows, (ns_a, ns_b, ns_c), int(ns_steps), eps)
    return w - lr * scale(*rows.shape) * step.to(w.dtype).reshape(w.shape), b


def orthogonalized(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """A matrix with x's singular vectors, and singular values drawn towards 1, in bfloat16.

    x ← x / ‖x‖, then `steps` times: x ← a x + (b + c x xᵀ) x xᵀ x, the Newton–Schulz iteration of degree
    five. With Jordan's coefficients the values end between about 0.7 and 1.2, not at 1: they favour speed.
    """
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    y = x.bfloat16().T if tall else x.bfloat16()
    y = y / y.norm().clamp(min=eps)
    for _ in range(steps):
        square = y @ y.T
        y = torch.addmm(y, torch.addmm(square, square, square, beta=b, alpha=c), y, beta=a)
    return y.T if tall else y


def _nesterov(g: Tensor, b: Tensor, momentum: float) -> Tensor:
    return torch.lerp(g, b, momentum)


def _plain(g: Tensor, b: Tensor, momentum: float) -> Tensor:
    return b


def _original(rows: int, columns: int) -> float:
    return max(1.0, rows / max(columns, 1)) ** 0.5


def _as_adam(rows: int, columns: int) -> float:
    return 0.2 * max(rows, columns) ** 0.5


_SCALES = {"original": _original, "match_rms_adamw": _as_adam}
_DEFAULTS = {
    "lr": 1e-3,
    "momentum": 0.95,
    "eps": 1e-7,
    "ns_a": 3.4445,
    "ns_b": -4.7750,
    "ns_c": 2.0315,
    "ns_steps": 5,
}

# By whether it looks ahead, and by the name of s in torch.
MUONS = {
    (nesterov, name): Rule(
        "muon",
        partial(muon, ahead=_nesterov if nesterov else _plain, scale=scale),
        (State("momentum_buffer"),),
        _DEFAULTS,
        elementwise=False,
        matrices=True,
    )
    for nesterov in (True, False)
    for name, scale in _SCALES.items()
}
MUON = MUONS[True, "original"]
