"""Scale, rotation, translation and resized crops: one interpolation, PIL's and a slow loop's values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from stepwell.data import counter
from stepwell.data.augment import affine
from stepwell.data.augment.draws import Draws
from stepwell.data.augment.resized_crop import resized_crop
from stepwell.data.augment.rotation import by, rotation
from stepwell.data.augment.scale import scale
from stepwell.data.augment.translation import translation


def images(n=4, size=(3, 9, 12), seed=0):
    return torch.randint(0, 256, (n, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def draws(n, key=7):
    return Draws(counter.key(key), torch.arange(n))


def slow(image, m, fill):
    """image (C, H, W) float64 fetched by m (2, 3) one pixel at a time; lists and loops."""
    _, height, width = image.shape
    out = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            x, y = j - (width - 1) / 2, i - (height - 1) / 2
            column = m[0][0] * x + m[0][1] * y + m[0][2] + (width - 1) / 2
            row = m[1][0] * x + m[1][1] * y + m[1][2] + (height - 1) / 2
            if fill == "zero" and not (-0.5 <= row <= height - 0.5 and -0.5 <= column <= width - 0.5):
                continue
            row, column = (_inside(p, n, fill) for p, n in ((row, height), (column, width)))
            up, left = math.floor(row), math.floor(column)
            for a, weight in ((up, 1 - row + up), (up + 1, row - up)):
                for b, share in ((left, 1 - column + left), (left + 1, column - left)):
                    out[:, i, j] += weight * share * image[:, min(a, height - 1), min(b, width - 1)]
    return out


def _inside(place, size, fill):
    if fill == "mirror" and size > 1:
        while not 0 <= place <= size - 1:
            place = -place if place < 0 else 2 * (size - 1) - place
    return min(max(place, 0), size - 1)


@pytest.mark.parametrize("fill", ["mirror", "zero", "edge"])
def test_warp_is_bilinear(fill):
    """All maps in one, against a slow loop in float64: to 1e-3 of 255, the error of places in float32."""
    x, found = images(), draws(4)
    maps = [
        resized_crop(found, (9, 12), low=0.3),
        scale(found, (9, 12), low=0.6),
        rotation(found, (9, 12), degrees=170),
        translation(found, (9, 12), share=0.4),
    ]
    whole = maps[0]
    for then in maps[1:]:
        whole = affine.compose(whole, then)
    out = affine.warp(x, whole, fill=fill)
    assert out.dtype == torch.float32
    for image, m, got in zip(x.double().numpy(), whole.tolist(), out, strict=True):
        np.testing.assert_allclose(got, slow(image, m, fill), atol=1e-3)


@pytest.mark.parametrize("angle", [-31.0, 12.5, 77.0, 180.0])
def test_rotation_is_pils(angle):
    """PIL's Image.rotate, bilinear with black corners, which cuts its values off to whole numbers."""
    x = images(1, (3, 15, 15))
    turned = Image.fromarray(x[0].permute(1, 2, 0).numpy()).rotate(angle, Image.Resampling.BILINEAR)
    out = affine.warp(x, by(torch.tensor([angle], dtype=torch.float64)), fill="zero")[0].permute(1, 2, 0)
    # A place on the very border may be inside for one and outside for the other.
    more = out - torch.from_numpy(np.array(turned)).float()
    assert ((more < -1e-3) | (more > 1 + 1e-3)).any(-1).sum() <= 1


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("side", [4, 7])
def test_right_angles_are_exact(turns, side):
    """Turned by 90, 180, 270 degrees about the center every pixel is another pixel, to the last bit."""
    x = images(2, (3, side, side))
    out = affine.warp(x, by(torch.full((2,), 90.0 * turns, dtype=torch.float64)), fill="zero")
    assert torch.equal(out, torch.rot90(x.float(), turns, (-2, -1)))


