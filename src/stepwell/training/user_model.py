"""A first look at a model that is not ours: what it returns must fit before training begins."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.data.dataset import DataSet
from stepwell.errors import UserError
from stepwell.nn.network import Network


def try_out(network: Network, data: DataSet, name: str, device: torch.device) -> None:
    """Sends samples through the user's model; UserError where what it returns does not fit."""
    x, _ = data.train.gather(torch.arange(min(2, len(data.train))))
    wanted = (len(x), *(data.input_shape if data.kind == "text" else ()), data.outputs)
    network.eval()
    try:
        found = network(x.to(device))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"model {name}: inputs of shape {tuple(x.shape)} fail with {type(error).__name__}: {reason}"
        ) from error
    if not isinstance(found, Tensor) or tuple(found.shape) != wanted:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise UserError(
            f"model {name}: for {len(x)} samples it must return a tensor of shape {wanted}, not {got}"
        )
    if not any(p.requires_grad for p in network.parameters()):
        return  # refused by the caller, as with every model
    if not found.requires_grad:
        raise UserError(f"model {name}: its output depends on no weight, so there is nothing to learn")
    found.sum().backward()
    sparse = [n for n, p in network.named_parameters() if p.grad is not None and p.grad.is_sparse]
    network.zero_grad()
    if sparse:
        weight = sparse[0].removeprefix("body.")
        raise UserError(
            f"model {name}: the gradient of {weight} is sparse: build the layer with sparse=False"
        )
