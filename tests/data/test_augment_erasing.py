"""Erasing wipes out one rectangle of the wanted area, shape and value; noise has its deviation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stepwell.data import counter
from stepwell.data.augment.draws import Draws
from stepwell.data.augment.erasing import erasing
from stepwell.data.augment.noise import noise
from stepwell.data.augment.units import Units


def draws(n, key=7):
    return Draws(counter.key(key), torch.arange(n))


def boxes(gone):
    """Sides and places (N,) of the rectangles in (N, H, W), each of which must be filled to its corners."""
    rows, columns = gone.any(2), gone.any(1)
    h, w = rows.sum(1), columns.sum(1)
    top, left = rows.int().argmax(1), columns.int().argmax(1)
    assert bool((gone.sum((1, 2)) == h * w).all()) and bool((h > 0).all())
    for line, first, count in ((rows, top, h), (columns, left, w)):
        place = torch.arange(line.shape[1])
        assert torch.equal(line, (place >= first[:, None]) & (place < (first + count)[:, None]))
    return [values.double() for values in (h, w, top, left)]


def test_area_shape_and_place_have_their_distributions():
    """20,000 rectangles in 60 × 80: area uniform, log ratio uniform, place uniform, within rounding."""
    x = torch.ones(20_000, 1, 60, 80, dtype=torch.uint8)
    out = erasing(x, draws(20_000), Units(), share=1.0, low=0.1, high=0.4, aspect=0.5, value="zero")
    assert out.dtype == torch.uint8
    h, w, top, left = boxes(out[:, 0] == 0)
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(
        20_000, generator=generator, dtype=torch.float64
    )  # whole places, spread over their pixel
    for values, low, high in (
        (h * w / 4800, 0.1, 0.4),
        ((w / h).log2(), -1, 1),
        ((top + spread) / (61 - h), 0, 1),
        ((left + spread) / (81 - w), 0, 1),
    ):
        assert stats.kstest(((values - low) / (high - low)).numpy(), "uniform").pvalue > 1e-3


def test_the_stated_share_is_erased_and_the_rest_kept():
    """Of 4,000 images 25 % have lost a rectangle, within four standard errors."""
    x = torch.ones(4000, 1, 6, 6)
    out = erasing(x, draws(4000), Units(), share=0.25, value="zero")
    changed = (out != x).flatten(1).any(1).double().mean()
    assert abs(changed - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_what_is_put_there():
    """mean: the training part's, of each channel; noise: normal with its mean and deviation."""
    mean, sd = torch.tensor([10.0, -40.0]).view(2, 1, 1), torch.tensor([1.0, 5.0]).view(2, 1, 1)
    x = torch.full((500, 2, 8, 8), 1e6)
    keys = {"share": 1.0, "low": 0.5, "high": 0.9}
    flat = erasing(x, draws(500), Units(mean, sd), **keys, value="mean")
    noisy = erasing(x, draws(500), Units(mean, sd), **keys, value="noise")
    for channel in (0, 1):
        gone = flat[:, channel] != 1e6
        assert torch.equal(gone, noisy[:, channel] != 1e6)
        assert bool((flat[:, channel][gone] == mean[channel].item()).all())
        values = (noisy[:, channel][gone] - mean[channel]) / sd[channel]
        assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-3


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    low=st.floats(0.001, 1),
    aspect=st.floats(0.01, 1),
)
def test_any_rectangle_fits(size, low, aspect):
    """One pixel, a line, the whole image, any shape: a filled rectangle inside, of at least a pixel."""
    x = torch.ones(20, 1, *size, dtype=torch.uint8)
    out = erasing(x, draws(20), Units(), share=1.0, low=low, high=1.0, aspect=aspect, value="zero")
    boxes(out[:, 0] == 0)


@pytest.mark.parametrize("shape", [(2,), (3, 2)])
def test_noise_is_in_units_of_the_inputs_deviation(shape):
    """Features of deviations 1 and 100 get noise of 0.2 and 20, normal, each number another."""
    n = 20_000
    out = noise(torch.zeros(n, *shape), draws(n), Units(0.0, torch.tensor([1.0, 100.0])), sd=0.2)
    values = (out / torch.tensor([0.2, 20.0])).view(n, -1)
    for column in values.T:
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-3
    assert (torch.corrcoef(values.T).triu(1)).abs().max() < 4 / n**0.5
