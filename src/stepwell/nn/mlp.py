"""Multi-layer perceptron."""

from __future__ import annotations

from math import prod

from torch import nn

from stepwell.data.dataset import Kind
from stepwell.nn import dropout
from stepwell.nn.configs import MLPModel
from stepwell.nn.kinds import accept
from stepwell.nn.normalization import registry as norms

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "leaky-relu": nn.LeakyReLU,
}


def build(
    config: MLPModel, input_shape: tuple[int, ...], outputs: int, kind: Kind | None = None
) -> nn.Sequential:
    """h₀ = x, hₗ = dropout(φ(norm(Wₗ hₗ₋₁ + bₗ))), y = W h + b: (B, *input_shape) → (B, outputs).

    Any input but text is flattened. Before a ReLU-like φ a weight is He's normal, N(0, 2 / fan_in)
    (He et al. 2015); before tanh or sigmoid, and at the output, Xavier's uniform (Glorot & Bengio
    2010). All b start at zero; where the norm has a β there is no b.
    """
    kind = accept(config.name, ("features", "image", "sequence"), kind, input_shape)
    widths = [prod(input_shape), *config.hidden]
    layers: list[nn.Module] = [] if kind == "features" else [nn.Flatten()]
    for fan_in, fan_out in zip(widths, config.hidden, strict=False):
        norm = norms.after(config.norm, fan_out, "features")
        layer = nn.Linear(fan_in, fan_out, bias=not norms.has_bias(norm))
        if config.activation in ("tanh", "sigmoid"):
            nn.init.xavier_uniform_(layer.weight)
        else:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        norms.normalize_weights(config.norm, [layer])
        layers += [layer, norm, ACTIVATIONS[config.activation](), dropout.build(config.dropout)]
    last = nn.Linear(widths[-1], outputs)
    nn.init.xavier_uniform_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)), last)
