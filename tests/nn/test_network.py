"""The network around a model: standardization, decoding, what is saved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stepwell.data.dataset import DataSet, Part, TensorInputs
from stepwell.data.statistics import standardization
from stepwell.nn.configs import MLPModel
from stepwell.nn.network import Network, Predictor
from stepwell.nn.registry import build


def test_forward_is_the_body_of_standardized_inputs():
    """float64: body((x − shift)·scale), in the obvious way and order, per feature and per channel."""
    x = 1e3 + 5 * torch.randn(50, 4, dtype=torch.float64)
    shift, scale = (one.double() for one in standardization([x], (0,)))
    net = Network(nn.Identity(), "features", "regression", shift, scale)
    torch.testing.assert_close(net(x), (x - shift) * scale, rtol=1e-12, atol=1e-12)
    images = torch.randint(256, (9, 3, 8, 8), dtype=torch.uint8)
    shift, scale = standardization([images], (0, 2, 3))
    net = Network(nn.Identity(), "image", "multi-class", shift, scale)
    standard = net(images)
    assert standard.dtype == torch.float32
    torch.testing.assert_close(standard.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_inputs_far_from_zero_lose_no_more_than_float32_already_lost():
    """Mean 10⁴, deviation 1: the error is that of storing x in float32, about 10⁴·2⁻²⁴."""
    exact = 1e4 + torch.randn(1000, 1, dtype=torch.float64)
    shift, scale = standardization([exact], (0,))
    truth = (exact - exact.mean(0)) / exact.std(0, correction=0)
    found = Network(nn.Identity(), "features", "regression", shift, scale)(exact.float())
    assert (found - truth).abs().max() < 4 * 1e4 * 2**-24


def test_text_is_passed_on_as_it_is():
    """Tokens are int64 numbers of characters: nothing to standardize."""
    tokens = torch.randint(9, (2, 5))
    assert torch.equal(Network(nn.Identity(), "text", "text")(tokens), tokens)


def test_missing_statistics_leave_the_input_alone():
    """Without shift and scale inputs only become floats."""
    x = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(Network(nn.Identity(), "features", "multi-class")(x.to(torch.uint8)), x)


@pytest.mark.parametrize("task", ["binary", "multi-class", "text"])
def test_decode_gives_probabilities_of_classes(task):
    """exp(zᵢ) / Σ exp(zⱼ) over the last axis."""
    z = torch.randn(3, 4, 5, dtype=torch.float64)
    expected = z.exp() / z.exp().sum(-1, keepdim=True)
    torch.testing.assert_close(Network(nn.Identity(), "features", task).decode(z), expected)


def test_decode_gives_a_probability_for_each_label():
    """1 / (1 + exp(−z)), each label by itself."""
    z = torch.randn(3, 5, dtype=torch.float64)
    found = Network(nn.Identity(), "features", "multi-label").decode(z)
    torch.testing.assert_close(found, 1 / (1 + (-z).exp()))


def test_decode_gives_targets_in_their_own_units():
    """Standardized targets times deviation plus mean; predict does so from raw inputs."""
    y = torch.tensor([[150.0, 2e4], [70.0, 1e4], [90.0, 5e4]])
    mean, std = y.mean(0), y.std(0)
    net = Network(nn.Identity(), "features", "regression", target_mean=mean, target_std=std)
    torch.testing.assert_close(net.decode((y - mean) / std), y)
    torch.testing.assert_close(net.predict((y - mean) / std), y)
    torch.testing.assert_close(net.encode(y), (y - mean) / std)


def test_a_saved_network_needs_nothing_else():
    """Statistics are buffers: loaded into a network with others, predictions are bitwise equal."""
    x, y = torch.randn(20, 3) * 7 + 2, torch.randn(20, 2) * 30 + 400
    part = Part(TensorInputs(x), y, torch.arange(20))
    shift, scale = standardization([x], (0,))
    data = DataSet(
        "toy", "features", "regression", part, part, part, {}, (3,), 2,
        input_shift=shift, input_scale=scale, target_mean=y.mean(0), target_std=y.std(0),
    )  # fmt: skip
    net = Network.of(build(MLPModel(), (3,), 2), data)
    blank = [torch.zeros(3), torch.ones(3), torch.zeros(2), torch.ones(2)]
    copy = Network(build(MLPModel(), (3,), 2), "features", "regression", *blank)
    copy.load_state_dict(net.state_dict())
    assert torch.equal(Predictor(copy)(x), net.predict(x))
    assert not torch.equal(blank[0], net.input_scale)
    assert torch.equal(blank[1], torch.ones(3)), "the caller's tensors are copied, not written to"
