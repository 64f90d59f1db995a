"""The range test in a loop of one's own: it finds the rate and leaves no trace."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import stepwell as sw
from stepwell.errors import UserError
from stepwell.populations.own_loop import as_before
from stepwell.training.reproducible import random_state


def quadratic(curvature: float, noise: float = 0.0, seed: int = 0) -> tuple[nn.Linear, Any, Any]:
    """½ λ w² in each of 50 weights, whose gradient descent diverges above η = 2/λ."""
    torch.manual_seed(seed)
    model = nn.Linear(50, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1 / curvature)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        away = model.weight + noise * torch.randn_like(model.weight)
        loss = curvature / 2 * away.square().sum()
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step


@pytest.mark.parametrize("curvature", [1e-3, 1.0, 1e4])
def test_the_upper_end_is_where_gradient_descent_diverges(curvature: float):
    """On a quadratic the usable rates end above 2/λ, at less than four times that; the pick lies below.

    The loss has sunk to rounding there, and needs some 15 updates beyond 2/λ to be seen rising.
    """
    found = sw.range_test(*quadratic(curvature))
    assert 1 < found["high"] / (2 / curvature) < 4
    assert found["low"] < found["rate"] < 2 / curvature
    assert found["losses"][0][-1] is None  # it has blown up


def test_with_noise_the_upper_end_is_where_its_variance_shows():
    """SGD with noisy gradients settles at the loss c (1 + a/(2 − a)), a = ηλ, c the noise's own.

    With a fall F that exceeds 0.02 F where a/(2 − a) = 0.02 F/c: here at a = 0.5. A factor of 2 is allowed.
    """
    model, optimizer, step = quadratic(1.0, noise=0.02)
    own, fall = 50 * 0.02**2, float(model.weight.detach().square().sum())
    ratio = 0.02 * fall / own
    found = sw.range_test(model, optimizer, step)
    assert 0.5 < found["high"] / (2 * ratio / (1 + ratio)) < 2


def test_a_fall_that_drowns_in_noise_is_none():
    """Where the loss's noise is seven times its whole fall, at most one of ten seeds shows a rate."""
    found = []
    for seed in range(10):
        with contextlib.suppress(UserError):
            found.append(sw.range_test(*quadratic(1.0, noise=0.5, seed=seed)))
    assert len(found) <= 1


class Net(nn.Module):
    """Batch norm's buffers, dropout's draws, a frozen weight, and a buffer that a forward rebinds."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.one.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        return self.two(F.dropout(F.relu(self.norm(self.one(x))), 0.3, self.training))


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "torch sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "torch adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True),
    "torch adamw, rate in a tensor": lambda p: torch.optim.AdamW(p, lr=torch.tensor(1e-3), capturable=False),
    "torch lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2),
    "adamw": lambda p: sw.optim.AdamW(p, lr=1e-3, ema=0.9, clip_norm=1.0),
    "shampoo": lambda p: sw.optim.Shampoo(p, lr=0.1),
    "schedule-free": lambda p: sw.optim.ScheduleFreeAdamW(p, lr=1e-3),
    "lookahead": lambda p: sw.optim.Lookahead(sw.optim.SGD(p, lr=0.01, momentum=0.9)),
}


def prepared(name: str) -> tuple[Net, Any, Callable[[], torch.Tensor]]:
    """A net, an optimizer that has made three updates, and its step."""
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    net = Net()
    optimizer = OPTIMIZERS[name]([p for p in net.parameters() if p.requires_grad])
    x, y = torch.randn(32, 6), torch.randint(3, (32,))

    def loss() -> torch.Tensor:
        optimizer.zero_grad(set_to_none="torch" in name)  # with False the very tensors are overwritten
        found = F.cross_entropy(net(x + 0.01 * random.random() * np.random.rand()), y)
        found.backward()
        return found

    def step() -> torch.Tensor:
        if "lbfgs" in name:
            return optimizer.step(loss)
        found = loss()
        optimizer.step()
        return found

    for _ in range(3):
        step()
    return net, optimizer, step


def flat(value: Any) -> Any:
    """A nested state with its tensors as bytes, to be compared bit for bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(v) for key, v in value.items()}
    return [flat(v) for v in value] if isinstance(value, (list, tuple)) else value


