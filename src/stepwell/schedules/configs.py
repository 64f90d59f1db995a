"""The recipe's `schedule` section: one class a schedule; lengths are shares of the run."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepwell import schedules
from stepwell.schedules import Plateau, Schedule


class ScheduleConfig(BaseModel):
    """What all of them have in common: `after` makes the schedule of a run's `steps` after its warm-up."""

    model_config = ConfigDict(extra="forbid")
    name: str

    def after(self, lr: float, steps: int) -> Schedule:
        """The function from step to rate, `lr` its highest value."""
        raise NotImplementedError

    def watching(self) -> Plateau | None:
        """What lowers the rate by the validation loss: the rate's factor, told of each evaluation."""
        return None

    def momentum(self, high: float, steps: int) -> Schedule | None:
        """The function from step to momentum, `high` the optimizer's own; None where it stays."""
        return None

    def cycle_ends(self, steps: int) -> list[float]:
        """The steps at which a cycle of the rate is complete; [] where it has none."""
        return []


def _warmup(default: float) -> float:
    text = "share of the run with a linear rise at its start"
    return Field(default, ge=0, lt=1, description=text)


def _end(default: float) -> float:
    return Field(default, ge=0, le=1, description="last rate, as a share of the highest")


class ConstantConfig(ScheduleConfig):
    """The same rate throughout."""

    name: Literal["constant"] = "constant"
    warmup: float = _warmup(0.0)

    def after(self, lr: float, steps: int) -> Schedule:
        return schedules.constant(lr)


class CosineConfig(ScheduleConfig):
    """Down along half a cosine."""

    name: Literal["cosine"] = "cosine"
    warmup: float = _warmup(0.05)
    end: float = _end(0.0)

    def after(self, lr: float, steps: int) -> Schedule:
        return schedules.cosine(lr, steps, self.end * lr)


class LinearConfig(ScheduleConfig):
    """Down along a line."""

    name: Literal["linear"] = "linear"
    warmup: float = _warmup(0.05)
    end: float = _end(0.0)

    def after(self, lr: float, steps: int) -> Schedule:
        return schedules.linear(lr, steps, self.end * lr)


class PolynomialConfig(ScheduleConfig):
    """Down along a power of the share that is left."""

    name: Literal["polynomial"] = "polynomial"
    warmup: float = _warmup(0.05)
    power: float = Field(2.0, gt=0, allow_inf_nan=False, description="1 is a line; higher falls earlier")
    end: float = _end(0.0)

    def after(self, lr: float, steps: int) -> Schedule:
        return schedules.polynomial(lr, steps, self.power, self.end * lr)


class StepConfig(ScheduleConfig):
    """Cuts at equal distances."""

    name: Literal["step"] = "step"
    warmup: float = _warmup(0.0)
    every: float = Field(1 / 3, gt=0, le=1, description="share of the run (after warm-up) between two cuts")
    factor: float = Field(0.1, gt=0, le=1, description="what each cut multiplies the rate with")

    def after(self, lr: float, steps: int) -> Schedule:
        return schedules.step(lr, self.every * steps, self.factor)


class ExponentialConfig(ScheduleConfig):
    """The same relative decay at every update."""

    name: Literal["exponential"] = "exponential"
    warmup: float = _warmup(0.0)
    end: float = Field(0.01, gt=0, le=1, description="rate at the end of the run, as a share of the highest")

    def after(self, lr: float, steps: int) -> Schedule:
        return schedules.exponential(lr, -math.log(self.end) / steps)


class InverseTimeConfig(ScheduleConfig):
    """Down with one over the time: fast at first, then ever more slowly."""

    name: Literal["inverse-time"] = "inverse-time"
    warmup: float = _warmup(0.0)
    end: float = Field(0.1, gt=0, le=1, description="rate at the end of the run, as a share of the highest")

    def after(self, lr: float, steps: int) -> Schedule:
        return schedules.inverse_time(lr, (1 / self.end - 1) / steps)


class RestartsConfig(ScheduleConfig):
    """Down along half a cosine again and again, in ever longer cycles."""

    name: Literal["restarts"] = "restarts"
    warmup: float = _warmup(0.0)
    cycles: int = Field(3, ge=1, le=100, description="how often the rate falls in the run")
    growth: float = Field(2.0, ge=1, le=10, description="length of a cycle, in lengths of the one before")
    end: float = _end(0.0)

    def after(self, lr: float, steps: int) -> Schedule:
        # The lengths first · growth^k of all cycles add up to the run.
        first = steps / math.fsum(self.growth**k for k in range(self.cycles))
        return schedules.restarts(lr, first, self.growth, self.end * lr)

    def cycle_ends(self, steps: int) -> list[float]:
        lengths = [self.growth**k for k in range(self.cycles)]
        return [steps * math.fsum(lengths[: k + 1]) / math.fsum(lengths) for k in range(self.cycles)]


class CyclicalConfig(ScheduleConfig):
    """Up and down in triangles."""

    name: Literal["cyclical"] = "cyclical"
    kind: Literal["triangular", "triangular2", "exp_range"] = Field(
        "triangular", description="triangles of one height, each half as high, or ever less high"
    )
    cycles: float = Field(4.0, gt=0, le=1e6, description="triangles in the run")
    low: float = Field(0.1, ge=0, le=1, description="lowest rate, as a share of the highest")
    height: float | None = Field(
        None, gt=0, le=1, description="exp_range: share of the height that is left at the end (default: 0.1)"
    )

    @model_validator(mode="after")
    def _height_has_an_effect(self) -> CyclicalConfig:
        if self.height is not None and self.kind != "exp_range":
            raise ValueError(f"height has no effect with kind={self.kind}: it is for exp_range; remove it")
        return self

    def after(self, lr: float, steps: int) -> Schedule:
        half = steps / self.cycles / 2
        decay = (self.height or 0.1) ** (1 / steps) if self.kind == "exp_range" else 1.0
        return schedules.cyclical(self.low * lr, lr, half, kind=self.kind, decay=decay)

    def cycle_ends(self, steps: int) -> list[float]:
        return [steps * k / self.cycles for k in range(1, math.floor(self.cycles) + 1)]


