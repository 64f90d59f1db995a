"""The random numbers that layers ask for: those that each member of a stack would draw alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

AT_ONCE = 1 << 22  # numbers of all members together, at most


class Noise:
    """`take(n)`: the next n numbers of every member, (K, n) float32 in [0, 1).

    Each member has a generator of its own. torch.rand draws one number after the other, so that many drawn
    at once are those that layers would draw one after the other.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.device = device
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.drawn = torch.zeros(len(self.generators), 0, device=device)
        self.begun = self._states()  # of the generators, before `drawn` was drawn
        self.place = 0

    def take(self, count: int) -> Tensor:
        """The next numbers."""
        if self.place + count > self.drawn.shape[1]:
            left = self.drawn.shape[1] - self.place
            if left:  # sizes differ from update to update: go back to where the next number is
                self._go_back()
            self.begun, self.place = self._states(), 0
            ahead = max(1, AT_ONCE // max(len(self.generators) * count, 1)) * count
            rows = [self._draw(g, ahead) for g in self.generators]
            self.drawn = torch.stack(rows)
        found = self.drawn[:, self.place : self.place + count]
        self.place += count
        return found

    def _go_back(self) -> None:
        for generator, state in zip(self.generators, self.begun, strict=True):
            generator.set_state(state)
            self._draw(generator, self.place)

    def _draw(self, generator: torch.Generator, count: int) -> Tensor:
        return torch.rand(count, generator=generator, device=self.device, dtype=torch.float32)

    def _states(self) -> list[Tensor]:
        return [generator.get_state() for generator in self.generators]

    def keep(self, rows: list[int]) -> None:
        """Goes on with these members alone."""
        self.generators = [self.generators[row] for row in rows]
        self.begun, self.drawn = [self.begun[row] for row in rows], self.drawn[rows]

    def state(self) -> dict[str, Tensor]:
        """Where the generators stand."""
        return {"states": torch.stack(self.begun), "place": torch.tensor(self.place)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from there."""
        for generator, own in zip(self.generators, state["states"], strict=True):
            generator.set_state(own.clone())  # torch misreads what is a part of a larger tensor
        self.begun, self.place = self._states(), int(state["place"])
        self._go_back()
        self.begun, self.place = self._states(), 0
        self.drawn = self.drawn[:, :0]


class Supply:
    """A member's numbers (n,) as the layers ask for them: see `nn.draws.supplied`."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers, self.place = numbers, 0

    def __call__(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        start, self.place = self.place, self.place + math.prod(shape)
        return self.numbers[start : self.place].view(shape).to(device)


class Count:
    """Counts the numbers that layers ask for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        self.asked += math.prod(shape)
        return torch.full(shape, 0.5, device=device)
