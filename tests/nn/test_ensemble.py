"""An ensemble's network: the mean of its members' predictions, in one module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stepwell.nn.ensemble import Ensemble, members_of, together
from stepwell.nn.network import Network, Predictor
from stepwell.nn.views import Views

TASKS = ["binary", "multi-class", "multi-label", "regression"]


def networks(task, count):
    """Networks that differ by their bodies alone, in float64."""
    shift, scale = torch.randn(6).double(), torch.rand(6).double() + 0.5
    around = (torch.tensor([3.0, -1, 50]).double(), torch.tensor([2.0, 1, 30]).double())
    bodies = [nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double() for _ in range(count)]
    return [Network(body, "features", task, shift, scale, *around).eval() for body in bodies]


def whole(single):
    return single[0].around(Ensemble([one.body for one in single], single[0].task)).eval()


def slow(network, x):
    """What one member predicts, in NumPy, step by step."""
    x = network.input_offset.numpy() + x.numpy() * network.input_scale.numpy()
    first, _, last = network.body
    h = np.maximum(x @ first.weight.detach().numpy().T + first.bias.detach().numpy(), 0)
    z = h @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    if network.task == "regression":
        return z * network.target_std.numpy() + network.target_mean.numpy()
    if network.task == "multi-label":
        return 1 / (1 + np.exp(-z))
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


@pytest.mark.parametrize("task", TASKS)
def test_prediction_is_the_mean_of_the_members_predictions(task):
    """To 1e-12 in float64, against each member computed in NumPy; `Predictor` gives the same."""
    torch.manual_seed(0)
    single, x = networks(task, 4), torch.randn(50, 6).double()
    mean = np.mean([slow(one, x) for one in single], axis=0)
    with torch.no_grad():
        np.testing.assert_allclose(whole(single).predict(x).numpy(), mean, rtol=1e-12, atol=1e-12)
        assert torch.equal(Predictor(whole(single))(x), whole(single).predict(x))
        logits = single[0].decode(torch.stack([one(x) for one in single]).mean(0))
    assert task == "regression" or not np.allclose(logits.numpy(), mean, rtol=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_an_ensemble_of_one_is_that_one(task):
    """M = 1 predicts what the single network does."""
    torch.manual_seed(1)
    (single,), x = networks(task, 1), torch.randn(20, 6).double()
    with torch.no_grad():
        torch.testing.assert_close(whole([single]).predict(x), single.predict(x), rtol=1e-12, atol=1e-14)
    assert members_of(single) == [single]


@pytest.mark.parametrize("task", TASKS)
def test_a_state_dict_of_members_is_the_ensembles(task):
    """`together` names what the ensemble's own state dict names, and `members_of` takes it apart again."""
    torch.manual_seed(2)
    single, x = networks(task, 3), torch.randn(20, 6).double()
    other = whole(networks(task, 3))
    other.load_state_dict(together([one.state_dict() for one in single]))
    for one, found in zip(single, members_of(other), strict=True):
        assert torch.equal(one.predict(x), found.predict(x))
    single[1].input_scale += 1
    with pytest.raises(ValueError, match="statistics"):
        together([one.state_dict() for one in single])


def test_views_are_averaged_too():
    """With views the ensemble's prediction is the mean over members and views of single predictions."""
    torch.manual_seed(3)
    bodies = [nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5)).double() for _ in range(3)]
    one = torch.ones((), dtype=torch.float64)
    single = [Network(body, "image", "multi-class", 0 * one, one) for body in bodies]
    ensemble = single[0].around(Ensemble(bodies, "multi-class"))
    x = torch.randn(7, 3, 4, 4).double()
    mean = torch.stack([n.predict(view) for n in single for view in (x, x.flip(-1))]).mean(0)
    ensemble.views = Views("flip")
    torch.testing.assert_close(ensemble.predict(x), mean, rtol=1e-12, atol=1e-14)
    assert all(member.views == ensemble.views for member in members_of(ensemble))


def test_text_has_the_mean_of_probabilities_at_every_place():
    """(B, T, V): log p̄ as outputs, so that the loss is that of the mean."""
    torch.manual_seed(4)
    bodies = [nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9)).double() for _ in range(3)]
    tokens = torch.randint(0, 9, (5, 6))
    network = Network(Ensemble(bodies, "text"), "text", "text")
    p = torch.stack([body(tokens).softmax(-1) for body in bodies]).mean(0)
    torch.testing.assert_close(network(tokens), p.log(), rtol=1e-12, atol=1e-12)
