"""The SVG of curves: the line is where the values are, the axes are labelled and legible."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.report.line_chart import BOTTOM, LEFT, LINE, RIGHT, TOP, Panel, svg, ticks

SPACE = "{http://www.w3.org/2000/svg}"


def test_points_are_where_the_values_are():
    """The polyline's pixels, put back through the axes, are the values."""
    x, y = [0, 25, 50, 75, 99], [0.1, 0.4, 0.2, 0.0, 0.35]
    root = ElementTree.fromstring(svg([Panel("a < b", x, y)], "update", "rate & more", 100))
    line = root.find(f".//{SPACE}polyline")
    assert line is not None and line.get("fill") == "none" and line.get("stroke") == LINE
    width, height = 640 - LEFT - RIGHT, 360 - TOP - BOTTOM
    for point, wanted_x, wanted_y in zip(line.attrib["points"].split(), x, y, strict=True):
        left, down = map(float, point.split(","))
        assert (left - LEFT) / width * 100 == pytest.approx(wanted_x, abs=0.02)
        assert (TOP + height - down) / height * 0.4 == pytest.approx(wanted_y, abs=2e-4)
    words = [text.text for text in root.iter(f"{SPACE}text")]
    assert {"a < b", "update", "rate & more", "0.4", "100"} <= set(words)


def test_panels_stand_side_by_side():
    """Five panels in three columns: two rows, none outside the picture, none over another."""
    text = svg([Panel(str(k), [0, 1], [k, 1]) for k in range(5)], "x", "y", 2, columns=3, size=(300, 200))
    root = ElementTree.fromstring(text)
    assert (root.get("width"), root.get("height")) == ("900", "400")
    places = re.findall(r"translate\((\d+) (\d+)\)\"><path", text)
    assert places == [("0", "0"), ("300", "0"), ("600", "0"), ("0", "200"), ("300", "200")]


@given(high=st.floats(1e-9, 1e9), most=st.integers(2, 8))
def test_ticks_are_few_round_and_reach_the_highest(high, most):
    """From 0 to at or above the highest value, in steps of 1, 2 or 5 times a power of ten."""
    found = ticks(high, most)
    assert found[0] == 0 and 2 <= len(found) <= most + 1
    assert found[-1] >= high * (1 - 1e-9) > found[-2] * (1 - 1e-9)
    assert f"{found[1]:e}"[0] in "125" and float(f"{found[1]:.0e}") == found[1]
    assert found == pytest.approx([k * found[1] for k in range(len(found))])


def test_a_curve_of_zeros_is_drawn():
    """A rate of 0 throughout lies on the axis."""
    assert "nan" not in svg([Panel("zero", [0, 9], [0.0, 0.0])], "x", "y", 10)
