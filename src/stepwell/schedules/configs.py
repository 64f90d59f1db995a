"""The recipe's `schedule` section: one class a schedule, and how each becomes a function."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stepwell import schedules
from stepwell.schedules import Schedule


class ConstantConfig(BaseModel):
    """The same rate throughout."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["constant"] = "constant"
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the run with a linear rise at its start")


class CosineConfig(BaseModel):
    """Down along half a cosine."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["cosine"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the run with a linear rise at its start")
    end: float = Field(0.0, ge=0, le=1, description="last rate, as a share of the highest")


class StepConfig(BaseModel):
    """Cuts at equal distances."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["step"] = "step"
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the run with a linear rise at its start")
    every: float = Field(1 / 3, gt=0, le=1, description="share of the run (after warm-up) between two cuts")
    factor: float = Field(0.1, gt=0, le=1, description="what each cut multiplies the rate with")


class ExponentialConfig(BaseModel):
    """The same relative decay at every update."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["exponential"] = "exponential"
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the run with a linear rise at its start")
    end: float = Field(0.01, gt=0, le=1, description="rate at the end of the run, as a share of the highest")


class OneCycleConfig(BaseModel):
    """Up, and down to almost nothing."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["one-cycle"] = "one-cycle"
    rise: float = Field(0.3, gt=0, lt=1, description="share of the run in which the rate rises")


ScheduleConfig = ConstantConfig | CosineConfig | StepConfig | ExponentialConfig | OneCycleConfig

SCHEDULES: dict[str, type[ScheduleConfig]] = {
    "constant": ConstantConfig,
    "cosine": CosineConfig,
    "step": StepConfig,
    "exponential": ExponentialConfig,
    "one-cycle": OneCycleConfig,
}


def build(config: ScheduleConfig, lr: float, updates: int) -> Schedule:
    """Makes the function from update (counted from 0) to rate for a run of `updates` updates."""
    if isinstance(config, OneCycleConfig):
        return schedules.one_cycle(lr, updates, config.rise)
    rise = round(config.warmup * updates)
    rest = max(updates - rise, 1)
    match config:
        case CosineConfig():
            after = schedules.cosine(lr, rest, config.end * lr)
        case StepConfig():
            after = schedules.step(lr, config.every * rest, config.factor)
        case ExponentialConfig():
            after = schedules.exponential(lr, -math.log(config.end) / rest)
        case _:
            after = schedules.constant(lr)
    return schedules.warm_up(after, rise) if rise else after
