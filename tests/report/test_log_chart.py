"""Sizes by layer as an SVG: places by the logarithm, zeros marked, names that fit."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

from stepwell.report.log_chart import HEIGHT, TOP, Panel, Point, svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(points, title="title", below="below"):
    """The parsed figure of one panel."""
    return ElementTree.fromstring(svg([Panel("size", points)], title, below))


def test_equal_factors_are_equal_steps():
    """1, 0.1, 0.01, 0.001: straight down to the end of the axis, through the strong points only."""
    points = [Point(f"l{k}", 10.0**-k, True) for k in range(4)]
    points.insert(1, Point("other", 0.5, False))
    line = drawn(points).find(f".//{SVG}polyline")
    assert line is not None
    places = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert len(places) == 4
    heights = [y for _, y in places]
    assert all(math.isclose(b - a, (HEIGHT - 12) / 3, abs_tol=0.11) for a, b in pairwise(heights))
    assert heights[-1] == TOP + HEIGHT


def test_zeros_are_crosses_and_unknown_ones_are_left_out():
    """A layer at exactly 0 has no place on a logarithmic axis; all zeros are a figure too."""
    points = [
        Point("a", 1.0, True),
        Point("b", 0.0, True),
        Point("c", None, False),
        Point("d", math.nan, False),
    ]
    for given, crosses in ((points, 2), ([Point("a", 0.0, True)] * 3, 4), ([], 1)):  # one of them in the key
        text = svg([Panel("size", given)], "t", "b")
        assert text.count("l7 7m0 -7l-7 7") == crosses
        assert "nan" not in text and "inf" not in text
        ElementTree.fromstring(text)


def test_text_is_escaped_and_long_names_are_elided():
    """A name of 300 letters, one with a tag in it, and a sentence that is folded; 900 layers fit."""
    root = drawn([Point("<b>" + "x" * 300, 1.0, True)], "<i>", "word " * 100)
    words = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert max(map(len, words)) < 140 and "<i>" in words
    many = svg([Panel("size", [Point(f"layer{k}", 1.0, True) for k in range(900)])], "t", "b")
    width = int(re.search(r'width="(\d+)"', many)[1])  # type: ignore[index]
    assert width < 14 * 901 + 200
