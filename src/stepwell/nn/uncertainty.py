"""Monte-Carlo dropout: uncertainty from dropout left on (Gal & Ghahramani 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from stepwell.data import counter
from stepwell.errors import UserError
from stepwell.nn import draws


@torch.no_grad()
def monte_carlo(
    network: nn.Module,
    x: Tensor,
    samples: int = 100,
    seed: int = 0,
    *,
    first: int = 0,
    function: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of `samples` passes with dropout on and all else in evaluation mode.

    μ = 1/S Σ f_s(x), σ² = 1/(S−1) Σ (f_s(x) − μ)², each of the output's shape. samples: S ≥ 2. function:
    what is asked of the network, `network.predict` say; default its forward. A sample's masks depend on the
    seed and its number, which is `first` and its place in x: so they are the same in any batch.
    network: one with a `Dropout`, ours or torch's; torch's draw from its global generator instead, and
    dropout inside torch's LSTM, GRU and attention stays off.

    σ is what the weights leave open, not the noise of the targets: Gal & Ghahramani add τ⁻¹ for that
    (eq. 10). Its size follows p, which is chosen, so it ranks inputs better than it measures.
    """
    if samples < 2:
        raise UserError(f"samples={samples} have no standard deviation: give at least 2")
    mean, squares = torch.zeros(()), torch.zeros(())
    for number, y in enumerate(passes(network, x, samples, seed, first=first, function=function)):
        if number == 0:
            mean, squares = torch.zeros_like(y), torch.zeros_like(y)
        away = y - mean  # Welford's recurrence
        mean = mean + away / (number + 1)
        squares = squares + away * (y - mean)
    return mean, (squares / (samples - 1)).sqrt()


def passes(
    network: nn.Module,
    x: Tensor,
    samples: int,
    seed: int = 0,
    *,
    first: int = 0,
    function: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Yields the output of each pass of `monte_carlo`, without gradients."""
    layers = dropouts(network)
    if not layers:
        raise UserError(
            "this model has no dropout, so all passes would be the same: train with model.dropout"
        )
    for number in range(samples):
        with torch.no_grad(), _only(network, layers), draws.supplied(_of_samples(seed, number, first)):
            y = (function or network)(x)
        yield y


def dropouts(network: nn.Module) -> list[_DropoutNd]:
    """The layers of dropout that do something."""
    return [layer for layer in network.modules() if isinstance(layer, _DropoutNd) and layer.p > 0]


@contextmanager
def _only(network: nn.Module, layers: list[_DropoutNd]) -> Iterator[None]:
    """These layers in training mode, all others in evaluation mode; afterwards each as it was."""
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        for layer in layers:
            layer.training = True
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _of_samples(seed: int, number: int, first: int) -> draws.Source:
    """Numbers by counting: each depends on pass, layer, sample and the place in the sample alone."""
    layer = 0

    def source(shape: tuple[int, ...], device: torch.device) -> Tensor:
        nonlocal layer
        layer += 1
        size = math.prod(shape[1:])
        index = torch.arange(first * size, (first + shape[0]) * size, device=device)
        return counter.uniform(counter.key(seed, number, layer), index).view(shape)

    return source
