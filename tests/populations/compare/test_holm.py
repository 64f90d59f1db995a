"""Holm's correction."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.populations.compare.holm import holm


def closed_test(p: list[float]) -> list[float]:
    """The closure of Bonferroni's test: a hypothesis falls with every set of hypotheses that it is in."""
    sets = [s for size in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), size)]
    return [max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(len(p))]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_it_is_the_closure_of_bonferroni(p: list[float]):
    """Holm (1979) is the shortcut of the closed test, which is looked up here in all 2ᵐ − 1 sets."""
    assert holm(p) == pytest.approx(closed_test(p))


def test_what_was_not_tested_does_not_count():
    """None stays None, and the others are corrected as if it were not there."""
    assert holm([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert holm([]) == [] and holm([None]) == [None]
