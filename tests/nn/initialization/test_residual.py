"""Residual branches that begin at zero: every block is the identity."""

from typing import Any

import pytest
import torch
from torch import nn

import stepwell as sw
from stepwell.errors import UserError
from stepwell.nn import registry
from stepwell.nn.configs import MLPModel, ResNetModel, TransformerModel


def blocks(net, x):
    """Inputs and outputs of each block, of a forward in training mode."""
    seen = []
    for block in net.blocks:
        block.register_forward_hook(lambda m, a, y: seen.append((a[0], y)))
    net.train()(x)
    return seen


def test_a_resnets_blocks_are_relu_of_their_input():
    """γ and β of each block's last norm are zero: bit for bit, where a block does not change the size."""
    net = registry.build(ResNetModel(depth=8, width=4), (3, 8, 8), 5)
    assert sw.nn.zero_init_residual(net) == [f"blocks.{k}.norm2" for k in range(3)]
    seen = blocks(net, torch.randn(4, 3, 8, 8))
    assert torch.equal(seen[0][1], torch.relu(seen[0][0]))
    halved = seen[1][0][:, :, ::2, ::2]
    assert torch.equal(seen[1][1][:, :4], torch.relu(halved)) and not seen[1][1][:, 4:].any()


def test_a_transformers_blocks_are_the_identity():
    """Both branches of each block end in zero; before, no block is."""
    net = registry.build(TransformerModel(layers=3, heads=2, width=8), (6,), 11, "text")
    x = torch.randint(11, (2, 6))
    assert not any(torch.equal(a, y) for a, y in blocks(net, x))
    assert len(sw.nn.zero_init_residual(net)) == 6
    assert all(torch.equal(a, y) for a, y in blocks(net, x))


class Block(nn.Module):
    """y = x + end(layer(x))"""

    branch_ends = ("end",)

    def __init__(self, end):
        super().__init__()
        self.layer, self.end = nn.Linear(4, 4), end

    def forward(self, x):
        return x + self.end(self.layer(x))


def test_a_branch_whose_norm_is_left_out_ends_in_the_layer_before():
    """With Identity as its norm; the block is then the identity as well."""
    net = nn.Sequential(Block(nn.Identity()))
    assert sw.nn.zero_init_residual(net) == ["0.layer"]
    x = torch.randn(3, 4)
    assert torch.equal(net(x), x)


def test_what_has_no_branch_or_cannot_be_zero_is_refused():
    """An MLP; a weight that is a direction. The weight stays as it was."""
    with pytest.raises(UserError, match="Sequential has no residual branch"):
        sw.nn.zero_init_residual(registry.build(MLPModel(), (3,), 2))
    net: Any = Block(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)).eval())
    before = net.end.weight.clone()
    with pytest.raises(UserError, match="cannot begin at zero with _SpectralNorm"):
        sw.nn.zero_init_residual(net)
    torch.testing.assert_close(net.end.weight, before)
