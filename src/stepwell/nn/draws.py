"""Where every random layer gets its random numbers from, so that they can be supplied from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Source = Callable[[tuple[int, ...], torch.device], Tensor]

_source: Source | None = None


def uniform(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Draws u ~ U[0, 1) in float32, from torch's global generator or from what `supplied` put there.

    Never in half precision: bfloat16 has so few values that u < 0.1 would not hold for a tenth.
    """
    if _source is not None:
        return _source(shape, device)
    return torch.rand(shape, device=device, dtype=torch.float32)


def are_supplied() -> bool:
    """Whether numbers come from outside, so that a layer must not draw in another way."""
    return _source is not None


@contextmanager
def supplied(source: Source) -> Iterator[None]:
    """Inside, layers take their numbers from source(shape, device), in the order in which they run.

    For members of a population, each with its own draws, and for numbers that depend on the sample
    alone (Monte-Carlo dropout). The first dimension of `shape` is the batch, or shape is () where the
    whole batch has one draw. Holds for the process: two threads must not do this at once.
    """
    global _source
    before, _source = _source, source
    try:
        yield
    finally:
        _source = before
