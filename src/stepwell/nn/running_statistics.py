"""Batch norm's statistics for weights that no training forward has seen, such as averaged ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stepwell.errors import UserError


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[Any]) -> None:
    """Sets every batch norm's running statistics to their mean over `batches`; all else stays as it is.

    batches: inputs, or tuples that begin with them; on the model's own device. Each counts the same,
    so a small last one is better left out. Without batch norm nothing is done, and no batch is asked for.
    A batch norm in evaluation mode inside a model in training mode is frozen, and keeps its statistics.
    As torch.optim.swa_utils.update_bn, with one difference: dropout and stochastic depth are off, as they
    are when the statistics are used; torch leaves them on, and the variances become those of noisy
    signals (Li et al. 2019). Source: Izmailov et al. 2018, section 3.3.
    """
    norms = [
        m
        for m in model.modules()
        if isinstance(m, _BatchNorm) and m.running_mean is not None and (m.training or not model.training)
    ]
    if not norms:
        return
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    before = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
    seen, finished = 0, False
    try:
        model.eval()
        for norm in norms:
            norm.train()
            norm.momentum = None
            norm.reset_running_stats()
        for batch in batches:
            model(batch if isinstance(batch, Tensor) else batch[0])
            seen += 1
        finished = seen > 0
    finally:
        for norm, momentum, old in zip(norms, momenta, before, strict=True):
            norm.momentum = momentum
            if not finished:
                for name, value in old.items():
                    setattr(norm, name, value)
        for module, mode in modes.items():
            module.training = mode
    if not seen:
        raise UserError("reestimate got no batches: give some of the training data")
