"""A model as it is to be measured, and afterwards as if nothing had been."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Inside, the model computes as in training, but nothing is dropped; compiled parts run uncompiled.

    That is: evaluation mode, but for norms with moving statistics, which take the batch's, and for
    recurrent layers, whose gradients cuDNN has in training mode only. Afterwards, and after an error too,
    modes, buffers and the state of all random numbers are as before.
    """
    with ExitStack() as after:
        devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
        after.enter_context(torch.random.fork_rng(sorted(devices, key=str)))
        after.callback(random.setstate, random.getstate())
        after.callback(np.random.set_state, np.random.get_state())
        for module in model.modules():
            after.callback(setattr, module, "training", module.training)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    # A copy for the meantime: a backward pass that is still to come may need the original.
                    module._buffers[name] = buffer.detach().clone()
                    after.callback(module._buffers.__setitem__, name, buffer)
            recurrent = isinstance(module, nn.RNNBase)
            if recurrent:
                after.callback(setattr, module, "dropout", module.dropout)
                module.dropout = 0.0
            module.training = recurrent or getattr(module, "running_mean", None) is not None
        if "torch._dynamo" in sys.modules:  # else nothing has been compiled, and to load it takes a second
            after.enter_context(torch.compiler.set_stance("force_eager"))
        yield
