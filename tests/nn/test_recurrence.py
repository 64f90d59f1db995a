"""LSTM and GRU under torch.vmap, against torch's own kernels one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state

from stepwell.nn.recurrence import GRU, LSTM

PAIRS = [(LSTM, nn.LSTM), (GRU, nn.GRU)]


@pytest.mark.parametrize(("ours", "torchs"), PAIRS)
@pytest.mark.parametrize(("layers", "bias"), [(1, True), (2, True), (1, False)])
def test_mapped_it_is_torchs(ours, torchs, layers, bias):
    """Outputs and all gradients of three members, in float64, each alone in torch's layer."""
    torch.manual_seed(0)
    members = [ours(3, 5, layers, bias=bias, batch_first=True, dtype=torch.float64) for _ in range(3)]
    state, _ = stack_module_state(members)
    x = torch.randn(3, 4, 7, 3, dtype=torch.float64, requires_grad=True)
    y = torch.vmap(lambda own, x: functional_call(members[0], own, (x,))[0])(state, x)
    y.square().sum().backward()
    for k, member in enumerate(members):
        alone = torchs(3, 5, layers, bias=bias, batch_first=True, dtype=torch.float64)
        alone.load_state_dict(member.state_dict())
        own = x.detach()[k].requires_grad_()
        wanted = alone(own)[0]
        wanted.square().sum().backward()
        torch.testing.assert_close(y[k], wanted, rtol=1e-12, atol=1e-14)
        assert x.grad is not None and own.grad is not None
        torch.testing.assert_close(x.grad[k], own.grad, rtol=1e-11, atol=1e-13)
        for name, p in alone.named_parameters():
            found = state[name].grad
            assert found is not None and p.grad is not None
            torch.testing.assert_close(found[k], p.grad, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("ours", "torchs"), PAIRS)
def test_alone_it_is_torchs_bit_for_bit(ours, torchs):
    """Without vmap torch's kernel runs, and gives the last state too."""
    torch.manual_seed(0)
    layer, other = ours(3, 5, batch_first=True), torchs(3, 5, batch_first=True)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 6, 3)
    assert torch.equal(layer(x)[0], other(x)[0])
    assert all(map(torch.equal, layer(x)[1], other(x)[1]))


def test_what_cannot_be_mapped_is_refused():
    """Dropout between torch's layers would draw the same for all."""
    layer = LSTM(3, 5, 2, batch_first=True, dropout=0.5)
    with pytest.raises(RuntimeError, match="cannot be stacked"):
        torch.vmap(lambda x: layer(x)[0])(torch.randn(2, 4, 6, 3))