class OneCycleConfig(ScheduleConfig):
    """Up, and down to almost nothing."""

    name: Literal["one-cycle"] = "one-cycle"
    rise: float = Field(0.3, gt=0, lt=1, description="share of the run in which the rate rises")
    low_momentum: float | None = Field(
        None, gt=0, lt=1, description="momentum or β1 where the rate is highest (default: it stays as it is)"
    )

    def after(self, lr: float, steps: int) -> Schedule:
        return schedules.one_cycle(lr, steps, self.rise)

    def momentum(self, high: float, steps: int) -> Schedule | None:
        if self.low_momentum is None:
            return None
        return schedules.one_cycle_momentum(steps, self.rise, high, self.low_momentum)


class PlateauConfig(ScheduleConfig):
    """The same rate until the validation loss stops falling, then a cut."""

    name: Literal["plateau"] = "plateau"
    warmup: float = _warmup(0.0)
    factor: float = Field(0.1, ge=0, lt=1, description="what each cut multiplies the rate with")
    patience: int = Field(5, ge=0, description="evaluations in a row without a lower loss before a cut")
    threshold: float = Field(1e-4, ge=0, lt=1, description="least fall that counts, as a share of the loss")
    end: float = Field(1e-4, ge=0, le=1, description="lowest rate, as a share of the highest")

    def after(self, lr: float, steps: int) -> Schedule:
        return schedules.constant(lr)

    def watching(self) -> Plateau | None:
        return Plateau(
            1.0, factor=self.factor, patience=self.patience, threshold=self.threshold, min_lr=self.end, eps=0
        )


class WarmUpStableDecayConfig(ScheduleConfig):
    """One rate for most of the run, and a fall at its end."""

    name: Literal["warm-up-stable-decay"] = "warm-up-stable-decay"
    warmup: float = _warmup(0.05)
    decay: float = Field(0.2, gt=0, le=1, description="share of the run (after warm-up) that the fall takes")
    shape: Literal["linear", "cosine", "1-sqrt"] = Field("1-sqrt", description="shape of the fall")
    end: float = _end(0.0)

    def after(self, lr: float, steps: int) -> Schedule:
        fall = self.decay * steps
        return schedules.warm_up_stable_decay(lr, 0, steps - fall, fall, self.shape, self.end * lr)


class SWAConfig(ScheduleConfig):
    """Down along half a cosine, then linear falls again and again: for stochastic weight averaging."""

    name: Literal["swa"] = "swa"
    warmup: float = _warmup(0.05)
    start: float = Field(
        0.75, ge=0, lt=1, description="share of the run (after warm-up) before the cycles begin"
    )
    cycles: int = Field(5, ge=1, le=10**6, description="linear falls in the rest of the run")
    high: float = Field(0.5, gt=0, le=1, description="rate at a cycle's start, as a share of the highest")
    low: float = Field(0.05, ge=0, le=1, description="rate at a cycle's end, as a share of the highest")

    @model_validator(mode="after")
    def _falls(self) -> SWAConfig:
        if self.low > self.high:
            raise ValueError(f"low={self.low:g} is above high={self.high:g}: the cycles are to fall")
        return self

    def after(self, lr: float, steps: int) -> Schedule:
        before = self.start * steps
        falls = schedules.sawtooth(self.high * lr, (steps - before) / self.cycles, self.low * lr)
        if not before:
            return falls
        return schedules.join([schedules.cosine(lr, before, self.high * lr), falls], [before])

    def cycle_ends(self, steps: int) -> list[float]:
        before = self.start * steps
        return [before + (steps - before) * k / self.cycles for k in range(1, self.cycles + 1)]


SCHEDULES: dict[str, type[ScheduleConfig]] = {
    "constant": ConstantConfig,
    "step": StepConfig,
    "exponential": ExponentialConfig,
    "inverse-time": InverseTimeConfig,
    "polynomial": PolynomialConfig,
    "linear": LinearConfig,
    "cosine": CosineConfig,
    "restarts": RestartsConfig,
    "cyclical": CyclicalConfig,
    "one-cycle": OneCycleConfig,
    "warm-up-stable-decay": WarmUpStableDecayConfig,
    "plateau": PlateauConfig,
    "swa": SWAConfig,
}


def build(config: ScheduleConfig, lr: float, updates: int) -> Schedule:
    """Makes the function from update (counted from 0) to rate for a run of `updates` updates."""
    rise = _rise(config, updates)
    after = config.after(lr, max(updates - rise, 1))
    return schedules.warm_up(after, rise) if rise else after


def cycle_ends(config: ScheduleConfig, updates: int) -> list[float]:
    """The updates after which a cycle of the rate is complete, warm-up counted; [] without cycles."""
    rise = _rise(config, updates)
    return [rise + end for end in config.cycle_ends(max(updates - rise, 1))]


def _rise(config: ScheduleConfig, updates: int) -> int:
    return round(getattr(config, "warmup", 0.0) * updates)
