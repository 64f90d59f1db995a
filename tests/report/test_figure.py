"""What all figures share."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stepwell.report.figure import label, log_axis, rounded, thinned, updates_axis


@given(
    arrays(np.float64, st.integers(1, 9000), elements=st.floats(-1e9, 1e9), fill=st.just(0.0)),
    st.integers(4, 300),
)
def test_thinning_keeps_ends_and_extremes(values: np.ndarray, limit: int) -> None:
    """At most limit + 2 points, in order, with the first, the last, the lowest and the highest."""
    kept = thinned(values, limit)
    assert len(kept) <= max(limit, 2) + 2 and bool((np.diff(kept) > 0).all())
    assert kept[0] == 0 and kept[-1] == len(values) - 1
    assert values[kept].min() == values.min() and values[kept].max() == values.max()


def test_rounded_has_no_value_that_json_cannot_say() -> None:
    """NaN and infinities become null; others keep their significant digits."""
    assert rounded([math.nan, -math.inf, 1 / 3, 12345678.0], 3) == [None, None, 0.333, 12300000.0]


def test_label_is_shown_literally() -> None:
    """Plotly obeys some HTML in labels: it gets entities instead."""
    assert label('<b>x</b> & "y"') == '&lt;b&gt;x&lt;/b&gt; &amp; "y"'


def test_logarithmic_axes_are_offered_for_positive_values_only() -> None:
    """Zero and negative values have no logarithm; a wide span begins logarithmic."""
    assert log_axis(np.array([0.0, 1.0])) == {} == log_axis(np.array([]))
    assert log_axis(np.array([1.0, 2.0])) == {"log": False, "log_step": "D2"}
    assert log_axis(np.array([1e-4, 2.0])) == {"log": True, "log_step": 1}


def test_updates_are_whole_numbers() -> None:
    """Two updates get the ticks 0, 1 and 2; every axis ends a little past the last update."""
    assert updates_axis(2)["dtick"] == 1 and "dtick" not in updates_axis(3000)
    for end in (1, 2, 3000):
        assert 0 < updates_axis(end)["range"][1] / end - 1 < 0.05
