"""Random numbers of members: those that each would draw alone, whatever is drawn at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepwell.populations import noise as module
from stepwell.populations.noise import Noise, Supply


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(20, 400), st.data())
def test_it_draws_what_each_would_alone(counts, at_once, data):
    """For any sizes, any amount drawn ahead, a save at any point, and members that leave."""
    before, module.AT_ONCE = module.AT_ONCE, at_once
    try:
        noise, alone = Noise([3, 4, 5], torch.device("cpu")), [_generator(seed) for seed in (3, 4, 5)]
        rows = [0, 1, 2]
        for count in counts:
            if data.draw(st.booleans()):
                state = {name: value.clone() for name, value in noise.state().items()}
                noise = Noise([0] * len(rows), torch.device("cpu"))
                noise.load(state)
            if len(rows) > 1 and data.draw(st.integers(0, 5)) == 0:
                rows = rows[1:]
                noise.keep(list(range(1, len(rows) + 1)))
            wanted = [torch.rand(count, generator=g) for g in alone]
            assert torch.equal(noise.take(count), torch.stack([wanted[row] for row in rows]))
    finally:
        module.AT_ONCE = before


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def test_layers_get_them_in_their_order():
    """One after the other, in the shapes that they ask for; and none of shape ()."""
    supply = Supply(torch.arange(10.0))
    assert supply((2, 3), torch.device("cpu")).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert supply((), torch.device("cpu")).item() == 6
    with pytest.raises(RuntimeError):
        supply((4,), torch.device("cpu"))
