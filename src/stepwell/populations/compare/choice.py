"""Which value a key is tuned to: by the validation part alone."""

from __future__ import annotations

import math
from collections.abc import Sequence


def rank(losses: Sequence[float]) -> tuple[int, float]:
    """The place of a value among others, the lowest first: (failed runs, mean loss of the others).

    losses: the validation loss of each seed, not finite where the run failed. A value at which fewer runs
    fail comes first whatever the others reached, as if a failed run's loss were infinite.
    """
    finite = [loss for loss in losses if math.isfinite(loss)]
    return len(losses) - len(finite), math.fsum(finite) / len(finite) if finite else math.inf
