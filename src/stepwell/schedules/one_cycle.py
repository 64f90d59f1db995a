"""One cycle of the rate."""

import math

from stepwell.schedules.schedule import Schedule


def one_cycle(
    value: float, steps: float, rise: float = 0.3, start_factor: float = 25.0, end_factor: float = 1e4
) -> Schedule:
    """From η0 / start_factor up to η0, then down to η0 / (start_factor · end_factor), along cosines.

    The rise takes the share `rise` of the `steps`. Source: Smith & Topin 2018; values as
    `torch.optim.lr_scheduler.OneCycleLR(max_lr=η0, total_steps=steps)`, whose last step is steps − 1.
    """
    low, last = value / start_factor, max(steps - 1, 1e-12)
    peak = rise * steps - 1

    def at(step: float) -> float:
        if step <= peak:
            return _between(low, value, step / max(peak, 1e-12))
        return _between(value, low / end_factor, min((step - peak) / max(last - peak, 1e-12), 1.0))

    return at


def _between(a: float, b: float, share: float) -> float:
    """From a (share 0) to b (share 1) along half a cosine."""
    return b + (a - b) * (1 + math.cos(math.pi * share)) / 2
