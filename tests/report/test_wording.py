"""Numbers as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.report.wording import Estimate, duration, elide_middle, estimate, metric, percent, significant


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.02134567, "0.02135"),
        (1234567.0, "1,234,567"),
        (3.2e-7, "3.2 × 10⁻⁷"),
        (-2.0, "−2"),
        (0.0, "0"),
        (9.99996, "10"),
        (0.001, "0.001"),
    ],
)
def test_significant(value: float, text: str) -> None:
    """Four digits, groups of thousands, powers of ten only where zeros would be counted."""
    assert significant(value) == text


def test_percent_and_duration() -> None:
    """Decimals appear where they differ."""
    shares = [percent(share).replace("\u202f", " ") for share in (0.98123, 0.9987, 1.0, 0.004)]
    assert shares == ["98.1 %", "99.87 %", "100.0 %", "0.40 %"]
    times = [duration(seconds).replace("\u202f", " ") for seconds in (1.25, 59.6, 75.2, 7380)]
    assert times == ["1.2 s", "1 min 0 s", "1 min 15 s", "2 h 3 min"]


@given(st.text(max_size=90), st.integers(5, 40))
def test_elided_names_keep_both_ends(name: str, length: int) -> None:
    """Never longer than asked; the first and last character stay."""
    short = elide_middle(name, length)
    assert len(short) <= max(length, 0) or short == name
    assert short[:1] == name[:1] and short[-1:] == name[-1:]


def test_estimate_without_interval_or_value() -> None:
    """An undefined metric is none; one limit alone is no interval."""
    assert estimate({"value": None}) is None and estimate(float("nan")) is None
    assert estimate({"value": 1.0, "low": 0.5}) == estimate(1.0)


@pytest.mark.parametrize(
    ("key", "result", "value", "limits"),
    [
        ("accuracy", (0.9805, 0.9603, 0.9905), "98.05 %", "96.03 % to 99.05 %"),
        ("accuracy", (0.85, 0.8, 0.9), "85.0 %", "80.0 % to 90.0 %"),
        ("rmse", (95.7919, 85.298, 107.371), "95.8", "85.3 to 107.4"),
        ("loss", (1.0021, 0.0, 2.4087), "1.002", "0.000 to 2.409"),
        ("r2", (0.8, -0.05, 0.9), "0.8000", "−0.0500 to 0.9000"),
        ("rmse", (20512.3, 19871.0, 21000.0), "20,512", "19,871 to 21,000"),
        ("loss", (3.2e-7, 1e-7, 5e-7), "3.2 × 10⁻⁷", "1 × 10⁻⁷ to 5 × 10⁻⁷"),
        ("loss", (0.0, 0.0, 0.0), "0", "0 to 0"),
    ],
)
def test_a_value_and_its_limits_have_as_many_decimals(
    key: str, result: tuple[float, float, float], value: str, limits: str
) -> None:
    """The three are read beside each other."""
    value_written, limits_written = metric(key).written(Estimate(*result))
    assert (value_written.replace("\u202f", " "), limits_written.replace("\u202f", " ")) == (value, limits)


def test_a_value_without_interval_is_written_alone() -> None:
    """No limits, no empty words."""
    assert metric("rmse").written(Estimate(52.0614)) == ("52.06", "")
