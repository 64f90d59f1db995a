"""Numbers and names as people read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from stepwell.report.run_folder import number

NARROW = "\u202f"  # narrow no-break space, between a number and its unit


@dataclass(frozen=True)
class Metric:
    """How a metric is named and written. `percent`: values in 0..1 are shown as 0..100 %."""

    label: str
    percent: bool = False

    def text(self, value: float) -> str:
        return percent(value) if self.percent else significant(value)

    def together(self, *values: float) -> list[str]:
        """Values that are read beside each other, with as many decimals each."""
        if self.percent:
            decimals = max(map(_decimals, values))
            return [percent(value, decimals) for value in values]
        largest = max(map(abs, values))
        if not 1e-4 <= largest < 1e15:  # written with powers of ten
            return [significant(value) for value in values]
        decimals = max(0, 3 - math.floor(math.log10(largest)))  # four digits for the largest
        return [f"{value:,.{decimals}f}".replace("-", "−") for value in values]

    def written(self, result: Estimate) -> tuple[str, str]:
        """A result and its interval, "" where none is known: ("98.05 %", "96.03 % to 99.05 %")."""
        if result.low is None or result.high is None:
            return self.text(result.value), ""
        value, low, high = self.together(result.value, result.low, result.high)
        return value, f"{low} to {high}"

    @property
    def axis(self) -> str:
        return f"{self.label} (%)" if self.percent else self.label

    @property
    def tick_format(self) -> str:
        return "~%" if self.percent else ""

    @property
    def hover_format(self) -> str:
        return ".2%" if self.percent else ".4~g"


METRICS = {
    "loss": Metric("loss"),
    "accuracy": Metric("accuracy", True),
    "balanced_accuracy": Metric("balanced accuracy", True),
    "top_5_accuracy": Metric("top-5 accuracy", True),
    "subset_accuracy": Metric("exact matches", True),
    "f1": Metric("F1", True),
    "micro_f1": Metric("micro F1", True),
    "macro_f1": Metric("macro F1", True),
    "precision": Metric("precision", True),
    "recall": Metric("recall", True),
    "ece": Metric("calibration error", True),
    "hamming_loss": Metric("wrong labels", True),
    "roc_auc": Metric("area under ROC"),
    "average_precision": Metric("average precision"),
    "mean_average_precision": Metric("mean average precision"),
    "rmse": Metric("RMSE"),
    "mae": Metric("mean absolute error"),
    "median_absolute_error": Metric("median absolute error"),
    "r2": Metric("R²"),
    "bits_per_character": Metric("bits per character"),
    "perplexity": Metric("perplexity"),
}
IN_TARGET_UNITS = {"rmse", "mae", "median_absolute_error"}

# What the headline shows and the second panel draws, most telling first.
PREFERRED = {
    "regression": ["rmse", "r2", "mae"],
    "multi-label": ["micro_f1", "f1", "subset_accuracy", "macro_f1"],
    "text": ["bits_per_character", "accuracy", "perplexity"],
}


def metric(key: str) -> Metric:
    """How a metric is written; one without an entry goes by its own name."""
    return METRICS.get(key) or Metric(key.replace("_", " "))


def in_order(task: str, keys: list[str]) -> list[str]:
    """Returns the metrics but the loss and those of single targets ("rmse/NAME"), the most telling first."""
    preferred = PREFERRED.get(task, ["accuracy", "balanced_accuracy", "macro_f1"])
    rank = {key: place for place, key in enumerate(preferred)}
    own = [key for key in keys if key != "loss" and "/" not in key]
    return sorted(own, key=lambda key: rank.get(key, len(rank)))


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, where one is known."""

    value: float
    low: float | None = None
    high: float | None = None


def estimate(entry: Any) -> Estimate | None:
    """Reads {"value", "low", "high"} or a bare number; None where there is no finite value."""
    if not isinstance(entry, dict):
        value = number(entry)
        return None if value is None else Estimate(value)
    value, low, high = (number(entry.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return None
    return Estimate(value, low, high) if low is not None and high is not None else Estimate(value)


def significant(value: float, digits: int = 4) -> str:
    """0.02134567 → 0.02135, 1234567 → 1,234,567, 3.2e-07 → 3.2 × 10⁻⁷."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 15:
        decimals = max(0, digits - 1 - size)
        text = f"{value:,.{decimals}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')} × {power_of_ten(int(exponent))}"
    return text.replace("-", "−") if text.startswith("-") else text


def power_of_ten(exponent: int) -> str:
    """−3 → 10⁻³."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def percent(share: float, decimals: int | None = None) -> str:
    """0.98123 → 98.1 %; two decimals from 99 % on, where they are what differs."""
    return f"{share * 100:.{_decimals(share) if decimals is None else decimals}f}{NARROW}%".replace("-", "−")


def _decimals(share: float) -> int:
    return 2 if 0.99 <= share < 1 or 0 < share < 0.01 else 1


def duration(seconds: float) -> str:
    """75.2 → 1 min 15 s."""
    if seconds < 10:
        return f"{seconds:.1f}{NARROW}s"
    total = round(seconds)
    if total < 60:
        return f"{total}{NARROW}s"
    if total < 3600:
        return f"{total // 60}{NARROW}min {total % 60}{NARROW}s"
    return f"{total // 3600}{NARROW}h {total % 3600 // 60}{NARROW}min"


def counted(n: float, noun: str) -> str:
    """counted(2, "sample") → 2 samples."""
    return f"{n:,.0f} {noun}{'' if n == 1 else 's'}"


def elide_middle(name: str, length: int = 32) -> str:
    """Shortens to `length` characters; both ends stay, since layer names differ there."""
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}…{name[-tail:]}"


def plain(value: Any) -> str:
    """A value of a recipe, a table row or a prediction in words; not yet HTML-escaped."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return significant(value)
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    return str(value)
