"""Monte-Carlo dropout: closed forms of a linear layer, the same for any batch, only dropout on."""

import math

import pytest
import torch
from torch import nn

import stepwell as sw
from stepwell.errors import UserError
from stepwell.nn import registry
from stepwell.nn.configs import CONFIGS

S = 4000


@pytest.mark.parametrize("kind", ["inverted", "scaled"])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_a_linear_layers_mean_and_variance(kind, p):
    """W (m x): mean W x and variance Σ (w_i x_i)² p/(1−p), times (1−p) and (1−p)²; five standard errors."""
    torch.manual_seed(0)
    net = nn.Sequential(sw.nn.Dropout(p, kind), nn.Linear(6, 2)).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    mean, sd = sw.nn.monte_carlo(net, x, S, seed=3)
    weight, bias = (w.detach() for w in net[1].parameters())
    factor = 1.0 if kind == "inverted" else 1 - p
    variance = (x.unsqueeze(1) * weight).square().sum(-1) * p / (1 - p) * factor**2
    assert ((mean - (factor * x @ weight.T + bias)).abs() < 5 * (variance / S).sqrt()).all()
    assert ((sd.square() / variance - 1).abs() < 5 * math.sqrt(4 / S)).all()  # of a kurtosis up to 5


def model(name, kind, **options):
    torch.manual_seed(0)
    shapes = {"features": (6,), "image": (2, 6, 6), "sequence": (5, 3), "text": (5,)}
    config = CONFIGS[name].model_validate({"dropout": {"p": 0.4, "kind": kind}, **options})
    data = {"cnn": "image", "resnet": "image", "rnn": "sequence", "transformer": "text"}.get(name, "features")
    x = torch.randint(4, (9, 5)) if data == "text" else torch.randn(9, *shapes[data])
    return registry.build(config, shapes[data], 4, data), x  # type: ignore[arg-type]


MODELS = [
    ("mlp", "inverted", {"norm": "batch"}),
    ("mlp", "scaled", {}),
    ("cnn", "spatial", {"channels": [4, 8]}),
    ("resnet", "inverted", {"depth": 8, "width": 4, "stochastic_depth": 0.5}),
    ("rnn", "inverted", {"width": 4, "layers": 2}),
    ("transformer", "scaled", {"layers": 1, "heads": 2, "width": 8}),
    ("transformer", "spatial", {"layers": 1, "heads": 2, "width": 8}),
]


@pytest.mark.parametrize(("name", "kind", "options"), MODELS)
def test_a_samples_masks_do_not_depend_on_its_batch(name, kind, options):
    """In any batch, at its number, a sample has the same mean and deviation; another seed has others."""
    net, x = model(name, kind, **options)
    modes = [module.training for module in net.modules()]
    state = torch.get_rng_state()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    whole = sw.nn.monte_carlo(net, x, 4, seed=1)
    for part in (slice(0, 2), slice(2, 9), slice(5, 6)):
        found = sw.nn.monte_carlo(net, x[part], 4, seed=1, first=part.start)
        for value, expected in zip(found, whole, strict=True):
            torch.testing.assert_close(value, expected[part], rtol=1e-4, atol=1e-5)
    assert (whole[1] > 0).float().mean() > 0.9
    assert not torch.allclose(sw.nn.monte_carlo(net, x, 4, seed=2)[0], whole[0])
    assert modes == [module.training for module in net.modules()]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_passes_differ_from_one_another_and_layers_too():
    """Two layers of dropout have masks of their own, and each pass new ones."""
    from stepwell.nn.uncertainty import passes

    net = nn.Sequential(sw.nn.Dropout(0.5, "scaled"), sw.nn.Dropout(0.5, "scaled"))
    found = torch.stack(list(passes(net, torch.ones(20, 50), 8)))
    assert abs(found.mean().item() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / found.numel())
    assert abs((found[0] * found[1]).mean().item() - 0.0625) < 5 * math.sqrt(0.0625 / 1000)


def test_refusals():
    """Without dropout all passes are one; one pass has no deviation."""
    with pytest.raises(UserError, match="has no dropout"):
        sw.nn.monte_carlo(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)), torch.ones(3, 2))
    with pytest.raises(UserError, match="give at least 2"):
        sw.nn.monte_carlo(nn.Dropout(0.5), torch.ones(3, 2), 1)
