"""One cycle of the rate."""

from typing import Literal

from stepwell.errors import UserError
from stepwell.schedules.arguments import NOT_NEGATIVE, POSITIVE, checked, number, one_of
from stepwell.schedules.schedule import Schedule
from stepwell.schedules.shapes import through


@checked(
    value=NOT_NEGATIVE,
    steps=POSITIVE,
    rise=number(least=0, most=1),
    start_factor=POSITIVE,
    end_factor=POSITIVE,
    shape=one_of("cosine", "linear"),
)
def one_cycle(
    value: float,
    steps: float,
    rise: float = 0.3,
    start_factor: float = 25.0,
    end_factor: float = 1e4,
    shape: Literal["cosine", "linear"] = "cosine",
    three_phase: bool = False,
) -> Schedule:
    """Up to η0, and down to almost nothing; `one_cycle_momentum` is the momentum against it.

    η0 / start_factor → η0 → η0 / (start_factor · end_factor), between them along `shape`;
    with three_phase η0 / start_factor → η0 → η0 / start_factor → η0 / (start_factor · end_factor)

    value: η0 ≥ 0. steps: above 0; the last is steps − 1. rise: share of the steps that go up, in [0, 1],
    with three_phase in [0, 0.5], since as many go down. start_factor, end_factor: above 0. shape: cosine or
    linear, torch's cos and linear. Source: Smith & Topin 2018 (Super-Convergence); values as
    `torch.optim.lr_scheduler.OneCycleLR` with max_lr=η0, total_steps=steps, pct_start=rise,
    div_factor=start_factor, final_div_factor=end_factor, anneal_strategy=shape. After the last step torch
    raises; ours stays.
    """
    start = value / start_factor
    end = start / end_factor
    values = (start, value, start, end) if three_phase else (start, value, end)
    return through(turns("one_cycle", steps, rise, three_phase), values, shape)


def turns(where: str, steps: float, rise: float, three_phase: bool) -> list[float]:
    """The steps at which a cycle turns: torch's, which are one step early, the second of three two."""
    if not three_phase:
        return [0.0, rise * steps - 1, steps - 1]
    if rise > 0.5:
        raise UserError(f"{where}: rise={rise:g} leaves no steps for the third phase: give at most 0.5")
    return [0.0, rise * steps - 1, 2 * rise * steps - 2, steps - 1]
