"""Dead and saturated units in training: exact counts, and training that does not notice."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import stepwell as sw
from stepwell.nn.activations import Activations
from stepwell.nn.units import ENOUGH, Units


class Own(nn.Module):
    """A module that nobody knows: functions, dropout, noise; `fails` in its second pass on a batch."""

    def __init__(self, fails=False):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)
        self.drop, self.fails, self.passes = nn.Dropout(0.5), fails, 0

    def forward(self, x):
        self.passes += 1
        if self.fails and not torch.is_grad_enabled():
            raise RuntimeError("only once")
        noisy = self.one(x) + 0.1 * torch.randn(1)  # in evaluation mode too
        return torch.tanh(self.two(self.drop(F.relu(self.norm(noisy)))))


def known():
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4), nn.Tanh()]
    return nn.Sequential(*layers)


def test_a_unit_is_dead_after_a_thousand_silent_samples_and_alive_at_its_first_sign():
    """Planted: 2 of 8 dead; nothing is said before 1,000 samples; one sample above zero revives a unit."""
    net: Any = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    units, found = Units(), []
    with torch.no_grad():
        net[0].weight.abs_()
        net[0].bias.fill_(0.1)
        net[0].bias[[2, 5]] = -100.0
    for _ in range(11):
        with units.watching(net):
            net(torch.rand(100, 4))
        found.append(units.commit()["1"]["dead"])
    assert found == [None] * 9 + [0.25, 0.25]
    x = torch.rand(100, 4)
    x[7] = 1e4
    with units.watching(net):
        net(x)
    assert units.commit() == {"1": {"dead": 0.0}}
    assert units.counts["1"].tolist() == [0] * 8 + [1200] and ENOUGH == 1000


def test_a_unit_that_is_zero_for_most_samples_is_not_dead():
    """One that answers to one sample in a hundred is healthy, though 99 % of its outputs are zero."""
    net: Any = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    units = Units()
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.fill_(-99.5)
    for _ in range(20):
        with units.watching(net):
            y = net(torch.arange(1.0, 101.0)[:, None])
        assert (y > 0).sum() == 1
        shares = units.commit()
    assert shares == {"1": {"dead": 0.0}}


def test_the_saturated_share_is_that_of_the_batch():
    """Counted by hand: outputs with y² above 0.95, or (2y − 1)² for sigmoid."""
    net, units, x = nn.Sequential(nn.Tanh(), nn.Sigmoid()), Units(), torch.randn(50, 9) * 3
    with units.watching(net):
        net(x)
    a, b = torch.tanh(x), torch.sigmoid(torch.tanh(x))
    wanted = [(v.square() > 0.95).double().mean().item() for v in (a, 2 * b - 1)]
    assert [s["saturated"] for s in units.commit().values()] == pytest.approx(wanted)


def test_several_passes_of_an_update_count_together():
    """Accumulated batches: the samples of all, and a unit is alive if it is in any."""
    net: Any = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    units = Units()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net[0].bias.zero_()
    with units.watching(net):
        net(torch.ones(600, 1))
        net(-torch.ones(500, 1))
    assert units.commit() == {"1": {"dead": 0.0}} and units.counts["1"].tolist() == [500, 0, 1100]
    with units.watching(net):
        net(torch.ones(1000, 1))
        net(torch.ones(100, 1))
    assert units.commit() == {"1": {"dead": 0.5}}


def test_what_is_discarded_has_not_been_seen():
    """An update that is rolled back leaves the counts as they were."""
    net: Any = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    units = Units()
    with units.watching(net):
        net(torch.ones(5, 1))
    units.discard()
    assert units.commit() == {} and units.counts == {}


def train(net, steps, watch):
    """A loop with dropout and batch norm; returns every tensor it ends with."""
    torch.manual_seed(3)
    optimizer, units = torch.optim.SGD(net.parameters(), lr=0.1), Units()
    for _ in range(steps):
        x = torch.randn(32, 6)
        optimizer.zero_grad()
        if watch:
            with units.watching(net):
                loss = net(x).square().mean()
        else:
            loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        units.commit()
    return {**net.state_dict(), "loss": loss.detach(), "random": torch.get_rng_state()}


@pytest.mark.parametrize(
    "make", [known, Own, lambda: Own(fails=True), lambda: torch.compile(Own(), backend="eager")]
)
def test_training_does_not_notice(make):
    """Weights, buffers, loss and random state are bit for bit those without watching; a failure is none."""
    net = make()
    found = [train(copy.deepcopy(net), 5, watch) for watch in (False, True)]
    assert all(torch.equal(v, found[1][name]) for name, v in found[0].items())


def test_code_that_is_not_ours_runs_again_afterwards():
    """Twice a look, with the very batch, and its functions are seen where they are called."""
    net, units = Own(), Units()
    with units.watching(net):
        net(torch.randn(16, 6))
        assert net.passes == 1
    assert net.passes == 2 and list(units.commit()) == [":relu", ":tanh"]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_an_error_in_the_model_is_the_models():
    """It comes out as it is, hooks are gone, and nothing was seen."""
    for net in (known(), Own()):
        units = Units()
        with pytest.raises(RuntimeError, match="mat1 and mat2"), units.watching(net):
            net(torch.randn(4, 5))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
        assert units.commit() == {}


def test_an_error_in_the_watching_is_kept_to_itself():
    """The forward pass ends, and says what went wrong."""

    def seen(activation):
        raise ValueError("no")

    with Activations(known(), seen) as activations:
        y = activations._model(torch.randn(4, 6))
    assert y.shape == (4, 4) and isinstance(activations.failure, ValueError)


def test_a_loop_of_ones_own():
    """Norms of gradient, update and weight by hand, at every second step; printed as a table."""
    torch.manual_seed(0)
    net: Any = Own()
    flow, optimizer = sw.nn.GradientFlow(net, every=2), torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(1, 5):
        before = net.one.weight.detach().clone()
        optimizer.zero_grad()
        with flow:
            net(torch.randn(500, 6)).square().mean().backward()
            optimizer.step()
        if step == 4:
            g, w = net.one.weight.grad, net.one.weight.detach()
            wanted = [g.norm(), (w - before).norm(), w.norm()]
            found = flow.rows[-1]["layers"]["one.weight"]
            assert [found[k] for k in ("grad", "update", "weight")] == pytest.approx(
                [v.item() for v in wanted]
            )
    assert [row["update"] for row in flow.rows] == [2, 4]
    assert [row["units"][":relu"]["dead"] for row in flow.rows] == [None, 0.0]
    assert "one.weight" in str(flow) and ":relu" in str(flow) and "dead: 0%" in str(flow)
    with pytest.raises(sw.UserError, match="every=0"):
        sw.nn.GradientFlow(net, every=0)
