"""Flips and crops move whole pixels: every one lands where slow indexing puts it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stepwell.data import counter
from stepwell.data.augment.crop import crop
from stepwell.data.augment.draws import Draws
from stepwell.data.augment.flip import flip
from stepwell.data.augment.vertical_flip import vertical_flip

PAD = {"mirror": "reflect", "zero": "constant", "edge": "edge"}  # NumPy's words


def images(n=50, size=(3, 6, 9), dtype=torch.uint8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *size), generator=generator).to(dtype)


def draws(n, key=7):
    return Draws(counter.key(key), torch.arange(n))


@pytest.mark.parametrize("fill", PAD)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crop_is_a_window_of_the_padded_image(fill, dtype):
    """Each cropped image is one of the 25 windows that np.pad has, its type kept; all 25 come up alike."""
    x, found = images(1000, dtype=dtype), []
    out = crop(x, draws(1000), pad=2, fill=fill)
    assert out.dtype == dtype and out.shape == x.shape
    for image, got in zip(x.numpy(), out.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode=PAD[fill])  # type: ignore[call-overload]
        views = [(r, c) for r in range(5) for c in range(5) if (padded[:, r : r + 6, c : c + 9] == got).all()]
        assert len(views) == 1
        found.append(views[0])
    counts = np.unique(np.array(found), axis=0, return_counts=True)[1]
    assert len(counts) == 25 and stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("method", "axis"), [(flip, -1), (vertical_flip, -2)])
def test_flip_mirrors_the_stated_share(method, axis):
    """Of 4,000 images 30 % are mirrored, within four standard errors; the rest stay; the type stays."""
    x = images(4000)
    out = method(x, draws(4000), share=0.3)
    mirrored = (out == x.flip(axis)).flatten(1).all(1)
    assert out.dtype == torch.uint8
    assert bool((mirrored | (out == x).flatten(1).all(1)).all())
    assert abs(mirrored.double().mean() - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5


def test_flips_are_drawn_apart():
    """Whether an image is mirrored says nothing of whether it is turned upside down."""
    n = 4000
    x = torch.arange(4).view(1, 1, 2, 2).expand(n, -1, -1, -1)
    across = flip(x, draws(n), share=0.5)[:, 0, 0, 0] == 1
    down = vertical_flip(x, draws(n), share=0.5)[:, 0, 0, 0] == 2
    assert abs((across & down).double().mean() - 0.25) < 4 * (0.25 * 0.75 / n) ** 0.5


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7)),
    n=st.integers(1, 4),
    pad=st.integers(1, 9),
    fill=st.sampled_from(sorted(PAD)),
)
def test_crops_of_any_shape(size, n, pad, fill):
    """One pixel, odd sides, one sample, a padding larger than the image: what slow indexing gives."""
    x = images(n, size)
    found = draws(n)
    out = crop(x, found, pad=pad, fill=fill)
    _, height, width = size
    down, right = (
        (counter.uniform(counter.key(counter.key(7), s), found.sample) * (2 * pad + 1)).long() - pad
        for s in (2, 3)
    )
    for k in range(n):
        for i in range(height):
            for j in range(width):
                place = _place(i + int(down[k]), height, fill), _place(j + int(right[k]), width, fill)
                want = torch.zeros(size[0]) if None in place else x[k, :, place[0], place[1]]
                assert torch.equal(out[k, :, i, j], want.to(torch.uint8))


def _place(i, size, fill):
    """Where the pixel i of a padded row comes from: by going back and forth, a step at a time."""
    if fill == "zero":
        return i if 0 <= i < size else None
    if fill == "edge" or size == 1:
        return min(max(i, 0), size - 1)
    while not 0 <= i < size:
        i = -i if i < 0 else 2 * (size - 1) - i
    return i
