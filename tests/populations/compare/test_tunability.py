"""How wide a range of rates is good."""

from __future__ import annotations

import pytest

from stepwell.populations.compare.tunability import tunability

RATES = [1e-3, 1e-2, 1e-1, 1.0, 10.0]


def test_of_a_share_it_is_a_percentage_point():
    """0.97 and 0.975 are within 0.01 of 0.98; 0.9699 is not. One decade between neighbours."""
    found = tunability(RATES, [0.5, 0.97, 0.98, 0.975, 0.9699], higher=True, share=True)
    assert found == {"low": 1e-2, "high": 1.0, "decades": pytest.approx(2.0)}


def test_of_other_metrics_it_is_a_hundredth_of_the_best():
    """50.5 is within 1 % of 50, 50.6 is not."""
    found = tunability(RATES, [50.6, 50.5, 50.0, 50.6, 50.1], higher=False, share=False)
    assert found == {"low": 1e-2, "high": 1e-1, "decades": pytest.approx(1.0)}


def test_a_gap_or_a_failed_run_ends_it():
    """Good values beyond a bad or failed one do not count."""
    found = tunability(RATES, [0.98, None, 0.98, 0.5, 0.98], higher=True, share=True)
    assert found is not None and found["decades"] == 0
    assert tunability(RATES, [None] * 5, higher=True, share=True) is None


def test_values_of_0_have_no_decades():
    """A range that begins at 0 is given by its ends alone."""
    found = tunability([0.0, 0.5], [0.9, 0.9], higher=True, share=True)
    assert found == {"low": 0.0, "high": 0.5, "decades": None}
