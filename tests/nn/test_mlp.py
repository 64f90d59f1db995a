"""Multi-layer perceptron."""

from math import sqrt

import pytest
import torch
from torch import nn

from stepwell.errors import UserError
from stepwell.nn.configs import MLPModel
from stepwell.nn.dropout import Dropout
from stepwell.nn.mlp import ACTIVATIONS, build

FORMULAS = {
    "relu": lambda z: z * (z > 0),
    "tanh": lambda z: (z.exp() - (-z).exp()) / (z.exp() + (-z).exp()),
    "sigmoid": lambda z: 1 / (1 + (-z).exp()),
    "gelu": lambda z: z * (1 + torch.erf(z / sqrt(2))) / 2,
    "leaky-relu": lambda z: torch.where(z > 0, z, 0.01 * z),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_and_gradient_equal_explicit_products(activation):
    """float64, two hidden layers, an image: y and every gradient as by matrix products written out."""
    config = MLPModel(hidden=[7, 5], activation=activation)
    body = build(config, (1, 3, 4), 2).double()
    x = torch.randn(6, 1, 3, 4, dtype=torch.float64)
    copies = [weight.detach().clone().requires_grad_() for weight in body.parameters()]
    w1, b1, w2, b2, w3, b3 = copies
    phi = FORMULAS[activation]
    y = phi(phi(x.reshape(6, 12) @ w1.T + b1) @ w2.T + b2) @ w3.T + b3
    torch.testing.assert_close(body(x), y)
    y.square().sum().backward()
    body(x).square().sum().backward()
    for weight, copy in zip(body.parameters(), copies, strict=True):
        torch.testing.assert_close(weight.grad, copy.grad)


def test_relu_keeps_the_signal_through_twenty_layers():
    """He's initialization: the mean square neither dies nor explodes; it would be 2⁻²⁰ with Xavier's."""
    torch.manual_seed(0)
    body = build(MLPModel(hidden=[256] * 20), (256,), 10)
    hidden = body[:-1](torch.randn(64, 256))
    assert 0.2 < hidden.square().mean().item() < 5


def test_parameters_and_layers():
    """[128, 128] on digits: 64·128+128 + 128·128+128 + 128·10+10 = 26,122; [] is a linear model."""
    assert sum(w.numel() for w in build(MLPModel(), (1, 8, 8), 10).parameters()) == 26122
    assert [type(layer) for layer in build(MLPModel(hidden=[]), (3,), 2)] == [nn.Linear]
    layers = [
        type(layer) for layer in build(MLPModel.model_validate({"hidden": [4], "dropout": 0.5}), (3,), 2)
    ]
    assert layers == [nn.Linear, nn.ReLU, Dropout, nn.Linear]


def test_refuses_text():
    """An MLP would take character numbers for quantities."""
    with pytest.raises(
        UserError, match="model mlp wants features or images or sequences, but the data has text"
    ):
        build(MLPModel(), (64,), 65, "text")
