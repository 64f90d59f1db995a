"""A whole model by scheme: torch's bits layer by layer where torch has them, closed forms elsewhere."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import stepwell as sw
from stepwell.errors import UserError
from stepwell.nn.init_key import ALIASES, NAMES
from stepwell.nn.initialization.schemes import SCHEMES

initialize = sw.nn.initialize


def seeded():
    return torch.Generator().manual_seed(7)


def test_every_name_is_a_scheme_and_wrong_ones_get_the_nearest():
    """The recipe's names are the registry's; aliases are two of them."""
    assert tuple(SCHEMES) == NAMES and set(ALIASES.values()) <= set(NAMES)
    with pytest.raises(UserError, match="did you mean he-normal"):
        initialize(nn.Linear(2, 2), "he-norml")


@pytest.mark.parametrize(("scheme", "gain"), [("he", 2.0), ("xavier", 1.0), ("orthogonal", 1.0)])
def test_layers_in_order_are_torchs_bits(scheme, gain):
    """Linear and convolution as torch.nn.init draws them, the last layer with gain 1; biases 0."""
    net: Any = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 16), nn.Linear(16, 4))
    g, init = seeded(), torch.nn.init
    assert initialize(net, scheme, generator=seeded()) == []
    for layer, square in ((net[0], gain), (net[3], gain), (net[4], 1.0)):
        w = torch.empty_like(layer.weight)
        if scheme == "he":
            init.kaiming_normal_(w, nonlinearity="relu" if square == 2 else "linear", generator=g)
        elif scheme == "xavier":
            init.xavier_uniform_(w, generator=g)
        else:
            init.orthogonal_(w, generator=g)
        assert torch.equal(layer.weight, w) and not layer.bias.any()


@pytest.mark.parametrize(
    ("layer", "variance"),
    [
        (nn.Linear(400, 300), 2 / 400),
        (nn.Conv1d(40, 300, 5), 2 / 200),
        (nn.Conv2d(64, 512, 3, groups=8), 2 / (8 * 9)),
        (nn.ConvTranspose2d(60, 100, 4, 2), 2 / (60 * 16) * 4),
        (nn.ConvTranspose1d(60, 400, 4, 2, groups=2), 2 / (30 * 4) * 2),
        (nn.Bilinear(20, 30, 100), 2 / 600),
        (nn.Embedding(300, 200), 1.0),
        (nn.EmbeddingBag(300, 200), 1.0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
@pytest.mark.parametrize("scheme", ["he-normal", "he-uniform"])
def test_variance_by_kind(scheme, layer, variance):
    """He's 2 / (inputs that reach a unit), of a layer that is not the last: within five standard errors."""
    layer.to(torch.float64)
    initialize(nn.Sequential(layer, nn.Linear(2, 2)), scheme, generator=seeded())
    w, kurtosis = layer.weight, 3.0 if scheme == "he-normal" else 1.8
    assert abs(w.var().item() / variance - 1) < 5 * math.sqrt((kurtosis - 1) / w.numel())


def test_groups_are_layers_of_their_own():
    """Xavier's units of a group are 512 / 8, which torch's count is not; orthogonal within each group."""
    layer: Any = nn.Conv2d(64, 512, 3, groups=8)
    net = nn.Sequential(layer, nn.Linear(2, 2))
    initialize(net, "xavier-normal", generator=seeded())
    assert layer.weight.var().item() == pytest.approx(2 / ((8 + 64) * 9), rel=0.05)
    initialize(net, "orthogonal", generator=seeded())
    for group in layer.weight.flatten(1).chunk(8):
        torch.testing.assert_close(group @ group.T, torch.eye(64), rtol=0, atol=1e-5)


def test_a_transposed_convolution_keeps_the_variance():
    """Stride 2, window 4: away from the border outputs have the variance of a layer with gain 1."""
    net: Any = nn.Sequential(nn.ConvTranspose2d(64, 64, 4, 2).double())
    initialize(net, "he", generator=seeded())
    x = torch.randn(4, 64, 16, 16, dtype=torch.float64, generator=seeded())
    assert net(x)[:, :, 4:-4, 4:-4].var().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell])
def test_recurrent_layers_gate_by_gate(make):
    """Each gate: inputs with variance 1 / fan_in, states orthogonal; biases 0, the LSTM's forget gate 1."""
    layer = make(300, 40)
    initialize(nn.Sequential(layer, nn.Linear(2, 2)), "he", generator=seeded())
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[make.__name__.removesuffix("Cell")]
    weights = dict(layer.named_parameters())
    for name, w in weights.items():
        for gate in w.chunk(gates) if w.dim() == 2 else ():
            if "hh" in name:
                torch.testing.assert_close(gate @ gate.T, torch.eye(40), rtol=0, atol=1e-5)
            else:
                assert gate.var().item() == pytest.approx(1 / 300, rel=5 * math.sqrt(2 / gate.numel()))
    biases = torch.stack([w for name, w in weights.items() if "bias" in name]).sum(0)
    assert biases.sum() == (40 if gates == 4 else 0) and (gates < 4 or bool((biases[40:80] == 1).all()))


