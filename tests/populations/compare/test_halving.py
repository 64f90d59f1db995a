"""Successive halving."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import UserError
from stepwell.populations.compare.halving import Halving, rungs


@pytest.mark.parametrize(
    ("updates", "every", "expected"),
    [(800, 1, [100, 200, 400]), (1000, 100, [200, 300, 500]), (40, 20, [20]), (3, 1, [1, 2])],
)
def test_rungs_are_evaluations(updates: int, every: int, expected: list[int]):
    """At 1/8, 1/4 and 1/2, or at the next evaluation behind that, and before the end."""
    assert rungs(updates, every) == expected


def test_a_single_evaluation_is_no_rung():
    """With one evaluation at the end nothing can be given up."""
    with pytest.raises(UserError, match="evaluate_every"):
        rungs(20, 20)


@given(st.data())
def test_the_better_half_of_each_entry_goes_on_whole(data: st.DataObject):
    """Of n values ⌈n/2⌉ go on with all seeds that are there, and none that is given up has a lower mean."""
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    seeds, number = 2, iter(range(99))
    entries = [[[next(number) for _ in range(seeds)] for _ in range(size)] for size in sizes]
    losses = {n: data.draw(st.floats(0, 9)) for entry in entries for members in entry for n in members}
    going = Halving(entries)(10, losses)
    for entry in entries:
        means = [sum(losses[n] for n in members) / seeds for members in entry]
        on = [k for k, members in enumerate(entry) if set(members) <= going]
        assert len(on) == math.ceil(len(entry) / 2)
        assert going & {n for members in entry for n in members} == {n for k in on for n in entry[k]}
        assert max(means[k] for k in on) <= min([means[k] for k in range(len(entry)) if k not in on] or [9])


def test_a_value_whose_runs_fail_is_worse_than_any_other():
    """Member 1 has diverged and is not asked about; its partner's loss is low, and does not save them."""
    keep = Halving([[[0, 1], [2, 3]]])
    assert keep(10, {0: 0.1, 2: 5.0, 3: 5.0}) == {2, 3}
    assert keep(10, {0: 0.1, 1: math.nan, 2: 5.0, 3: 5.0}) == {2, 3}


def test_values_that_are_gone_do_not_count():
    """Two of four were given up before: of the other two one goes on, and the last one always does."""
    keep = Halving([[[0], [1], [2], [3]]])
    assert keep(20, {1: 2.0, 3: 1.0}) == {3}
    assert keep(40, {3: math.nan}) == {3}
