"""Color jitter is what colorsys and a loop over pixels give."""

import colorsys

import numpy as np
import pytest
import torch

from stepwell.data import counter
from stepwell.data.augment.draws import Draws, Stream
from stepwell.data.augment.jitter import jitter
from stepwell.data.augment.units import Units
from stepwell.errors import UserError

PIXELS = Units(low=0.0, high=255.0)


def images(n, channels=3, side=5):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, side, side), generator=generator, dtype=torch.uint8)


def drawn(n, stream, low, high):
    key = counter.key(counter.key(3), int(stream))
    return low + counter.uniform(key, torch.arange(n)).numpy() * (high - low)


def grey(pixel):
    return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2] if len(pixel) == 3 else pixel[0]


def blended(pixel, other, factor):
    return [min(max(factor * v + (1 - factor) * other, 0), 1) for v in pixel]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_pixel_is_colorsys(channels):
    """Brightness, contrast, saturation, hue in this order, one pixel at a time in float64: to 1e-3 of 255."""
    n, x = 20, images(20, channels)
    keys = {"hue": 0.3} if channels > 1 else {}
    out = jitter(x, Draws(counter.key(3), torch.arange(n)), PIXELS, strength=0.5, contrast=0.8, **keys)
    bright, contrast, saturation = (
        drawn(n, s, 1 - by, 1 + by)
        for s, by in ((Stream.BRIGHTNESS, 0.5), (Stream.CONTRAST, 0.8), (Stream.SATURATION, 0.5))
    )
    turn = drawn(n, Stream.HUE, -0.3, 0.3)
    for k in range(n):
        image = (x[k].double() / 255).permute(1, 2, 0).reshape(-1, channels).tolist()
        colors = [blended(pixel[:3], 0, bright[k]) for pixel in image]
        mean = float(np.mean([grey(pixel) for pixel in colors]))
        colors = [blended(pixel, mean, contrast[k]) for pixel in colors]
        if channels > 1:
            colors = [blended(pixel, grey(pixel), saturation[k]) for pixel in colors]
            colors = [_turned(pixel, turn[k]) for pixel in colors]
        want = [[*pixel, *before[3:]] for pixel, before in zip(colors, image, strict=True)]
        got = out[k].permute(1, 2, 0).reshape(-1, channels).numpy()
        np.testing.assert_allclose(got, 255 * np.array(want), atol=2e-2)  # hue: divided by small chroma


def _turned(pixel, turn):
    h, s, v = colorsys.rgb_to_hsv(*pixel)
    return colorsys.hsv_to_rgb((h + turn) % 1, s, v)


def test_images_of_other_ranges():
    """Floats from −1 to 1 are changed like the pixels that they stand for."""
    x, found = images(6), Draws(counter.key(3), torch.arange(6))
    keys = {"strength": 0.4, "hue": 0.1}
    pixels = jitter(x, found, PIXELS, **keys)
    floats = jitter(x.float() / 127.5 - 1, found, Units(low=-1.0, high=1.0), **keys)
    torch.testing.assert_close((floats + 1) * 127.5, pixels, rtol=0, atol=2e-3)


def test_a_turn_of_the_whole_circle_and_no_strength_change_nothing():
    """Strength 0 is each image itself, and grey colors have no hue to turn."""
    x, found = images(6), Draws(counter.key(3), torch.arange(6))
    assert torch.equal(jitter(x, found, PIXELS).round(), x.float())
    same = x[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(jitter(same, found, PIXELS, hue=0.5), same.float(), rtol=0, atol=1e-3)


def test_the_mean_is_the_same_in_a_batch_of_any_size():
    """Contrast needs a sum over the image, which two threads add up otherwise where the image is alone."""
    x, threads = images(12, side=200), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        whole = jitter(x, Draws(5, torch.arange(12)), PIXELS, contrast=0.9)
        alone = [jitter(x[k : k + 1], Draws(5, torch.tensor([k])), PIXELS, contrast=0.9) for k in range(12)]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.cat(alone), whole)


def test_an_unknown_range_is_refused():
    """Floats of a range that nobody said cannot be clamped to it."""
    with pytest.raises(UserError, match="values="):
        jitter(images(1).float(), Draws(1, torch.arange(1)), Units(), strength=0.5)
