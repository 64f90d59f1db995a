"""Recurrent network."""

from typing import Any

import pytest
import torch

from stepwell.errors import UserError
from stepwell.nn import draws
from stepwell.nn.configs import RNNModel
from stepwell.nn.rnn import RNN, build


def lstm(p, layer, x):
    """Hochreiter & Schmidhuber's equations, step by step; x (B, T, D) → h (B, T, H)."""
    h = c = torch.zeros(len(x), p[f"weight_hh_l{layer}"].shape[1], dtype=x.dtype)
    states = []
    for step in x.unbind(1):
        z = step @ p[f"weight_ih_l{layer}"].T + p[f"bias_ih_l{layer}"] + h @ p[f"weight_hh_l{layer}"].T
        i, f, g, o = (z + p[f"bias_hh_l{layer}"]).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return torch.stack(states, 1)


def gru(p, layer, x):
    """Cho et al.'s equations, with the reset gate after the product as in torch and cuDNN."""
    h = torch.zeros(len(x), p[f"weight_hh_l{layer}"].shape[1], dtype=x.dtype)
    states = []
    for step in x.unbind(1):
        ri, zi, ni = (step @ p[f"weight_ih_l{layer}"].T + p[f"bias_ih_l{layer}"]).chunk(3, 1)
        rh, zh, nh = (h @ p[f"weight_hh_l{layer}"].T + p[f"bias_hh_l{layer}"]).chunk(3, 1)
        z = (zi + zh).sigmoid()
        h = (1 - z) * (ni + (ri + rh).sigmoid() * nh).tanh() + z * h
        states.append(h)
    return torch.stack(states, 1)


def written_out(body: RNN, config: RNNModel, x: torch.Tensor) -> torch.Tensor:
    """The states of the last layer, (B, T, H)."""
    p = dict(body.recurrent.named_parameters())
    for layer in range(config.layers):
        x = (lstm if config.cell == "lstm" else gru)(p, layer, x)
    return x


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2])
def test_equals_the_equations_written_out(cell, layers):
    """float64: sequences and images (rows as the sequence) from the last state, text from every state."""
    config = RNNModel(cell=cell, layers=layers, width=5)
    body = build(config, (7, 3), 4).double()
    x = torch.randn(6, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(body(x), body.linear(written_out(body, config, x)[:, -1]))
    body = build(config, (2, 4, 3), 4).double()
    x = torch.randn(6, 2, 4, 3, dtype=torch.float64)
    rows = torch.stack([torch.cat([x[:, 0, row], x[:, 1, row]], 1) for row in range(4)], 1)  # (6, 4, 2·3)
    torch.testing.assert_close(body(x), body.linear(written_out(body, config, rows)[:, -1]))
    body = build(config, (9,), 4, "text").double()
    x = torch.randint(4, (6, 9))
    torch.testing.assert_close(body(x), body.linear(written_out(body, config, body.embedding.weight[x])))


def test_an_lstm_starts_by_remembering():
    """The forget gate's two biases sum to one, all others to zero; W_hh of each gate is orthogonal."""
    body = build(RNNModel(width=4), (7, 3), 2)
    p = dict(body.recurrent.named_parameters())
    forget = torch.tensor([0.0] * 4 + [1.0] * 4 + [0.0] * 8)
    assert torch.equal(p["bias_ih_l0"] + p["bias_hh_l0"], forget)
    for gate in p["weight_hh_l0"].chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(4))


def test_parameters():
    """4·(H·D + H·H + 2·H) for an LSTM, three quarters of it for a GRU, and H·O + O."""
    for config, gates in ((RNNModel(width=8), 4), (RNNModel(cell="gru", width=8), 3)):
        body = build(config, (7, 3), 2)
        expected = gates * (8 * 3 + 8 * 8 + 2 * 8) + 8 * 2 + 2
        assert sum(weight.numel() for weight in body.parameters()) == expected


def test_refuses_features():
    """Features have no order to read them in."""
    with pytest.raises(
        UserError, match="model rnn wants sequences or images or text, but the data has 13 features"
    ):
        build(RNNModel(), (13,), 2)


def stacked(**options) -> RNN:
    """Two layers of our own stack, with the weights of torch's own: both draw them in the same order."""
    torch.manual_seed(0)
    config = RNNModel.model_validate({"width": 4, "layers": 2, **options})
    return build(config, (7, 3), 2).double()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_our_stack_is_torchs_with_a_norm_after_each_layer(cell):
    """The same numbers where nothing is dropped; with layer norm the equations written out."""
    x = torch.randn(6, 7, 3, dtype=torch.float64)
    plain, dropped = stacked(cell=cell), stacked(cell=cell, dropout=0.5).eval()
    torch.testing.assert_close(dropped(x), plain(x), rtol=1e-12, atol=1e-12)
    normed = stacked(cell=cell, norm="layer")
    h = x
    layers: Any = normed.recurrent.layers
    for layer in layers:
        h = (lstm if cell == "lstm" else gru)(dict(layer.named_parameters()), 0, h)
        h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(normed(x), normed.linear(h[:, -1]))


def test_dropout_is_between_the_layers_and_before_the_last():
    """Two draws in this order, (B, T, width) and (B, width): what they keep decides the answer."""
    body, x, shapes = stacked(dropout=0.5), torch.randn(6, 7, 3, dtype=torch.float64), []
    mask = (torch.arange(6 * 7 * 4) % 3 > 0).double()

    def source(shape, device):
        shapes.append(shape)
        return mask[: torch.Size(shape).numel()].view(shape)

    with draws.supplied(source):
        y = body(x)
    layers: Any = body.recurrent.layers
    first, second = layers
    h = lstm(dict(second.named_parameters()), 0, 2 * mask.view(6, 7, 4) * first(x)[0])[:, -1]
    torch.testing.assert_close(y, body.linear(2 * mask[:24].view(6, 4) * h))
    assert shapes == [(6, 7, 4), (6, 4)]
