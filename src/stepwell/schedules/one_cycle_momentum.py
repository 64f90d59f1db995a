"""The momentum of one cycle."""

from typing import Literal

from stepwell.schedules.arguments import POSITIVE, checked, number, one_of
from stepwell.schedules.one_cycle import turns
from stepwell.schedules.schedule import Schedule
from stepwell.schedules.shapes import through


@checked(
    steps=POSITIVE,
    rise=number(least=0, most=1),
    high=number(least=0, below=1),
    low=number(least=0, below=1),
    shape=one_of("cosine", "linear"),
)
def one_cycle_momentum(
    steps: float,
    rise: float = 0.3,
    high: float = 0.95,
    low: float = 0.85,
    shape: Literal["cosine", "linear"] = "cosine",
    three_phase: bool = False,
) -> Schedule:
    """Momentum that is low while the rate of `one_cycle` with the same steps and rise is high.

    high → low → high, between them along `shape`; with three_phase high → low → high → high

    steps: above 0; the last is steps − 1. rise: share of the steps in which it falls, as in `one_cycle`.
    high, low: in [0, 1). shape: cosine or linear. Source: Smith 2018 (A disciplined approach to neural
    network hyper-parameters), section 4.3; values as `torch.optim.lr_scheduler.OneCycleLR(max_momentum=high,
    base_momentum=low)`.
    """
    values = (high, low, high, high) if three_phase else (high, low, high)
    return through(turns("one_cycle_momentum", steps, rise, three_phase), values, shape)
