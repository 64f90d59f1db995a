"""Layer, RMS, instance and group norm: torch's layers, and the formulas written out where torch has none."""

import pytest
import torch
from torch import nn

import stepwell as sw
from stepwell.errors import UserError

N = sw.nn
IMAGE, TEXT = (5, 6, 4, 3), (5, 4, 6)
PAIRS = {
    "layer": (lambda: N.LayerNorm(6), lambda: nn.LayerNorm(6), TEXT),
    "layer of images": (lambda: N.LayerNorm(6, channel_dim=1), lambda: nn.GroupNorm(1, 6), IMAGE),
    "rms": (lambda: N.RMSNorm(6), lambda: nn.RMSNorm(6), TEXT),
    "rms with ε": (lambda: N.RMSNorm(6, 0.1), lambda: nn.RMSNorm(6, 0.1), TEXT),
    "instance": (lambda: N.InstanceNorm(6), lambda: nn.InstanceNorm2d(6, affine=True), IMAGE),
    "group": (lambda: N.GroupNorm(3, 6), lambda: nn.GroupNorm(3, 6), IMAGE),
}


def run(layer: nn.Module, shape, weights: list) -> list:
    """Output, gradients of the input and of the weights, in training and in evaluation."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for parameter, value in zip(layer.parameters(), weights, strict=False):
        parameter.data.copy_(value)
    for training in (True, False):
        x = x.detach().requires_grad_()
        y = layer.train(training)(x)
        layer.zero_grad()
        (y * torch.arange(y.numel()).double().cos().view(y.shape)).sum().backward()
        found += [
            y.detach(),
            x.grad,
            *(torch.clone(p.grad) for p in layer.parameters() if p.grad is not None),
        ]
    return found


@pytest.mark.parametrize("name", PAIRS)
def test_is_torchs(name):
    """float64: outputs and gradients in both modes, with the same names in the state."""
    ours, theirs = (build().double() for build in PAIRS[name][:2])
    weights = [torch.randn(6, dtype=torch.float64) for _ in range(2)]
    for own, other in zip(*(run(layer, PAIRS[name][2], weights) for layer in (ours, theirs)), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_rms_of_images_is_the_formula():
    """x / √(mean over C, H, W of x² + ε) · γ, sample by sample."""
    layer = N.RMSNorm(6, 0.1, channel_dim=1).double()
    layer.weight.data.normal_()
    x = torch.randn(IMAGE, dtype=torch.float64)
    for sample, y in zip(x, layer(x), strict=True):
        expected = sample / (sample.square().mean() + 0.1).sqrt() * layer.weight[:, None, None]
        torch.testing.assert_close(y, expected)
    assert N.RMSNorm(6, channel_dim=1).half()(torch.full(IMAGE, 1e3).half()).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rms_of_small_half_precision_has_a_small_eps(dtype):
    """Signals of size 0.01 come out of size 1, channels first or last, as in float32."""
    x = 0.01 * torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        last = float(sw.nn.RMSNorm(6)(x.movedim(1, -1)).float().square().mean().sqrt())
        first = float(sw.nn.RMSNorm(6, channel_dim=1)(x).float().square().mean().sqrt())
    assert first == pytest.approx(1, abs=0.02) and last == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    "build", [lambda: N.GroupNorm(3, 6, channel_dim=-1), lambda: N.InstanceNorm(6, channel_dim=-1)]
)
def test_channels_that_come_last(build):
    """(B, T, C): groups of each position's features alone; instances over the positions of a sample."""
    layer, x = build().double(), torch.randn(TEXT, dtype=torch.float64)
    if isinstance(layer, N.InstanceNorm):
        expected = nn.InstanceNorm1d(6).double()(x.transpose(1, 2)).transpose(1, 2)
    else:
        expected = torch.stack([nn.GroupNorm(3, 6).double()(x[:, t]) for t in range(4)], 1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_refusals():
    """Groups that do not divide, and instances of one place, which would all be β."""
    with pytest.raises(UserError, match="4 groups do not divide 6 channels"):
        N.GroupNorm(4, 6)
    for shape in ((5, 6), (5, 6, 1, 1)):
        with pytest.raises(UserError, match="use layer norm"):
            N.InstanceNorm(6)(torch.randn(shape))
