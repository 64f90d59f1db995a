"""Signals and gradients by layer: numbers done by hand, closed forms of the schemes, and no trace left."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_nets import NETS, Attention
from torch import nn

import stepwell as sw
from stepwell.nn import registry
from stepwell.nn.configs import CONFIGS, MLPModel
from stepwell.nn.inspection import WIDTH

signals = sw.nn.signals


def deep(scheme, activation, depth=20, width=200):
    """A chain of layers without biases, initialized by a scheme."""
    layers = [p for _ in range(depth) for p in (nn.Linear(width, width, bias=False), activation())]
    net = nn.Sequential(*layers, nn.Linear(width, 10)).double()
    sw.nn.initialize(net, scheme, generator=torch.Generator().manual_seed(0))
    return net


def measured(net, width=200):
    """Its signals on 128 standard normal samples, with cross-entropy."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(128, width, dtype=torch.float64, generator=g), torch.randint(10, (128,), generator=g)
    return signals(net, x, lambda z: F.cross_entropy(z, y))


def test_a_linear_network_by_hand():
    """Two layers in float64: outputs X Wᵀ + b, gradients G and G W₂, their weights' GᵀH: exactly these."""
    torch.manual_seed(0)
    net: Any = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    x, a = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    first, second = signals(net, x, lambda y: (y * a).sum()).layers
    w1, w2 = net[0].weight.detach(), net[1].weight.detach()
    b1, b2 = net[0].bias.detach(), net[1].bias.detach()
    h, back = x @ w1.T + b1, a @ w2
    for layer, y, g, w in ((first, h, back, back.T @ x), (second, h @ w2.T + b2, a, a.T @ h)):
        found = [layer.mean, layer.sd, layer.gradient_sd, layer.gradient_norm, layer.weight_gradient]
        wanted = [y.mean(), y.std(correction=0), g.std(correction=0), g.norm(), w.norm()]
        assert found == pytest.approx([v.item() for v in wanted], rel=1e-12)
    assert (first.name, first.kind, first.shape, first.parameters) == ("0", "Linear", (5, 4), 16)
    assert first.dead is None and first.saturated is None


@pytest.mark.parametrize(
    ("scheme", "activation", "factor", "course"),
    [
        ("he", nn.ReLU, 1.0, "keeps"),
        ("xavier", nn.Identity, 1.0, "keeps"),
        ("orthogonal", nn.Identity, 1.0, "keeps"),
        ("xavier", nn.ReLU, math.sqrt(0.5), "shrinks"),
        ("small-normal", nn.Identity, 0.01 * math.sqrt(200), "shrinks"),
        ("large-normal", nn.Identity, math.sqrt(200), "grows"),
        ("large-normal", nn.ReLU, math.sqrt(100), "grows"),
    ],
)
def test_twenty_layers_have_the_closed_forms_factor(scheme, activation, factor, course):
    """√(fan_in · Var(w)) a layer, halved in variance by a ReLU: forward and backward, within 5 %."""
    found = measured(deep(scheme, activation))
    hidden = [layer.sd for layer in found.layers if layer.product][:-1]
    assert (hidden[-1] / hidden[0]) ** (1 / 19) == pytest.approx(factor, rel=0.05)
    assert found.forward.factor == pytest.approx(factor, rel=0.05)
    assert found.backward.factor == pytest.approx(factor, rel=0.07)
    assert (found.forward.course, found.backward.course) == (course, course)
    word = {"keeps": "Signals keep", "shrinks": "Signals shrink geom", "grows": "Signals grow geom"}[course]
    assert found.verdict.startswith(word)


def test_tanh_with_xavier_neither_dies_nor_saturates():
    """Twenty layers of tanh: slowly smaller (as 1/√depth), hardly anything flat; N(0, 1) is flat."""
    good, bad = (measured(deep(scheme, nn.Tanh)) for scheme in ("xavier", "large-normal"))
    sizes = [layer.sd for layer in good.layers if layer.kind == "Tanh"]
    assert 0.1 < sizes[-1] < sizes[0] < 0.7 and good.forward.course == "keeps"
    assert max(layer.saturated or 0 for layer in good.layers if layer.kind == "Tanh") < 0.06
    assert min(layer.saturated or 0 for layer in bad.layers if layer.kind == "Tanh") > 0.7
    assert "outputs are in the flat region" in bad.verdict and "flat" not in good.verdict


