"""Gradient clipping, for the optimizers and for loops of one's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from stepwell.engine.eager import total_norm
from stepwell.errors import UserError

HALF = (torch.bfloat16, torch.float16)


@torch.no_grad()
def clip_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float) -> Tensor:
    """Scales the gradients so that the Euclidean norm of all of them together is at most `max_norm`.

    g ← g · min(1, max_norm / (‖g‖ + 10⁻⁶)), in place. max_norm > 0. Parameters without a gradient are
    passed over. Returns the norm before, a tensor on the gradients' device: reading it waits for the
    device, the clipping does not. A norm that is not finite makes the gradients so, without an error.

    As torch.nn.utils.clip_grad_norm_; of half precision the norm is taken in float32.
    """
    _check("max_norm", max_norm)
    kinds = _by_kind(parameters)
    norm = _norm(kinds)
    for gradients in kinds:
        share = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, share.to(gradients[0].device))  # type: ignore[attr-defined]
    return norm


@torch.no_grad()
def clip_value_(parameters: Tensor | Iterable[Tensor], max_value: float) -> Tensor:
    """Limits each element of the gradients to [−max_value, max_value], in place.

    max_value > 0. Parameters without a gradient are passed over. Returns the Euclidean norm of all
    gradients before, a tensor on their device. As torch.nn.utils.clip_grad_value_, which returns nothing.
    """
    _check("max_value", max_value)
    kinds = _by_kind(parameters)
    norm = _norm(kinds)
    for gradients in kinds:
        torch._foreach_clamp_min_(gradients, -max_value)  # type: ignore[attr-defined]
        torch._foreach_clamp_max_(gradients, max_value)  # type: ignore[attr-defined]
    return norm


@torch.no_grad()
def clip_adaptive_(parameters: Tensor | Iterable[Tensor], share: float, eps: float = 1e-3) -> Tensor:
    """Limits the norm of each unit's gradient to a share of the norm of its weights, in place.

    g ← g · min(1, share · max(‖w‖, eps) / ‖g‖) for each row of a matrix, filter of a convolution, or
    whole vector. share > 0, 0.01 say; eps ≥ 0 lets weights that start at 0 move. Parameters without a
    gradient are passed over. Returns the Euclidean norm of all gradients before, a tensor on their device.

    Source: Brock et al. 2021 (NFNets), eq. 3; there the last layer is left out.
    """
    _check("share", share)
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    norm = _norm(_by_kind(parameters))
    there = [p for p in parameters if p.grad is not None]
    clipped = clipped_by_unit(there, [p.grad for p in there], share, eps)
    for p, g in zip(there, clipped, strict=True):
        assert p.grad is not None and g is not None
        p.grad.copy_(g)
    return norm


def unit_norms(x: Tensor) -> Tensor:
    """Norms of a weight's units: of each row of a matrix or filter of a convolution (first dimension kept,
    the others 1 long), of the whole for a vector or scalar."""
    if x.dim() < 2:
        return torch.linalg.vector_norm(x, dtype=_wide(x))
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.dim())), keepdim=True, dtype=_wide(x))


def clipped_by_unit(
    weights: Iterable[Tensor], gradients: Sequence[Tensor | None], share: float | Tensor, eps: float = 1e-3
) -> list[Tensor | None]:
    """New gradients whose units are no longer than `share` of their weights' units.

    g ← g · min(1, share · max(‖w‖, eps) / ‖g‖), unit by unit (see `unit_norms`). share > 0; eps ≥ 0 lets
    weights that start at 0 move. None stays None, and the gradients given are not changed.

    Source: Brock et al. 2021 (NFNets), eq. 3, with the paper's eps of 1e-3.
    """
    clipped: list[Tensor | None] = []
    with torch.no_grad():
        for w, g in zip(weights, gradients, strict=True):
            if g is None:
                clipped.append(None)
                continue
            limit = share * unit_norms(w).clamp(min=eps)
            factor = (limit / unit_norms(g).clamp(min=1e-12)).clamp(max=1.0)
            clipped.append((g * factor).to(g.dtype))
    return clipped


def norm_of(gradients: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all tensors together, on the first one's device; 0 without any."""
    return _norm(_kinds(gradients))


def _by_kind(parameters: Tensor | Iterable[Tensor]) -> list[list[Tensor]]:
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return _kinds(p.grad for p in parameters if p.grad is not None)


def _kinds(gradients: Iterable[Tensor]) -> list[list[Tensor]]:
    """The gradients, apart by device and type: torch's operations on many tensors at once want that."""
    kinds: dict[Any, list[Tensor]] = {}
    for g in gradients:
        if g.is_sparse:
            raise UserError(
                "a gradient is sparse, which cannot be clipped: build the layer with sparse=False"
            )
        kinds.setdefault((g.device, g.dtype), []).append(g)
    return list(kinds.values())


@torch.no_grad()
def _norm(kinds: list[list[Tensor]]) -> Tensor:
    parts = []
    for gradients in kinds:
        precise = torch.float32 if gradients[0].dtype in HALF else None
        parts.append(total_norm(torch._foreach_norm(gradients, 2, precise)))  # type: ignore[attr-defined]
    device = kinds[0][0].device if kinds else None
    norm = total_norm([part.to(device) for part in parts])
    return torch.tensor(0.0) if norm is None else norm


def _check(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise UserError(f"{name}={value!r} cannot be used: give a number above 0")


def _wide(x: Tensor) -> torch.dtype | None:
    """Half precision is added up in float32: its own largest number is soon exceeded."""
    return torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else None