def test_a_map_after_another_is_their_product():
    """compose(A, B) fetches from A(B(out)): the product of the matrices with a row (0, 0, 1)."""
    found = draws(50)
    a, b = rotation(found, (5, 5), degrees=90), translation(found, (5, 5), share=0.5)
    whole = [torch.cat([m, torch.tensor([0.0, 0, 1]).double().expand(50, 1, 3)], 1) for m in (a, b)]
    torch.testing.assert_close(affine.compose(a, b), (whole[0] @ whole[1])[:, :2], rtol=1e-14, atol=1e-13)


def test_no_change_is_none():
    """A scale of 1, a turn of 0 and a shift of 0 leave every bit."""
    x = images()
    one = torch.ones(4, dtype=torch.float64)
    same = affine.matrix(one, 0 * one, 0 * one, 0 * one, one, 0 * one)
    for fill in ("mirror", "zero", "edge"):
        assert torch.equal(affine.warp(x, same, fill=fill), x.float())


def test_a_shift_goes_where_it_was_drawn():
    """A translation moves the image by what was drawn, to the right and down, not the other way."""
    n, x = 50, torch.zeros(50, 1, 21, 21)
    x[:, :, 10, 10] = 1
    out = affine.warp(x, translation(draws(n), (21, 21), share=0.3), fill="zero")
    places = torch.arange(21.0)
    for stream, axis in ((12, 3), (13, 2)):
        drawn = counter.uniform(counter.key(counter.key(7), stream), torch.arange(n)) * 2 - 1
        center = (out.sum(axis)[:, 0] * places).sum(1)
        torch.testing.assert_close(center - 10, (drawn * 0.3 * 21).float(), rtol=0, atol=1e-4)


def test_what_is_drawn_has_its_distribution():
    """Kolmogorov's test on 20,000 draws: angle, log factor, shifts in shares, area of the window."""
    found, size = draws(20_000), (24, 26)
    angle = rotation(found, size, degrees=40)
    turn = torch.rad2deg(torch.atan2(angle[:, 1, 0], angle[:, 0, 0]))
    factor = -scale(found, size, low=0.5)[:, 0, 0].log2()
    shift = translation(found, size, share=0.25)[:, :, 2] / torch.tensor([26.0, 24.0])
    window = resized_crop(found, size, low=0.1, high=0.6)
    area, ratio = window[:, 0, 0] * window[:, 1, 1], (window[:, 0, 0] * 26 / (window[:, 1, 1] * 24)).log()
    for values, low, high in (
        (turn, -40, 40),
        (factor, -1, 1),
        (shift[:, 0], -0.25, 0.25),
        (shift[:, 1], -0.25, 0.25),
        (area, 0.1, 0.6),
        (ratio, math.log(0.75), -math.log(0.75)),
    ):
        assert stats.kstest(((values - low) / (high - low)).numpy(), "uniform").pvalue > 1e-3
    assert (
        abs(torch.corrcoef(torch.stack([turn, factor, area, shift[:, 0], shift[:, 1]])).triu(1)).max() < 0.03
    )


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), low=st.floats(0.01, 1), aspect=st.floats(0.05, 1))
def test_windows_lie_in_the_image(height, width, low, aspect):
    """Whatever the shape: 200 windows of the wanted area, none of which leaves the image."""
    m = resized_crop(draws(200), (height, width), low=low, aspect=aspect)
    for side, axis in ((width, 0), (height, 1)):
        half, center = m[:, axis, axis] * side / 2, m[:, axis, 2]
        assert bool(((center.abs() + half) <= side / 2 + 1e-9).all())
    area = m[:, 0, 0] * m[:, 1, 1]
    assert bool((area >= low - 1e-9).all() and (area <= 1 + 1e-9).all())


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
    n=st.integers(1, 3),
    fill=st.sampled_from(["mirror", "zero", "edge"]),
)
def test_any_shape(size, n, fill):
    """One pixel, odd sides, one sample, one channel: finite, and within the image's own values or 0."""
    x = images(n, size)
    m = affine.compose(rotation(draws(n), size[1:], degrees=180), scale(draws(n), size[1:], low=0.2))
    out = affine.warp(x, m, fill=fill)
    assert out.shape == x.shape and bool(out.isfinite().all())
    assert out.max() <= x.max() + 1e-3 and (fill == "zero" or out.min() >= x.min() - 1e-3)