def test_the_saturated_share_is_the_closed_form():
    """Of N(0, 1) inputs: P(|x| > artanh √0.95) for tanh, P(|x| > twice that) for sigmoid, within 5 errors."""
    x = torch.randn(1000, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    edge = math.atanh(math.sqrt(0.95))
    for function, limit in ((nn.Tanh(), edge), (nn.Sigmoid(), 2 * edge)):
        share = signals(nn.Sequential(function), x * 2).layers[0].saturated or 0
        wanted = math.erfc(limit / 2 / math.sqrt(2))
        assert abs(share - wanted) < 5 * math.sqrt(wanted / x.numel())


def test_planted_dead_units_are_found_exactly():
    """Three of 16 units, three of 12 channels and two of ten outputs, in modules and plain functions."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(3, 12, 3), nn.Linear(12, 16), nn.Linear(16, 10)
            self.act = nn.ReLU(inplace=True)

        def forward(self, x):
            x = torch.relu(self.conv(x)).mean((2, 3))
            return F.relu(self.two(self.act(self.one(x))))

    net = Net()
    with torch.no_grad():
        layer: Any
        for layer, dead in ((net.conv, [0, 5, 11]), (net.one, [1, 2, 3]), (net.two, [0, 9])):
            layer.weight.abs_()
            layer.bias.fill_(0.1)
            layer.bias[dead] = -1000.0
    found = signals(net, torch.rand(64, 3, 8, 8))
    shares = {layer.name: layer.dead for layer in found.layers if layer.dead is not None}
    assert shares == pytest.approx({":relu": 3 / 12, "act": 3 / 16, ":relu2": 2 / 10}, abs=1e-6)
    names = [layer.name for layer in found.layers]
    assert names == ["conv", ":relu", "one", "act", "two", ":relu2"]


INPUTS = {
    "linear": (16,),
    "mlp": (16,),
    "cnn": (3, 16, 16),
    "resnet": (3, 16, 16),
    "rnn": (12, 5),
    "transformer": (32,),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_no_false_alarm_for_our_default_models(name):
    """Each as it starts, at three seeds: nothing grows, shrinks, is dead or saturated."""
    for seed in range(3):
        torch.manual_seed(seed)
        shape, text = INPUTS[name], name == "transformer"
        net = registry.build(CONFIGS[name](), shape, 7, "text" if text else None)
        x = torch.randint(7, (8, *shape)) if text else torch.randn(64, *shape)
        y = torch.randint(7, (8, *shape) if text else (64,))
        found = signals(net, x, lambda z, y=y: F.cross_entropy(z.flatten(0, -2), y.flatten()))
        assert (found.forward.course, found.backward.course) == ("keeps", "keeps")
        assert "most" not in found.verdict and "constant" not in found.verdict and "No " not in found.verdict
        assert all(layer.gradient_sd is not None for layer in found.layers)
        assert max(map(len, found.lines())) <= WIDTH


def test_constant_and_infinite_signals_are_named():
    """Zeros: the output is constant. An overflow: the layer where it begins."""
    assert "output is constant, first that of 0" in measured(deep("zeros", nn.ReLU)).verdict
    net: Any = deep("large-normal", nn.Identity, depth=4)
    with torch.no_grad():
        net[2].weight.mul_(1e308)
    assert measured(net).verdict.startswith("The output of 2 is not finite")


def everything(net):
    """All that measuring might change."""
    state = {n: v.clone() for n, v in net.state_dict().items()}
    grads = [p.grad if p.grad is None else p.grad.clone() for p in net.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]
    return state, grads, hooks, [m.training for m in net.modules()], torch.get_rng_state()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_nothing_stays(training, fails):
    """Buffers, gradients, hooks, modes and random state are as before, after an error in the loss too."""
    net = nn.Sequential(
        nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(), nn.GRU(6, 4, 2, dropout=0.5)
    )
    net.train(training)
    net[0].weight.grad = torch.ones(6, 6)
    x = torch.randn(8, 6)
    before = everything(net)
    try:
        signals(net, x, lambda y: y[0].sum() * (1 // 0 if fails else 1))
    except ZeroDivisionError:
        assert fails
    for was, now in zip(before, everything(net), strict=True):
        torch.testing.assert_close(was, now, rtol=0, atol=0)
    assert net[4].dropout == 0.5


def test_batch_norm_measures_as_in_training_and_dropout_drops_nothing():
    """After batch norm the deviation is 1 whatever the moving statistics say; dropout has no row."""
    net = nn.Sequential(nn.BatchNorm1d(5, affine=False), nn.Dropout(0.9), nn.Flatten()).eval()
    layers = signals(net, torch.randn(200, 5) * 7 + 3).layers
    assert [layer.kind for layer in layers] == ["BatchNorm1d"]
    assert layers[0].sd == pytest.approx(1, abs=1e-3) and layers[0].mean == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", ["lstm", "transformer", "cnn"])
def test_every_kind_of_net(name):
    """Recurrent layers, attention by hand and convolutions: a row a layer, gradients in each of them."""
    torch.manual_seed(0)
    found = signals(NETS[name](), torch.randn(12, 6, 8), lambda y: y.square().sum())
    wanted = {"lstm": ["layer", "out"], "cnn": ["1", "2", "3", "4", "6"]}
    wanted["transformer"] = ["norm", "qkv", "up", ":gelu", "down", "out"]
    assert [layer.name for layer in found.layers] == wanted[name]
    assert all(layer.weight_gradient for layer in found.layers if layer.parameters)


def test_without_a_loss_gradients_are_not_known():
    """And a frozen model has none of its weights."""
    found = signals(Attention(), torch.randn(4, 6, 8))
    assert all(layer.gradient_sd is None and layer.weight_gradient is None for layer in found.layers)
    assert "gradient" not in found.verdict and found.backward.factor is None
    frozen = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).requires_grad_(False)
    assert signals(frozen, torch.randn(4, 3), lambda y: y.sum()).layers[0].gradient_sd is None


def test_a_compiled_model_is_measured_as_the_plain_one():
    """It runs uncompiled meanwhile; names are those of the model inside."""
    torch.manual_seed(0)
    net, x = registry.build(MLPModel(), (6,), 3), torch.randn(8, 6)
    compiled: Any = torch.compile(net, backend="eager")
    compiled(x)
    assert signals(compiled, x, lambda y: y.sum()).as_json() == signals(net, x, lambda y: y.sum()).as_json()


def test_long_names_are_elided():
    """The table keeps its width; both ends of a name stay."""
    net = nn.Sequential()
    net.add_module("a_very_long_name_" * 10 + "end", nn.Linear(2, 2))
    lines = signals(net, torch.ones(2, 2), lambda y: y.sum()).lines()
    assert len(lines[1]) <= WIDTH and lines[1].startswith("a_very") and "_end " in lines[1]
