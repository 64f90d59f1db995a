"""Numbers on a device that follow those on the host, without waiting for the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Mirror:
    """`there`, words of eight bytes on the device, which get what changed in `here`, the host's."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.here = np.zeros(count, dtype=np.int64)
        self.there = torch.zeros(count, dtype=torch.int64, device=device)
        self._sent = self.here.copy()
        self._pinned = device.type == "cuda"

    def send(self) -> None:
        """Sends the words from the first that changed to the last.

        They travel in pinned memory, new each time: torch keeps it until the copy was made, which comes
        after this returns.
        """
        changed = np.flatnonzero(self.here != self._sent)
        if len(changed):
            span = slice(int(changed[0]), int(changed[-1]) + 1)
            self._sent[span] = self.here[span]
            part = torch.empty(span.stop - span.start, dtype=torch.int64, pin_memory=self._pinned)
            part.numpy()[:] = self.here[span]
            self.there[span].copy_(part, non_blocking=True)

    def floats(self, rows: int, columns: int) -> tuple[np.ndarray, Tensor]:
        """The first words, as a table of float64 numbers: the host's, the device's."""
        return (
            self.here[: rows * columns].view(np.float64).reshape(rows, columns),
            self.there[: rows * columns].view(torch.float64).view(rows, columns),
        )
