"""Schedules: functions from the step to a value, and functions that join them."""

from stepwell.schedules.constant import constant
from stepwell.schedules.cosine import cosine
from stepwell.schedules.exponential import exponential
from stepwell.schedules.one_cycle import one_cycle
from stepwell.schedules.schedule import Schedule
from stepwell.schedules.step import step
from stepwell.schedules.warm_up import warm_up

__all__ = ["Schedule", "constant", "cosine", "exponential", "one_cycle", "step", "warm_up"]
