"""Random numbers of a batch: each sample's depend on (key, sample, stream) alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum, unique

import torch
from torch import Tensor

from stepwell.data import counter


@unique
class Stream(IntEnum):
    """A stream of random numbers for every quantity that is drawn, so that no two go together."""

    FLIP = 1
    DOWN = 2
    RIGHT = 3
    NOISE = 4
    VERTICAL_FLIP = 5
    WINDOW_AREA = 6
    WINDOW_ASPECT = 7
    WINDOW_DOWN = 8
    WINDOW_RIGHT = 9
    SCALE = 10
    ROTATION = 11
    TRANSLATION_DOWN = 12
    TRANSLATION_RIGHT = 13
    BRIGHTNESS = 14
    CONTRAST = 15
    SATURATION = 16
    HUE = 17
    ERASING = 18
    ERASING_AREA = 19
    ERASING_ASPECT = 20
    ERASING_DOWN = 21
    ERASING_RIGHT = 22
    ERASING_NOISE = 23
    MIXUP = 24
    MIXUP_SHARE = 25
    CUTMIX = 26
    CUTMIX_SHARE = 27
    CUTMIX_DOWN = 28
    CUTMIX_RIGHT = 29
    WHICH_MIX = 30


@dataclass(frozen=True)
class Draws:
    """What is drawn for the samples with these numbers in one epoch.

    key: of (seed, epoch); a tensor where members of a population are stacked by torch.func.vmap.
    sample: (B,) int64, the samples' numbers.
    """

    key: counter.Key
    sample: Tensor

    def uniform(self, stream: Stream) -> Tensor:
        """(B,) float64 in [0, 1)."""
        return counter.uniform(counter.stream(self.key, int(stream)), self.sample)

    def between(self, stream: Stream, low: float | Tensor, high: float | Tensor) -> Tensor:
        """(B,) float64, uniform in [low, high)."""
        return low + self.uniform(stream) * (high - low)

    def log_uniform(self, stream: Stream, low: float | Tensor, high: float | Tensor) -> Tensor:
        """(B,) float64 in [low, high), whose logarithm is uniform.

        By exp and log: torch's power of a number rounds otherwise at another place in the batch.
        """
        ends = [end.log() if isinstance(end, Tensor) else math.log(end) for end in (low, high)]
        return self.between(stream, *ends).exp()

    def normal(self, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) float32, standard normal; each number of each sample has a count of its own."""
        size = math.prod(shape)
        each = torch.arange(size, device=self.sample.device)
        number = self.sample[:, None] * size + each  # (B, size)
        drawn = counter.normal(counter.stream(self.key, int(stream)), number)
        return drawn.to(torch.float32).view(-1, *shape)


def of_each(values: Tensor, x: Tensor) -> Tensor:
    """A value a sample (B,), in the shape that goes with x (B, …)."""
    return values.view(-1, *[1] * (x.dim() - 1))


def computed(x: Tensor) -> Tensor:
    """x in the type to compute in: float32 where its own is coarser."""
    return x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)


def returned(values: Tensor, x: Tensor) -> Tensor:
    """The values in the type of x; of whole-numbered pixels float32, since they are between the numbers."""
    return values.to(x.dtype) if x.is_floating_point() else values
