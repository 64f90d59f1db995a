"""Cosine decay."""

import math

from stepwell.schedules.schedule import Schedule


def cosine(value: float, steps: float, end: float = 0.0) -> Schedule:
    """η(t) = end + (η0 − end) · (1 + cos(π t / steps)) / 2 for t ≤ steps, then `end`.

    Source: Loshchilov & Hutter 2017 (SGDR), eq. 5, without restarts; as
    `torch.optim.lr_scheduler.CosineAnnealingLR(T_max=steps, eta_min=end)`.
    """
    return lambda step: end + (value - end) * (1 + math.cos(math.pi * min(step / max(steps, 1e-12), 1.0))) / 2
