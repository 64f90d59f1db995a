"""The learning-rate range test: which rates do the losses of a rising rate call usable, and which to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepwell.errors import UserError

Array = NDArray[np.float64]

WIDTH = 0.12  # decades, the standard deviation of the smoothing kernel
BEGUN, DONE = 0.1, 0.9  # shares of the fall of the loss: at the lowest usable rate, and at the rate to take
NEAR = 0.02  # share of the fall: losses so near the lowest are as low
START = 20  # the first 1/20 of the updates is the level that the loss falls from
CERTAIN = 4.0  # standard errors: a lower fall is noise
NORMAL = 0.954  # the median of the distance of two normal numbers, in their standard deviation: 0.6745 √2
BLOW_UP, QUICK = 3.0, 0.8  # see `BlowUp`
LITTLE = 0.05  # share of the first loss: with less of a fall there is little to choose by


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    rates: (U,), rising. losses, smoothed: (K, U), a row a seed, NaN from where a loss blew up. picks, lows,
    highs: (K,), NaN for a seed in which the loss did not fall. rate: the one to take, None if there is none;
    low and high: the usable rates. notes: what to know of it, for the user.
    """

    rates: Array
    losses: Array
    smoothed: Array
    picks: Array
    lows: Array
    highs: Array
    rate: float | None
    low: float | None
    high: float | None
    notes: list[str] = field(default_factory=list)

    @property
    def spread(self) -> tuple[float, float] | None:
        """The lowest and the highest rate that a seed alone would pick."""
        picks = self.picks[np.isfinite(self.picks)]
        return (_short(picks.min()), _short(picks.max())) if self.rate is not None else None

    def as_json(self) -> dict[str, Any]:
        """All numbers, None where there is none."""
        return {
            "rate": self.rate,
            "low": self.low,
            "high": self.high,
            "spread": self.spread and list(self.spread),
            "picks": _listed(self.picks),
            "rates": self.rates.tolist(),
            "losses": [_listed(row) for row in self.losses],
            "smoothed": [_listed(row) for row in self.smoothed],
            "notes": self.notes,
        }


def rising(low: float, high: float, updates: int) -> list[float]:
    """The rates of the test, η_u = low · (high / low)^(u / (updates − 1)): as many in each decade.

    Raises UserError for a range that is none, or fewer than 10 updates.
    """
    for name, value in (("low", low), ("high", high)):
        if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
            raise UserError(f"{name}={value}: the range of rates needs finite numbers above 0")
    if low >= high:
        raise UserError(f"low={low:g} is not below high={high:g}: the rate is to rise from low to high")
    if updates < 10:
        raise UserError(f"updates={updates} are too few to see a loss fall: give 10 at least")
    return [low * (high / low) ** (u / (updates - 1)) for u in range(updates)]


class BlowUp:
    """Whether losses have blown up: m ← 0.8 m + 0.2 l, a quick mean, is above l1 + 3 (|l1| + l1 − min m).

    l1 is the first loss. For losses that are never below 0 that is between 4 l1 and 7 l1.
    """

    def __init__(self) -> None:
        self.first = self.mean = self.lowest = math.nan

    def seen(self, loss: float) -> bool:
        """Takes the next loss; returns whether it is the end."""
        if not math.isfinite(loss):
            return True
        if math.isnan(self.first):
            self.first = self.mean = self.lowest = loss
        self.mean = QUICK * self.mean + (1 - QUICK) * loss
        self.lowest = min(self.lowest, self.mean)
        return self.mean > self.first + BLOW_UP * (abs(self.first) + self.first - self.lowest)


