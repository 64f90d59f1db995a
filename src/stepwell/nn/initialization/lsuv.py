"""Layer-sequential unit-variance initialization (Mishkin & Matas 2016)."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from stepwell.errors import UserError
from stepwell.nn.measuring import measuring

TOLERANCE, ITERATIONS = 0.1, 10
LAYERS = (nn.Linear, nn.Bilinear, _ConvNd)  # their output is linear in the weight


def scale_to_unit_variance(model: nn.Module, batch: Any) -> dict[str, float]:
    """Divides each layer's weight by its output's standard deviation: w ← w / √Var(W x).

    batch: what the model is called with; a tuple is several arguments. Returns the variance of each
    layer's output afterwards. Meant for orthogonal weights (`initialize(model, "lsuv", batch=x)`); the
    variance is over the batch, all units and all places, and the bias takes part in it.

    All layers in one forward pass: a layer is scaled when it has been called, until |Var − 1| ≤ 0.1 or
    ten times, and what the model goes on with is its new output; so each sees its inputs as they will be.
    Nothing is dropped and batch norm takes the batch's statistics meanwhile; buffers, mode and random
    state stay. As the paper's algorithm 1, but that a layer called several times is scaled at the first, and
    that one whose output is constant or not finite stays as it is (theirs would divide by 0). Layers
    whose forward is never called (the output of a MultiheadAttention), recurrent layers and embeddings
    stay as they are. Frozen weights too.
    """
    found: dict[str, float] = {}
    with measuring(model), torch.no_grad(), ExitStack() as hooks:
        for path, module in model.named_modules():
            if isinstance(module, LAYERS) and all(p.requires_grad for p in module.parameters()):
                hook = _scaler(path, found)
                handle = module.register_forward_hook(hook, with_kwargs=True, prepend=True)
                hooks.callback(handle.remove)
        try:
            model(*batch) if isinstance(batch, tuple) else model(batch)
        except (ValueError, RuntimeError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"lsuv could not run the model on its batch: {first}") from error
    return found


def _scaler(path: str, found: dict[str, float]) -> Any:
    def scale(module: Any, args: Any, kwargs: Any, output: Tensor) -> Tensor:
        if path in found:
            return output
        for _ in range(ITERATIONS):
            variance = _variance(output)
            if not 0 < variance < math.inf or abs(variance - 1) <= TOLERANCE:
                break
            module.weight = _scaled(module, variance**-0.5)
            output = module.forward(*args, **kwargs)
        found[path] = _variance(output)
        return output

    return scale


def _scaled(module: Any, factor: float) -> Any:
    """The weight times a factor: in place, or a new value to assign to a parametrized one."""
    weight = module.weight
    return weight.mul_(factor) if isinstance(weight, nn.Parameter) else weight * factor


def _variance(output: Tensor) -> float:
    return float(output.double().var(correction=0))