def everything(net: Net, optimizer: Any) -> Any:
    """All that training depends on."""
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return flat(
        {
            **{name: [t, t.requires_grad, t.grad] for name, t in tensors.items()},
            "modes": [m.training for m in net.modules()],
            "optimizer": optimizer.state_dict(),
            "random": random_state(torch.device("cpu")),  # of torch, NumPy and Python
        }
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_is_as_it_was(name: str):
    """Bit for bit, whichever optimizer; and training goes on as if there had been no test."""
    net, optimizer, step = prepared(name)
    weights, before = list(net.parameters()), everything(net, optimizer)
    found = sw.range_test(net, optimizer, step, low=1e-5, high=10.0, updates=60)
    assert found["rate"]
    assert everything(net, optimizer) == before
    assert all(a is b for a, b in zip(net.parameters(), weights, strict=True))
    losses = [step().item() for _ in range(5)]
    untouched = prepared(name)
    assert [untouched[2]().item() for _ in range(5)] == losses
    assert everything(net, optimizer) == everything(*untouched[:2])


@pytest.mark.parametrize("name", ["torch adamw", "adamw", "lookahead"])
def test_also_after_an_error(name: str):
    """A step that raises halfway, the model in another mode and a weight frozen, leaves no trace."""
    net, optimizer, step = prepared(name)
    before, calls = everything(net, optimizer), []

    def failing() -> torch.Tensor:
        loss = step()
        calls.append(loss)
        if len(calls) == 9:
            net.eval()
            net.one.weight.requires_grad_(False)
            net.two.weight.grad = None
            raise RuntimeError("out of data")
        return loss

    with pytest.raises(RuntimeError, match="out of data"):
        sw.range_test(net, optimizer, failing)
    assert len(calls) == 9 and everything(net, optimizer) == before


def test_a_fresh_optimizer_stays_fresh():
    """No state is left of one that has not made a step, nor gradients."""
    model, optimizer, step = quadratic(1.0)
    with as_before(model, optimizer):
        step()
        assert len(optimizer.state_dict()["param_groups"]) == 1 and model.weight.grad is not None
    assert not optimizer.state and model.weight.grad is None


def test_groups_keep_their_ratios():
    """With groups at 0.1 and 0.01 the rate is that of the first, and the second has a tenth of it."""
    model = nn.Linear(3, 1)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.01}]
    optimizer, seen = torch.optim.SGD(groups, lr=0.1), []

    def step() -> float:
        seen.append([group["lr"] for group in optimizer.param_groups])
        return 1 / (1 + len(seen))

    found = sw.range_test(model, optimizer, step, low=1e-3, high=1.0, updates=20)
    np.testing.assert_allclose([rates[0] for rates in seen], found["rates"])
    np.testing.assert_allclose([rates[1] for rates in seen], np.array(found["rates"]) / 10)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]


@pytest.mark.parametrize(
    ("loss", "what"),
    [
        (1.0, "no rate between .* lowers the loss"),
        (float("nan"), "not finite before the first update"),
        (None, "step returned NoneType"),
        (torch.zeros(3), r"a tensor of shape \[3\]"),
    ],
)
def test_what_is_wrong_is_said(loss: Any, what: str):
    """A loss that stays, is none, or is no number."""
    model, optimizer, _ = quadratic(1.0)
    with pytest.raises(UserError, match=what):
        sw.range_test(model, optimizer, lambda: copy.copy(loss))


def test_an_optimizer_without_a_number_is_refused():
    """A rate of 0, and one that is a schedule, which would set it anew."""
    model = nn.Linear(2, 1)
    with pytest.raises(UserError, match="no learning rate above 0"):
        sw.range_test(model, torch.optim.SGD(model.parameters(), lr=0.0), lambda: 1.0)
    with pytest.raises(UserError, match="is a schedule"):
        sw.range_test(model, sw.optim.SGD(model.parameters(), lr=lambda step: 0.1), lambda: 1.0)
