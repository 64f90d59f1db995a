"""A range test as text and as a figure."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from stepwell.populations.range_test import RangeTest, judge, rising
from stepwell.report.lr_view import COLUMNS, lines, median, write_figure

RATES = rising(1e-6, 1.0, 121)  # twenty a decade


def found(*levels: float) -> RangeTest:
    """A seed a level: it falls from there to 0 between 10⁻⁴ and 10⁻², and blows up at 10^−0.5."""
    x = np.log10(RATES)
    fall = 1 + np.clip(-(x + 4) / 2, -1, 0)
    return judge(RATES, np.where(x < -0.49, np.outer(levels, fall), math.nan))


def test_the_marks_stand_below_their_rates():
    """Of 60 columns over six decades, "^" is in the pick's, "[" and "]" in those of the usable rates."""
    test = found(1.0, 2.0, 3.0)
    assert test.rate and test.low and test.high
    printed = lines(test, "adam, mlp on digits", blocks=True)
    marks = next(line for line in printed if "^" in line and "[" in line)[10:]
    for letter, rate in (("^", test.rate), ("[", test.low), ("]", test.high)):
        assert abs(marks.index(letter) - (math.log10(rate) + 6) / 6 * (COLUMNS - 1)) <= 0.5
    axis = printed[printed.index(next(line for line in printed if line.endswith("  1")))]
    assert axis.split() == ["1e-06", "1"] and len(axis) == 10 + COLUMNS
    assert any(f"optimizer.lr={test.rate:g}" in line for line in printed)


def test_the_median_ends_where_half_have_blown_up():
    """Of three seeds that end at different rates the line goes on as long as two are there."""
    test = found(1.0, 2.0, 3.0)
    test.smoothed[0, 40:], test.smoothed[1, 80:] = math.nan, math.nan
    line = median(test)
    assert np.isfinite(line[:80]).all() and np.isnan(line[80:]).all()
    assert (line[40:80] == test.smoothed[2, 40:80]).all()  # one above all, so the higher of the two


def test_the_figure_has_lines_and_marks_at_their_places(tmp_path: Path):
    """A thin line a seed and a thick one; the dashed mark and the shaded rates where the axis has them."""
    test = found(1.0, 2.0, 3.0)
    assert test.rate and test.low and test.high
    write_figure(tmp_path / "rates.svg", test, "adam on <table> & co")
    text = (tmp_path / "rates.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert len(re.findall("<polyline", text)) == 4 and "nan" not in text and "adam on <table>" not in text

    def across(rate: float) -> float:
        return 68 + (math.log10(rate) + 6) / 6 * (720 - 68 - 24)

    (band,) = (r for r in root.findall(".//{*}rect") if r.get("class") == "band")
    assert abs(float(band.get("x", 0)) - across(test.low)) < 0.1
    assert abs(float(band.get("x", 0)) + float(band.get("width", 0)) - across(test.high)) < 0.2
    assert f"M{across(test.rate):.1f} 64v" in text
    assert f"usable, {test.low:g} to {test.high:g}" in text


def test_a_test_without_a_rate_is_drawn_too(tmp_path: Path):
    """Of losses below 0 too, and of one seed; there is nothing to mark."""
    test = judge(RATES, np.full((1, 121), -3.0))
    write_figure(tmp_path / "none.svg", test, "sgd")
    text = (tmp_path / "none.svg").read_text(encoding="utf-8")
    assert "<rect" in text and 'class="band"' not in text and "−" in text
    assert not any("optimizer.lr" in line for line in lines(test, "sgd", blocks=False))
    write_figure(tmp_path / "nan.svg", judge(RATES, np.full((2, 121), math.nan)), "sgd")
