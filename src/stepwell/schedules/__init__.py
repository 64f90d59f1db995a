"""Schedules: functions from the step to a value, and functions that join them.

Only `LRScheduler`, the adapter for loops that expect one of torch's, loads torch, when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from stepwell.schedules.average import average
from stepwell.schedules.chain import chain
from stepwell.schedules.constant import constant
from stepwell.schedules.cosine import cosine
from stepwell.schedules.cyclical import cyclical
from stepwell.schedules.exponential import exponential
from stepwell.schedules.inverse_time import inverse_time
from stepwell.schedules.join import join
from stepwell.schedules.linear import linear
from stepwell.schedules.multi_step import multi_step
from stepwell.schedules.multiplicative import multiplicative
from stepwell.schedules.one_cycle import one_cycle
from stepwell.schedules.one_cycle_momentum import one_cycle_momentum
from stepwell.schedules.plateau import Plateau
from stepwell.schedules.polynomial import polynomial
from stepwell.schedules.restarts import restarts
from stepwell.schedules.sawtooth import sawtooth
from stepwell.schedules.scale import scale
from stepwell.schedules.schedule import Schedule
from stepwell.schedules.step import step
from stepwell.schedules.warm_up import warm_up
from stepwell.schedules.warm_up_stable_decay import warm_up_stable_decay

if TYPE_CHECKING:
    from stepwell.schedules.lr_scheduler import LRScheduler

__all__ = [
    "LRScheduler",
    "Plateau",
    "Schedule",
    "average",
    "chain",
    "constant",
    "cosine",
    "cyclical",
    "exponential",
    "inverse_time",
    "join",
    "linear",
    "multi_step",
    "multiplicative",
    "one_cycle",
    "one_cycle_momentum",
    "polynomial",
    "restarts",
    "sawtooth",
    "scale",
    "step",
    "warm_up",
    "warm_up_stable_decay",
]


def __getattr__(name: str) -> Any:
    if name == "LRScheduler":
        from stepwell.schedules.lr_scheduler import LRScheduler

        return LRScheduler
    raise AttributeError(f"module 'stepwell.schedules' has no attribute '{name}'")