def test_attention_and_norms():
    """Query, key, value and output are four matrices of gain 1; norms start as the identity."""
    layer = nn.TransformerEncoderLayer(64, 4, 256)
    for p in layer.parameters():
        p.data.fill_(0.5)
    assert initialize(layer, "orthogonal", generator=seeded()) == []
    for w in (*layer.self_attn.in_proj_weight.chunk(3), layer.self_attn.out_proj.weight):
        torch.testing.assert_close(w @ w.T, torch.eye(64), rtol=0, atol=1e-5)
    for name, p in layer.named_parameters():
        if p.dim() == 1:
            assert bool((p == float("norm" in name and name.endswith("weight"))).all()), name
    initialize(layer, "he", generator=seeded())
    assert layer.self_attn.in_proj_weight.var().item() == pytest.approx(1 / 64, rel=0.1)
    assert layer.linear1.weight.var().item() == pytest.approx(2 / 64, rel=0.1)


def test_the_bad_schemes_fill_every_matrix_alike():
    """Embeddings and recurrent weights too; zeros are zeros everywhere but in norms and the forget gate."""
    for scheme, sd in (("zeros", 0.0), ("small-normal", 0.01), ("large-normal", 1.0)):
        net = nn.ModuleList([nn.Embedding(100, 50), nn.LSTM(50, 50), nn.Linear(50, 100), nn.Conv2d(9, 50, 3)])
        initialize(net, scheme, generator=seeded())
        for name, w in net.named_parameters():
            if w.dim() > 1:
                assert w.std().item() == pytest.approx(sd, rel=0.1), name


def test_shared_weights_are_drawn_once_and_for_the_layer():
    """A head that shares the embedding's matrix gets 1 / fan_in: with N(0, 1) its logits would be huge."""
    net: Any = nn.Sequential(nn.Embedding(500, 64), nn.Linear(64, 64), nn.Linear(64, 500, bias=False))
    net[2].weight = net[0].weight
    alone: Any = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 500, bias=False))
    initialize(net, "he", generator=seeded())
    initialize(alone, "he", generator=seeded())
    assert torch.equal(net[0].weight, alone[1].weight) and torch.equal(net[1].weight, alone[0].weight)


def test_frozen_and_unknown_parameters_are_left_alone_and_named():
    """What is frozen has been learnt elsewhere; what a module of one's own holds is not ours to know."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.layer, self.frozen = (
                nn.Parameter(torch.ones(3)),
                nn.Linear(3, 3),
                nn.Linear(3, 3),
            )
            self.frozen.weight.requires_grad_(False).fill_(2.0)

    net: Any = Own()
    assert initialize(net, "zeros") == ["token", "frozen.weight"]
    assert net.token.sum() == 3 and net.frozen.weight.sum() == 18 and not net.layer.weight.any()


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_weights_are_assigned_through_their_parametrization(wrap):
    """Weight norm: the very weight; spectral norm: that weight over its norm, whose iteration has settled."""
    plain: Any = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 5))
    net: Any = nn.Sequential(wrap(nn.Linear(30, 20)), nn.Linear(20, 5))
    initialize(plain, "he", generator=seeded())
    assert initialize(net, "he", generator=seeded()) == []
    w = plain[0].weight
    if wrap is parametrizations.spectral_norm:
        w = w / torch.linalg.matrix_norm(w, 2)
    torch.testing.assert_close(net[0].weight, w, rtol=0.02, atol=1e-6)
    assert torch.equal(net[1].weight, plain[1].weight)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_what_cannot_be_set_is_refused_before_anything_is_changed():
    """Lazy layers, weights computed by hooks, parametrizations without an inverse, a batch for nothing."""

    class Square(nn.Module):
        def forward(self, w):
            return w.square()

    squared = nn.Linear(3, 3)
    nn.utils.parametrize.register_parametrization(squared, "weight", Square())
    hooked = nn.utils.weight_norm(nn.Linear(3, 3))
    for layer, words in (
        (nn.LazyLinear(3), "has no shape yet"),
        (hooked, "computed from weight_g"),
        (squared, "Square, which has no right_inverse"),
    ):
        net: Any = nn.Sequential(nn.Linear(3, 3), layer)
        before = net[0].weight.clone()
        with pytest.raises(UserError, match=words):
            initialize(net, "he")
        assert torch.equal(net[0].weight, before)
    with pytest.raises(UserError, match="has no use for a batch"):
        initialize(nn.Linear(3, 3), "he", batch=torch.ones(1, 3))
    normed: Any = parametrizations.weight_norm(nn.Linear(3, 3))
    with pytest.raises(UserError, match="choose another scheme"):
        initialize(normed, "zeros")
    assert bool(normed.weight.isfinite().all())


def test_the_type_of_the_weights_stays():
    """bfloat16 is drawn in float32 and rounded; float64 has torch's float64 bits."""
    nets: list[Any] = [
        nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).to(t) for t in (torch.bfloat16, torch.float32)
    ]
    for net in nets:
        initialize(net, "orthogonal", generator=seeded())
    assert torch.equal(nets[0][0].weight, nets[1][0].weight.bfloat16())


def test_a_gain_of_ones_own():
    """tanh's 5/3 for Xavier: variance times (5/3)², but in the last layer."""
    net: Any = nn.Sequential(nn.Linear(400, 400), nn.Tanh(), nn.Linear(400, 400))
    initialize(net, "xavier-normal", gain=5 / 3, generator=seeded())
    assert net[0].weight.var().item() == pytest.approx(25 / 9 / 400, rel=0.03)
    assert net[2].weight.var().item() == pytest.approx(1 / 400, rel=0.03)
