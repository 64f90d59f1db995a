"""The shares of averages: torch's AveragedModel, and means written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

import stepwell.optim as ours
from stepwell import schedules
from stepwell.errors import UserError


@given(
    start=st.integers(0, 20), every=st.one_of(st.integers(1, 9), st.floats(1, 9)), steps=st.integers(1, 80)
)
def test_the_average_is_the_mean_of_its_points(start, every, steps):
    """Folded with the shares, numbers give the mean of those at start, start + every, …; before, the last."""
    share, a = schedules.average(start, every), 0.0
    first = max(start, 1)
    places = {first + round(k * every) for k in range(200)}
    values = [0.1 * t * t for t in range(1, steps + 1)]  # of update t
    for t, w in enumerate(values, 1):
        a = share(t - 1) * a + (1 - share(t - 1)) * w
        points = [values[p - 1] for p in sorted(places) if p <= t]
        assert a == pytest.approx(sum(points) / len(points) if points else w, rel=1e-9)


@pytest.mark.parametrize("engine", ["eager", "fused"])
@pytest.mark.parametrize(("start", "every"), [(1, 1), (40, 1), (25, 7)])
def test_in_the_optimizers_pass_it_is_torchs(engine, start, every):
    """Over 100 updates in float64: AveragedModel, updated by hand at the points."""
    torch.manual_seed(0)
    net = nn.Linear(5, 3).double()
    x, y = torch.randn(40, 5).double(), torch.randn(40, 3).double()
    averaged = AveragedModel(net)
    optimizer = ours.Adam(net.parameters(), lr=0.01, ema=schedules.average(start, every), engine=engine)
    for update in range(1, 101):
        optimizer.zero_grad()
        (net(x) - y).square().mean().backward()
        optimizer.step()
        if update >= start and (update - start) % every == 0:
            averaged.update_parameters(net)
    with optimizer.averaged():
        for p, q in zip(net.parameters(), averaged.module.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)


def test_an_average_that_never_moves_is_refused():
    """A constant share of 1 is a mistake; a schedule may have it between two points."""
    p = [nn.Parameter(torch.ones(2))]
    with pytest.raises(UserError, match="ema=1 never moves"):
        ours.SGD(p, lr=0.1, ema=1.0)
    with pytest.raises(UserError, match="every"):
        schedules.average(0, 0.5)


def test_the_sawtooth_falls_along_lines():
    """Closed form: from η0 at a cycle's start, by the same step each time, anew before the end is reached."""
    rate = schedules.sawtooth(1.0, 4, 0.2)
    assert [rate(k) for k in range(9)] == pytest.approx([1, 0.8, 0.6, 0.4, 1, 0.8, 0.6, 0.4, 1])