def judge(rates: Sequence[float], losses: Array) -> RangeTest:
    """Finds the usable rates and the one to take.

    In each seed the losses are smoothed along x = log10 η by a Gaussian kernel of 0.12 decades, which
    looks ahead as far as back and so does not lag; losses above first + (first − lowest) count as that
    much, or the blow-up would reach back into the good rates. Then, with first the mean of the first
    twentieth, s the smoothed loss and F = first − min s the fall:

        pick  the first rate at which nine tenths of the fall are done, s ≤ first − 0.9 F
        low   the rate below it from which on a tenth of the fall is done, s ≤ first − 0.1 F
        high  the last rate with s ≤ min s + 0.02 F; above it the loss rises

    and of the seeds the median of each. A fall below four standard errors is noise, and then the seed
    has no rate; if that is so for half of the seeds, there is none.

    rates: (U,) rising. losses: (K, U), NaN from where they blew up. Rates are rounded to two digits: more
    are not known.

    Source: L. N. Smith, Cyclical learning rates for training neural networks, 2017, section 3.3, has the test
    and takes both ends of the range by eye. The rule is our own, by comparison (docs/find-lr.md).
    """
    all_rates = np.asarray(rates, dtype=np.float64)
    x = np.log10(all_rates)
    smoothed = np.full_like(losses, math.nan)
    found = np.full((3, len(losses)), math.nan)  # low, pick, high of each seed
    for k, row in enumerate(losses):
        count = int(np.isfinite(row).cumprod().sum())
        if count >= 3:
            smoothed[k, :count], found[:, k] = _of_seed(x[:count], row[:count])
    fell = np.isfinite(found[1])
    notes: list[str] = []
    if 2 * fell.sum() <= len(losses):
        return RangeTest(all_rates, losses, smoothed, *_order(found), None, None, None, notes)
    low, rate, high = (_short(10 ** np.median(row[fell])) for row in found)
    if not fell.all():
        notes.append(f"in {(~fell).sum()} of {len(fell)} seeds the loss did not fall at any rate")
    firsts = losses[fell, : max(len(all_rates) // START, 1)].mean(1)
    fall = float(np.median((firsts - np.nanmin(smoothed[fell], axis=1)) / np.abs(firsts)))
    if fall < LITTLE:
        notes.append(
            f"at no rate does the loss fall by more than {100 * fall:.1g} %, so the rate matters little: "
            "look at the model's initialization, the data and its targets"
        )
    if low <= _short(all_rates[min(len(all_rates) // START, len(all_rates) - 1)]):
        notes.append(f"the loss falls from the lowest rate on, {rates[0]:.2g}: usable ones may lie below it")
    if high >= _short(all_rates[-1 - len(all_rates) // START]):
        notes.append(
            f"the loss did not rise up to the highest rate, {rates[-1]:.2g}: usable ones may lie above it"
        )
    return RangeTest(all_rates, losses, smoothed, *_order(found), rate, low, high, notes)


def _of_seed(x: Array, losses: Array) -> tuple[Array, tuple[float, float, float]]:
    """The smoothed losses, and the logarithms of low, pick and high; NaN where the loss does not fall."""
    begun = max(3, len(losses) // START)
    first = losses[:begun].mean()
    lowest = min(losses.min(), first)
    bounded = np.minimum(losses, first + (first - lowest))
    kernel = np.exp(-0.5 * ((x[:, None] - x) / WIDTH) ** 2)  # (U, U)
    kernel /= kernel.sum(1, keepdims=True)
    smooth = kernel @ bounded
    end = int(smooth.argmin())
    fall = first - smooth[end]
    # The standard error of the difference of two means, with these weights and with equal ones.
    changes = np.abs(np.diff(losses[: max(end, 2 * begun) + 1]))
    noise = float(np.median(changes)) / NORMAL
    error = noise * math.sqrt((kernel[end] ** 2).sum() + 1 / begun)
    if end < begun or fall <= max(CERTAIN * error, 1e-6 * abs(first)):
        return smooth, (math.nan, math.nan, math.nan)
    pick = int((smooth <= first - DONE * fall).argmax())
    above = np.flatnonzero(smooth[:pick] > first - BEGUN * fall)
    low = int(above[-1]) + 1 if len(above) else 0
    high = len(x) - 1 - int((smooth <= smooth[end] + NEAR * fall)[::-1].argmax())
    return smooth, (x[low], x[pick], x[high])


def _order(found: Array) -> tuple[Array, Array, Array]:
    low, pick, high = 10**found
    return pick, low, high


def _short(rate: float) -> float:
    return float(f"{rate:.2g}")


def _listed(values: Array) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
