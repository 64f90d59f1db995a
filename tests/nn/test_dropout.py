"""Dropout: the shares and means of its three kinds, by seeded sampling; the draws' one place."""

import math
from typing import Any

import pytest
import torch
from torch import nn

import stepwell as sw
from stepwell.errors import UserError
from stepwell.nn import draws
from stepwell.nn.dropout import Dropout

N = 200_000


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["inverted", "scaled"])
def test_share_and_values(kind, p):
    """A share p is 0, within five standard errors √(p(1−p)/n); the others are x/(1−p), or x."""
    torch.manual_seed(0)
    x = torch.full((N // 100, 100), 2.0)
    y = Dropout(p, kind)(x)
    share = (y == 0).double().mean().item()
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / N)
    kept = 2 / (1 - p) if kind == "inverted" else 2.0
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], kept))


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_training_has_the_mean_of_evaluation(p):
    """E y in training is y in evaluation, for each kind and each input, within five standard errors.

    Inverted: x, variance x² p/(1−p). Scaled: (1−p) x, variance x² p (1−p). So inverted is scaled divided
    by 1 − p, in expectation and in evaluation alike.
    """
    x = torch.tensor([-3.0, 0.5, 1.0, 7.0], dtype=torch.float64)
    kinds: list[Any] = [
        ("inverted", x, x.square() * p / (1 - p)),
        ("scaled", (1 - p) * x, x.square() * p * (1 - p)),
        ("spatial", x, x.square() * p / (1 - p)),
    ]
    for kind, mean, variance in kinds:
        torch.manual_seed(1)
        layer, shape = Dropout(p, kind), (N, 4, 1) if kind == "spatial" else (N, 4)
        y = layer(x.expand(N, 4).reshape(shape)).view(N, 4)
        assert ((y.mean(0) - mean).abs() < 5 * (variance / N).sqrt()).all()
        assert ((y.var(0) - variance).abs() < 0.05 * variance).all()
        torch.testing.assert_close(layer.eval()(x.view(1, 4, 1)).flatten(), mean)


@pytest.mark.parametrize(("shape", "channel"), [((500, 40, 3, 5), 1), ((500, 7, 40), -1)])
def test_spatial_drops_whole_channels(shape, channel):
    """A sample's channel is 0 everywhere or nowhere, each by itself: a share p, to five standard errors."""
    torch.manual_seed(0)
    y = Dropout(0.3, "spatial", channel_dim=channel)(torch.ones(shape)).movedim(channel, 1).flatten(2)
    assert torch.equal(y.amin(2), y.amax(2))
    dropped = (y[..., 0] == 0).double()
    error = math.sqrt(0.3 * 0.7 / dropped.numel())
    assert abs(dropped.mean().item() - 0.3) < 5 * error
    for d in (0, 1):  # channels and samples do not go together: the variance of the shares is binomial
        size = dropped.shape[1 - d]
        assert abs(dropped.mean(1 - d).var().item() / (0.3 * 0.7 / size) - 1) < 0.8


def test_bf16_has_the_right_share_and_scale():
    """Draws of bfloat16 would drop 10.2 % for p = 0.1, and a bfloat16 mask would scale by 1.1094."""
    torch.manual_seed(0)
    y = Dropout(0.1)(torch.full((N * 20,), 3.0, dtype=torch.bfloat16))
    assert abs((y == 0).double().mean().item() - 0.1) < 5 * math.sqrt(0.09 / (N * 20))
    assert y.max() == torch.tensor(3 / 0.9).bfloat16()


def test_the_ends():
    """p = 0 is the input itself, p = 1 leaves zeros, and their gradients are finite."""
    x = torch.randn(5, 3, requires_grad=True)
    assert Dropout(0.0)(x) is x
    for kind in ("inverted", "scaled"):
        y = Dropout(1.0, kind)(x)
        assert not y.any()
        y.sum().backward()
        assert x.grad is not None and not x.grad.any()


def test_numbers_can_be_supplied_and_are_torchs_otherwise():
    """Supplied ones decide the mask, in order; outside, torch's generator, whose seed repeats them."""
    layer, x = Dropout(0.5, "scaled"), torch.ones(4)
    with draws.supplied(lambda shape, device: torch.tensor([0.4, 0.5, 0.6, 0.0])):
        assert draws.are_supplied() and layer(x).tolist() == [0, 1, 1, 0]
    assert not draws.are_supplied()
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(layer(torch.ones(100)))
    assert torch.equal(*found) and 20 < found[0].sum() < 80


def test_refusals():
    """A probability that is none, a kind that is none, channels of features."""
    with pytest.raises(UserError, match=r"p=1\.5 cannot be"):
        Dropout(1.5)
    with pytest.raises(UserError, match="use inverted, scaled, spatial"):
        Dropout(0.5, "gaussian")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has features: use inverted"):
        Dropout(0.5, "spatial")(torch.ones(3, 4))


def test_is_one_of_torchs_dropouts():
    """Whoever looks for torch's layers finds it."""
    assert isinstance(sw.nn.Dropout(0.5), nn.modules.dropout._DropoutNd)
