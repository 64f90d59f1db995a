"""Augmentation is what slow obvious code gives, and the same for a sample in any batch."""

import numpy as np
import pytest
import torch

from stepwell.data import counter
from stepwell.data.augment import augment

NONE = {"flip": 0.0, "crop": 0, "noise": 0.0, "sd": None}


def images(n=50, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 6, 9), generator=generator).to(dtype)


@pytest.mark.parametrize(
    "kind", [{"flip": 0.5}, {"crop": 2}, {"noise": 0.3}, {"flip": 0.5, "crop": 3, "noise": 0.1}]
)
def test_a_sample_is_changed_alike_in_every_batch(kind):
    """Sample 17 gets the same change alone, in a batch, and in another order; in another epoch another."""
    x, index = images(dtype=torch.float32), torch.arange(50)
    whole = augment(x, index, 7, **{**NONE, **kind})
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    assert torch.equal(augment(x[order], order, 7, **{**NONE, **kind}), whole[order])
    assert torch.equal(augment(x[17:18], index[17:18], 7, **{**NONE, **kind}), whole[17:18])
    assert not torch.equal(augment(x, index, 8, **{**NONE, **kind}), whole)


def test_crop_is_a_window_of_the_mirrored_padding():
    """Each cropped image is one of the windows that np.pad's reflection has, at shifts of every size."""
    x, found = images(200), set()
    for image, out in zip(
        x.numpy(), augment(x, torch.arange(200), 3, **{**NONE, "crop": 2}).numpy(), strict=True
    ):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="reflect")
        windows = [
            (r, c) for r in range(5) for c in range(5) if (padded[:, r : r + 6, c : c + 9] == out).all()
        ]
        assert len(windows) == 1
        found.add(windows[0])
    assert len(found) == 25


def test_flip_mirrors_the_stated_share():
    """Of 4,000 images 30 % are mirrored left to right, within four standard errors; the rest stay."""
    x = images(4000)
    out = augment(x, torch.arange(4000), counter.key(5), **{**NONE, "flip": 0.3})
    mirrored = (out == x.flip(-1)).flatten(1).all(1)
    assert bool((mirrored | (out == x).flatten(1).all(1)).all())
    assert abs(mirrored.double().mean() - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5


def test_noise_is_in_units_of_the_inputs_deviation():
    """Features of deviations 1 and 100 get noise of 0.2 and 20."""
    x = torch.zeros(20_000, 2)
    out = augment(x, torch.arange(20_000), 1, **{**NONE, "noise": 0.2, "sd": torch.tensor([1.0, 100.0])})
    assert out.std(0).tolist() == pytest.approx([0.2, 20.0], rel=0.02)
    assert out.mean(0).abs().max() < 1
