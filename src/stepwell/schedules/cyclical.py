"""Cyclical values: up and down in triangles."""

from typing import Literal

from stepwell.errors import UserError
from stepwell.schedules.arguments import NOT_NEGATIVE, POSITIVE, checked, one_of
from stepwell.schedules.schedule import Schedule


@checked(
    start=NOT_NEGATIVE,
    peak=NOT_NEGATIVE,
    rise=POSITIVE,
    fall=NOT_NEGATIVE,
    kind=one_of("triangular", "triangular2", "exp_range"),
    decay=NOT_NEGATIVE,
)
def cyclical(
    start: float,
    peak: float,
    rise: float,
    fall: float | None = None,
    kind: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    decay: float = 1.0,
) -> Schedule:
    """From `start` to `peak` and back along lines, again and again.

    η(t) = start + (peak − start) · x · h, where x goes from 0 to 1 in `rise` steps and back in `fall`;
    h is 1 (triangular), 1/2^c in cycle c = 0, 1, … (triangular2), or decay^t (exp_range)

    start, peak: ≥ 0; with a peak below the start it runs against, as momentum does. rise: steps, above 0.
    fall: steps, ≥ 0; as many as rise if not given. decay: ≥ 0, for exp_range alone. Source: Smith 2017
    (Cyclical Learning Rates), section 3; as `torch.optim.lr_scheduler.CyclicLR(base_lr=start, max_lr=peak,
    step_size_up=rise, step_size_down=fall, mode=kind, gamma=decay)`, whose momentum is
    `cyclical(max_momentum, base_momentum, …)`.
    """
    if decay != 1 and kind != "exp_range":
        raise UserError(f"cyclical: decay={decay:g} has no effect with kind='{kind}': it is for 'exp_range'")
    fall = rise if fall is None else fall
    length = rise + fall

    def at(step: float) -> float:
        cycle, place = divmod(step, length)
        x = place / rise if place <= rise else (length - place) / fall
        height = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": decay**step}[kind]
        return start + (peak - start) * x * height

    return at
