"""The split into parts, against what must hold for any number of rows, classes and shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stepwell.data.split import SplitConfig, split, split_by
from stepwell.errors import UserError

SHARES = st.floats(0.05, 0.5)
SEEDS = st.integers(0, 2**32)


@given(n=st.integers(8, 300), test=SHARES, validation=SHARES, seed=SEEDS)
def test_every_row_is_in_exactly_one_part(n, test, validation, seed):
    """The parts are sorted, disjoint, complete, int64, and as large as their shares say."""
    parts = split(n, None, test, validation, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    for part in parts:
        assert part.dtype == np.int64 and (np.diff(part) > 0).all() and len(part)
    assert abs(len(parts[2]) - n * test) <= 1
    assert abs(len(parts[1]) - (n - len(parts[2])) * validation) <= 1


@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=8), test=SHARES, validation=SHARES, seed=SEEDS
)
def test_classes_have_their_shares_within_one_row(counts, test, validation, seed):
    """Each class is within one row of its quota in each part, and in the training part at least once."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    assume(any(count > 4 for count in counts))
    train, valid, held = split(len(labels), labels, test, validation, seed)
    assert sorted(np.concatenate([train, valid, held]).tolist()) == list(range(len(labels)))
    for c, count in enumerate(counts):
        in_test, in_validation, in_train = ((labels[part] == c).sum() for part in (held, valid, train))
        assert in_train >= 1
        assert abs(in_test - count * test) < 1 or in_test == count - 1
        rest = count - in_test
        assert abs(in_validation - rest * validation) < 1 or in_validation == rest - 1


@given(seed=SEEDS)
def test_the_seed_alone_decides(seed):
    """The same seed gives the same parts, another seed others."""
    one, two = split(200, None, 0.2, 0.15, seed), split(200, None, 0.2, 0.15, seed)
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    assert not np.array_equal(one[2], split(200, None, 0.2, 0.15, seed + 1)[2])


def test_every_row_is_as_likely_in_the_test_part():
    """Over 2,000 seeds, each of 20 rows is tested in 25 % of them (binomial, five standard deviations)."""
    count = np.zeros(20)
    for seed in range(2000):
        count[split(20, np.arange(20) % 2, 0.25, 0.2, seed)[2]] += 1
    spread = np.sqrt(2000 * 0.25 * 0.75)
    assert (np.abs(count - 500) < 5 * spread).all()


def test_a_class_of_one_row_is_trained_on_and_texts_are_classes():
    labels = ["rare", *["a"] * 10, *["b"] * 10]
    assert all(0 in split(21, labels, 0.3, 0.3, seed)[0] for seed in range(30))


def test_no_share_no_part():
    """A share of 0 gives an empty part; too few rows are refused."""
    assert [len(part) for part in split(10, None, 0, 0.2, 0)] == [8, 2, 0]
    for n, labels in ((2, None), (1, None), (4, [0, 1, 2, 3])):
        with pytest.raises(UserError, match="too few"):
            split(n, labels, 0.2, 0.2, 0)


def test_own_parts_are_not_drawn():
    """The data's own parts get no rows; what is drawn is what `split` draws with their share as 0."""
    config = SplitConfig(name="x", split_seed=3)
    for own, test, validation in (((), 0.2, 0.15), (("train", "test"), 0, 0.15), (("validation",), 0.2, 0)):
        found = split_by(config, 40, None, own)
        for part, expected in zip(found, split(40, None, test, validation, 3), strict=True):
            np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize(
    ("options", "own", "said"),
    [
        ({"test": 0.3}, ("test",), r"data.test=0.3 has no effect: x has a test part of its own"),
        ({"validation": 0.3}, ("test", "validation"), "data.validation=0.3 .* a validation part of its own"),
        ({"split_seed": 3}, ("test", "validation"), "data.split_seed=3 has no effect: x has its own parts"),
        ({"split_seed": 3, "validation": 0}, ("test",), "with data.validation=0 no part is drawn at random"),
        ({"split_seed": 3, "validation": 0, "test": 0}, (), "with data.validation=0 and data.test=0 no part"),
    ],
)
def test_keys_without_effect_are_refused(options, own, said):
    """The share of a part that the data brings along, and the seed where nothing is drawn."""
    with pytest.raises(UserError, match=said + ".*; remove the key$"):
        split_by(SplitConfig(name="x", **options), 40, None, own)


def test_defaults_without_effect_are_let_be():
    """A saved recipe has every key, and can be trained again."""
    for config, own in (
        (SplitConfig(name="x"), ("test", "validation")),
        (SplitConfig(name="x", validation=0, test=0), ()),
    ):
        assert [len(part) for part in split_by(config, 40, None, own=own)] == [40, 0, 0]
