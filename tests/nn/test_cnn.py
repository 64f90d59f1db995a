"""Convolutional network."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.errors import UserError
from stepwell.nn.cnn import build
from stepwell.nn.configs import CNNModel


def test_forward_and_gradient_equal_the_layers_written_out():
    """float64, one stage in training: windows × weights, batch statistics, relu, maximum, mean, product."""
    body = build(CNNModel(channels=[5]), (3, 8, 8), 4).double().train()
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    copies = [weight.detach().clone().requires_grad_() for weight in body.parameters()]
    kernel, gain, shift, weight, bias = copies
    gain.data.uniform_(0.5, 2)
    shift.data.normal_()
    for parameter, copy in zip(body.parameters(), copies, strict=True):
        parameter.data.copy_(copy)
    windows = F.unfold(x, 3, padding=1)  # (6, 27, 64)
    maps = (kernel.flatten(1) @ windows).unflatten(2, (8, 8))
    mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), correction=0, keepdim=True)
    maps = (maps - mean) / (variance + 1e-5).sqrt() * gain[:, None, None] + shift[:, None, None]
    maps = maps.clamp_min(0).unflatten(2, (4, 2)).unflatten(4, (4, 2)).amax((3, 5))
    y = maps.mean((2, 3)) @ weight.T + bias
    torch.testing.assert_close(body(x), y)
    y.square().sum().backward()
    body(x).square().sum().backward()
    for parameter, copy in zip(body.parameters(), copies, strict=True):
        torch.testing.assert_close(parameter.grad, copy.grad)


@settings(max_examples=25)
@given(
    channels=st.sampled_from([1, 2, 3, 4]),
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    stages=st.integers(1, 5),
    kernel=st.sampled_from([1, 3, 5]),
)
def test_takes_images_of_any_size(channels, height, width, stages, kernel):
    """From 1×1 on, with more stages than the image can be halved; gradients are finite."""
    body = build(CNNModel(channels=[4] * stages, kernel=kernel), (channels, height, width), 3)
    y = body(torch.randn(2, channels, height, width))
    y.sum().backward()
    assert y.shape == (2, 3)
    assert all(w.grad is not None and w.grad.isfinite().all() for w in body.parameters())


@pytest.mark.parametrize("side", [96, 128, 224])
def test_large_images_cost_no_more_than_small_ones_by_much(side):
    """The first stage's map stays at most 127 pixels wide, by the first convolution's stride."""
    body = build(CNNModel(), (3, side, side), 10).eval()
    first = body[0](torch.randn(1, 3, side, side))
    assert 64 <= first.shape[-1] < 128
    assert body(torch.randn(1, 3, side, side)).shape == (1, 10)


def test_layout_innermost_channels():
    """All maps lie channels-last in memory, for one channel too; all weights stay contiguous."""
    for channels in (1, 3):
        body = build(CNNModel(), (channels, 16, 16), 10)
        for depth in range(1, len(body) - 1):
            maps = body[:depth](torch.randn(2, channels, 16, 16))
            assert maps.stride(1) == 1
        assert all(weight.is_contiguous() for weight in body.parameters())


def test_parameters():
    """Closed form: 9·cᵢ₋₁·cᵢ + 2·cᵢ a stage (9·cᵢ₋₁·cᵢ + cᵢ without batch norm), then cₙ·10 + 10."""
    sizes = [(3, 8), (8, 16)]
    for norm, extra in (("batch", 2), ("none", 1)):
        body = build(CNNModel.model_validate({"channels": [8, 16], "norm": norm}), (3, 32, 32), 10)
        expected = sum(9 * a * b + extra * b for a, b in sizes) + 16 * 10 + 10
        assert sum(weight.numel() for weight in body.parameters()) == expected


def test_refuses_features():
    """The sentence names the model that takes features."""
    with pytest.raises(
        UserError, match="model cnn wants images, but the data has 13 features: use model=mlp"
    ):
        build(CNNModel(), (13,), 2)
