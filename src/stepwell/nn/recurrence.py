"""LSTM and GRU that torch.vmap can stack, which has no rule for torch's own kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LSTM(nn.LSTM):
    """torch.nn.LSTM with batch_first; under torch.vmap the same formula step by step.

    (i, f, g, o) = W x + b + U h + d;  c ← σ(f) c + σ(i) tanh(g);  h ← σ(o) tanh(c)

    The state begins at 0. Inside torch.vmap dropout between layers is refused.
    """

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        if not _is_mapped(input, self.weight_ih_l0) or hx is not None:
            return super().forward(input, hx)
        return _layers(self, input, _lstm), None


class GRU(nn.GRU):
    """torch.nn.GRU with batch_first; under torch.vmap the same formula step by step.

    r, z = σ(W x + b + U h + d);  n = tanh(W x + b + r (U h + d));  h ← (1 − z) n + z h

    The state begins at 0. Inside torch.vmap dropout between layers is refused.
    """

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        if not _is_mapped(input, self.weight_ih_l0) or hx is not None:
            return super().forward(input, hx)
        return _layers(self, input, _gru), None


def _is_mapped(*tensors: Any) -> bool:
    """Whether torch.vmap runs over one of these, below whatever else is around it."""
    functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    for tensor in tensors:
        while functorch.is_functorch_wrapped_tensor(tensor):
            if functorch.is_batchedtensor(tensor):
                return True
            tensor = functorch.get_unwrapped(tensor)
    return False


def _layers(module: nn.RNNBase, x: Tensor, layer: Callable[..., Tensor]) -> Tensor:
    """(B, T, D) → (B, T, width) through all layers."""
    if module.dropout or module.bidirectional or not module.batch_first or module.proj_size:
        raise RuntimeError("a recurrent layer with dropout, two directions or projections cannot be stacked")
    for number in range(module.num_layers):
        names = [f"weight_ih_l{number}", f"weight_hh_l{number}"]
        names += [f"bias_ih_l{number}", f"bias_hh_l{number}"] if module.bias else []
        x = layer(x, module.hidden_size, [getattr(module, name) for name in names])
    return x


def _lstm(x: Tensor, width: int, weights: Sequence[Tensor]) -> Tensor:
    w, u, b, d = *weights, *[None] * (4 - len(weights))
    inputs = F.linear(x, w, b)  # type: ignore[arg-type]
    h = c = x.new_zeros(len(x), width)
    states = []
    for step in inputs.unbind(1):
        i, f, g, o = (step + F.linear(h, u, d)).chunk(4, -1)  # type: ignore[arg-type]
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return torch.stack(states, 1)


def _gru(x: Tensor, width: int, weights: Sequence[Tensor]) -> Tensor:
    w, u, b, d = *weights, *[None] * (4 - len(weights))
    inputs = F.linear(x, w, b)  # type: ignore[arg-type]
    h = x.new_zeros(len(x), width)
    states = []
    for step in inputs.unbind(1):
        r, z, n = step.chunk(3, -1)
        own_r, own_z, own_n = F.linear(h, u, d).chunk(3, -1)  # type: ignore[arg-type]
        r, z = (r + own_r).sigmoid(), (z + own_z).sigmoid()
        n = (n + r * own_n).tanh()
        h = (1 - z) * n + z * h
        states.append(h)
    return torch.stack(states, 1)
