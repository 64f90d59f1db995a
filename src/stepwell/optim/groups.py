"""Parameter groups: which parameters weight decay pulls on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from stepwell.errors import UserError

NORMALIZATIONS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
NAMED_SO = re.compile(r"Norm(\d[dD])?$")  # LlamaRMSNorm, LayerNorm2d: classes of other libraries
BIAS = re.compile(r"(^|_)bias(_|$)")  # bias, bias_ih_l0, in_proj_bias


def decay_groups(
    model: nn.Module, weight_decay: float, *, without: Iterable[type[nn.Module]] = ()
) -> list[dict[str, Any]]:
    """Two parameter groups: what decays, and biases and normalization, which do not.

    >>> groups = decay_groups(nn.Linear(3, 2), weight_decay=0.1)
    >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
    [(1, 0.1), (1, 0.0)]

    A parameter decays if it has two dimensions or more, is not called a bias, and is not of a
    normalization layer: one of torch's, or a class whose name ends in Norm, Norm1d, Norm2d or Norm3d.
    weight_decay: of the first group, at least 0. without: further kinds of modules whose own parameters
    do not decay, `(nn.Embedding,)` say; embeddings decay otherwise.

    Every parameter that is trained (requires_grad) is in one of the groups, once, in the model's order. A
    shared one decays if it does so everywhere. A group may be empty.
    """
    number = isinstance(weight_decay, (int, float)) and not isinstance(weight_decay, bool)
    if not number or not 0 <= weight_decay < math.inf:
        raise UserError(f"weight_decay={weight_decay!r} cannot be used: give a number of at least 0")
    if not isinstance(model, nn.Module):
        raise UserError(
            f"decay_groups needs the model, whose layers tell its norms, not {type(model).__name__}"
        )
    kinds = (*NORMALIZATIONS, *without)
    decays: dict[nn.Parameter, bool] = {}
    for path, module in model.named_modules():
        plain = not isinstance(module, kinds) and not NAMED_SO.search(type(module).__name__)
        for name, p in module.named_parameters(path, recurse=False):
            if isinstance(p, UninitializedParameter):
                raise UserError(f"{name} has no shape yet: put one batch through the model first")
            if p.requires_grad:
                here = plain and p.dim() >= 2 and not BIAS.search(name.rpartition(".")[2])
                decays[p] = here and decays.get(p, True)
    return [
        {"params": [p for p, does in decays.items() if does], "weight_decay": weight_decay},
        {"params": [p for p, does in decays.items() if not does], "weight_decay": 0.0},
    ]
