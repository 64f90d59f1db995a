"""What stands on the host stands on the device after `send`, and no more than needed travels."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepwell.engine.mirror import Mirror

CPU = torch.device("cpu")


@given(st.lists(st.dictionaries(st.integers(0, 19), st.integers(-(2**63), 2**63 - 1)), max_size=5))
def test_the_device_has_the_hosts_words(changes):
    """After any writes, also of the bits of numbers that are not finite."""
    mirror = Mirror(20, CPU)
    for written in changes:
        for place, value in written.items():
            mirror.here[place] = value
        mirror.send()
        assert mirror.there.tolist() == mirror.here.tolist()


def test_only_what_changed_is_sent():
    """Words before the first change and after the last keep what the device put there."""
    mirror = Mirror(8, CPU)
    mirror.there.fill_(-5)
    mirror.here[2], mirror.here[4] = 7, 9
    mirror.send()
    assert mirror.there.tolist() == [-5, -5, 7, 0, 9, -5, -5, -5]
    mirror.there.fill_(-5)
    mirror.send()
    assert mirror.there.tolist() == [-5] * 8


def test_numbers_share_the_words():
    """The table of float64 numbers is a view of the words, on both sides."""
    mirror = Mirror(7, CPU)
    here, there = mirror.floats(2, 3)
    here[:] = [[1.5, np.inf, -0.0], [np.nan, 1e-310, 2.0]]
    mirror.send()
    assert np.array_equal(there.numpy(), here, equal_nan=True)
    there[0, 1] = 3.0
    assert mirror.there.view(torch.float64)[1] == 3.0
