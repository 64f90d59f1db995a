"""LSUV: the variance of every layer's output on the batch is 1, whatever stands between."""

import pytest
import torch
import torch.nn.functional as F
from small_nets import Attention
from torch import nn

import stepwell as sw
from stepwell.errors import UserError
from stepwell.nn.measuring import measuring


class Residual(nn.Module):
    """A block with batch norm, a branch and dropout, functions among the modules."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Dropout(0.5)

    def forward(self, x):
        return x + self.drop(F.relu(self.norm(self.conv(x))))


def plain():
    layers = [part for _ in range(12) for part in (nn.Linear(30, 30), nn.ReLU(), nn.Dropout(0.3))]
    return nn.Sequential(*layers, nn.Linear(30, 4))


NETS = {
    "deep": (plain, torch.randn(64, 30, generator=torch.Generator().manual_seed(0)) * 5),
    "residual": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3), Residual(), Residual(), nn.Flatten(), nn.Linear(216, 3)),
        torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
    ),
    "attention": (Attention, torch.randn(32, 6, 8, generator=torch.Generator().manual_seed(0))),
}


def variances(net, x):
    """Of each Linear's and convolution's output, by hooks of the test's own."""
    found = {}
    for name, module in net.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):

            def note(module, args, output, name=name):
                found[name] = output.var(correction=0).item()

            module.register_forward_hook(note)
    with measuring(net), torch.no_grad():
        net(x)
    return found


@pytest.mark.parametrize("name", NETS)
def test_each_layers_output_has_variance_one(name):
    """Within the tolerance of 0.1, measured layer by layer; weights stay orthogonal up to their scale."""
    make, x = NETS[name]
    torch.manual_seed(1)
    net = make()
    before = variances(make(), x)
    assert sw.nn.initialize(net, "lsuv", batch=x) == []
    after = variances(net, x)
    assert len(after) == len(before) > 3
    assert all(abs(v - 1) <= 0.1 for v in after.values()), after
    assert any(abs(v - 1) > 0.1 for v in before.values())
    for module in net.modules():
        if isinstance(module, nn.Linear):
            values = torch.linalg.svdvals(module.weight)
            torch.testing.assert_close(values, values[:1].expand_as(values), rtol=1e-4, atol=0)


def test_only_weights_change():
    """Buffers, modes, the state of random numbers and the number of hooks are as before."""
    make, x = NETS["residual"]
    net = make().train()
    net[1].eval()
    sw.nn.initialize(net, "orthogonal", generator=torch.Generator().manual_seed(0))
    buffers = {n: (b, b.clone()) for n, b in net.named_buffers()}
    modes, state = [m.training for m in net.modules()], torch.get_rng_state()
    sw.nn.initialize(net, "lsuv", batch=x, generator=torch.Generator().manual_seed(0))
    assert all(b is buffers[n][0] and torch.equal(b, buffers[n][1]) for n, b in net.named_buffers())
    assert modes == [m.training for m in net.modules()] and torch.equal(state, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_shared_layer_and_a_constant_output():
    """A layer that is called twice is scaled at its first call; one whose output is constant stays finite."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.blind = nn.Linear(9, 9), nn.Linear(9, 2)

        def forward(self, x):
            return self.blind(torch.zeros_like(self.layer(self.layer(x))))

    net, x = Twice(), 3 * torch.randn(64, 9)
    sw.nn.initialize(net, "lsuv", batch=(x,))
    assert net.layer(x).var(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert bool(net.blind.weight.isfinite().all())


def test_a_batch_that_does_not_fit_is_one_sentence():
    """The model's own complaint, as a mistake of the user."""
    with pytest.raises(UserError, match="lsuv could not run the model on its batch: mat1 and mat2"):
        sw.nn.initialize(nn.Sequential(nn.Linear(3, 3)), "lsuv", batch=torch.ones(2, 4))
    with pytest.raises(UserError, match="lsuv needs a batch of inputs"):
        sw.nn.initialize(nn.Linear(3, 3), "lsuv")
