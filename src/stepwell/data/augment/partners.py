"""Who is mixed with whom, and the targets that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


def partners(count: int, update: int, device: torch.device) -> Tensor:
    """The place of each sample's partner (count,): the next one of the same update, of its last the first.

    count: samples of one or several updates in a row, `update` of them each; the last may have fewer.
    An epoch's order is drawn anew, so that the next one is any other sample; everyone is partner once.
    A sample that is alone is its own partner, which changes nothing.
    """
    place = torch.arange(count, device=device)
    first = place // update * update
    size = (count - first).clamp(max=update)
    return first + (place - first + 1) % size


@dataclass(frozen=True)
class Mixed:
    """Targets of mixed samples: `own` with weight λ and `partner` with 1 − λ, (B, …) each, λ (B,).

    The loss L of a mixed sample is λ L(z, own) + (1 − λ) L(z, partner): `stepwell.nn.mixed_loss`.
    """

    own: Tensor
    partner: Tensor
    lam: Tensor

    def __len__(self) -> int:
        return len(self.own)

    @property
    def device(self) -> torch.device:
        """Where the targets are."""
        return self.own.device

    def map(self, change: Callable[[Tensor], Tensor]) -> Mixed:
        """Both targets changed alike, as by standardization."""
        return Mixed(change(self.own), change(self.partner), self.lam)

    def split(self, size: int) -> list[Mixed]:
        """Pieces of `size` samples, as torch.Tensor.split."""
        return list(self._pieces(lambda t: t.split(size)))

    def tensor_split(self, pieces: int) -> list[Mixed]:
        """So many pieces, as torch.Tensor.tensor_split."""
        return list(self._pieces(lambda t: t.tensor_split(pieces)))

    def record_stream(self, stream: torch.Stream) -> None:
        """As torch.Tensor.record_stream."""
        for values in (self.own, self.partner, self.lam):
            values.record_stream(stream)

    def _pieces(self, cut: Callable[[Tensor], tuple[Tensor, ...]]) -> Iterator[Mixed]:
        parts = zip(cut(self.own), cut(self.partner), cut(self.lam), strict=True)
        return (Mixed(*part) for part in parts)
