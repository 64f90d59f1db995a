"""Residual network."""

import pytest
import torch
import torch.nn.functional as F

from stepwell.errors import UserError
from stepwell.nn.configs import ResNetModel
from stepwell.nn.resnet import ResNet, build


def count(depth: int, width: int = 16) -> int:
    """Closed form: 3×3 convolutions, two numbers per normalized channel, linear; none in shortcuts."""
    n, total = (depth - 2) // 6, 9 * 3 * width + 2 * width
    channels_in = width
    for channels in (width, 2 * width, 4 * width):
        for _ in range(n):
            total += 9 * channels_in * channels + 9 * channels * channels + 4 * channels
            channels_in = channels
    return total + 4 * width * 10 + 10


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_parameters_are_those_of_the_paper(depth, millions):
    """He et al. 2016, table 6, to its rounding, and the closed form exactly."""
    found = sum(weight.numel() for weight in build(ResNetModel(depth=depth), (3, 32, 32), 10).parameters())
    assert found == count(depth)
    assert round(found / 1e6, 2 if depth < 100 else 1) == millions


def test_depth_twenty_has_269722_parameters():
    """The number that implementations with option A agree upon."""
    assert count(20) == 269_722


def test_forward_equals_the_paper_written_out():
    """float64, eval mode, depth 8: blocks with zero-padded shortcuts, from torch's functions alone."""
    body: ResNet = build(ResNetModel(depth=8, width=4), (3, 11, 9), 5).double()
    body(torch.randn(16, 3, 11, 9, dtype=torch.float64))  # moves the running statistics from 0 and 1
    body.eval()
    p = {**dict(body.named_parameters()), **dict(body.named_buffers())}

    def norm(x, name):
        mean, variance, gain, shift = (
            p[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * gain + shift

    x = torch.randn(2, 3, 11, 9, dtype=torch.float64)
    h = norm(F.conv2d(x, p["conv.weight"], padding=1), "norm").relu()
    for i, stride in enumerate((1, 2, 2)):
        name = f"blocks.{i}"
        y = norm(F.conv2d(h, p[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.norm1").relu()
        y = norm(F.conv2d(y, p[f"{name}.conv2.weight"], padding=1), f"{name}.norm2")
        shortcut = torch.zeros_like(y)
        shortcut[:, : h.shape[1]] = h[:, :, ::stride, ::stride]
        h = (shortcut + y).relu()
    expected = h.flatten(2).mean(2) @ p["linear.weight"].T + p["linear.bias"]
    torch.testing.assert_close(body(x), expected)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 47), (4, 2, 3), (1, 1, 1)])
def test_takes_images_of_any_size(shape):
    """Odd sides round up at each halving, in shortcut and branch alike."""
    body = build(ResNetModel(depth=8, width=4), shape, 3)
    assert body(torch.randn(4, *shape)).shape == (4, 3)


def test_refuses_what_is_no_image_and_no_depth():
    """Sequences are named as such; depths that are not 6n + 2 get the two nearest."""
    with pytest.raises(
        UserError, match="model resnet wants images, but the data has sequences of 7×3: use model=rnn"
    ):
        build(ResNetModel(), (7, 3), 2)
    with pytest.raises(ValueError, match="use 20 or 26"):
        ResNetModel(depth=24)
