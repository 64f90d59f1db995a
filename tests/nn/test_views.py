"""Test-time views: the windows, their mirrors, and the mean of what the network says of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stepwell.nn.network import Network, Predictor
from stepwell.nn.views import Views, mean_outputs


def images(n=3, size=(3, 16, 24)):
    return torch.randint(0, 256, (n, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_flip_is_the_image_and_its_mirror():
    """Two views, of the pixels' own type."""
    x = images()
    found = list(Views("flip").of(x))
    assert len(found) == 2 and torch.equal(found[0], x) and torch.equal(found[1], x.flip(-1))


def test_windows_lie_in_the_corners_and_the_center():
    """Where the image's values are its places, a window's mean says where it lies: to float32's rounding."""
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    x = torch.stack([rows, columns])[None]
    found = list(Views("five-crop", 0.75).of(x))  # 12 × 18
    places = [(float(v[0, 0].mean()), float(v[0, 1].mean())) for v in found]
    top, bottom, left, right = 5.5, 9.5, 8.5, 14.5
    want = [(top, left), (top, right), (bottom, left), (bottom, right), (7.5, 11.5)]
    assert all(v.shape == x.shape for v in found)
    for place, truth in zip(places, want, strict=True):
        assert place == pytest.approx(truth, abs=1e-4)


def test_ten_crops_are_five_and_their_mirrors():
    """Each window is followed by its mirror."""
    x = images()
    five, ten = list(Views("five-crop").of(x)), list(Views("ten-crop").of(x))
    assert len(ten) == 10
    for k in range(5):
        assert torch.equal(ten[2 * k], five[k]) and torch.equal(ten[2 * k + 1], five[k].flip(-1))


@pytest.mark.parametrize("kind", ["flip", "five-crop", "ten-crop"])
@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label", "regression"])
def test_predictions_are_means_over_the_views(kind, task):
    """predict is the mean of decode(forward(view)), float64; Predictor gives the same."""
    torch.manual_seed(0)
    mean, std = torch.tensor([3.0, -1, 50]).double(), torch.tensor([2.0, 1, 30]).double()
    shift, scale = torch.full((3, 1, 1), 120.0).double(), torch.full((3, 1, 1), 0.01).double()
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 24, 3)).double()
    network = Network(body, "image", task, shift, scale, mean, std)
    single = network.predict(images())
    network.views = Views(kind)
    want = torch.stack(
        [network.decode(network(view.double())) for view in Views(kind).of(images().double())]
    ).mean(0)
    torch.testing.assert_close(network.predict(images().double()), want, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(single, want)
    assert torch.equal(Predictor(network)(images()), network.predict(images()))


def test_extreme_outputs_stay_finite():
    """Views that contradict each other with certainty: one half each, and finite logits."""
    sure = torch.tensor([[200.0, -200.0]])
    for task in ("multi-class", "multi-label"):
        z = mean_outputs([sure, -sure], task)
        assert bool(z.isfinite().all())
        p = z.softmax(-1) if task == "multi-class" else z.sigmoid()
        torch.testing.assert_close(p, torch.tensor([[0.5, 0.5]]))


@settings(max_examples=30, deadline=None)
@given(size=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)), share=st.floats(0.01, 0.99))
def test_any_shape(size, share):
    """One pixel, odd sides, a share that leaves less than a pixel: views of the full size, finite."""
    for kind in ("five-crop", "ten-crop"):
        for view in Views(kind, share).of(images(2, size)):
            assert view.shape == (2, *size) and bool(view.isfinite().all())
