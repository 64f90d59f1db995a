"""Small networks of every kind, and a closure on each, for tests of curvature and second order."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Recurrent(nn.Module):
    """The last state of a recurrent layer, and a linear layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.out = layer(8, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.out(self.layer(x)[0][:, -1])


class Attention(nn.Module):
    """A transformer block with the given attention, and a linear layer on its mean over time."""

    def __init__(self, attention=F.scaled_dot_product_attention):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 3)
        self.up, self.down, self.attention = nn.Linear(8, 8), nn.Linear(8, 8), attention

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 4)).movedim(-3, 0).transpose(-2, -3)
        x = x + self.attention(q, k, v).transpose(-2, -3).flatten(-2)
        return self.out((x + self.down(F.gelu(self.up(x)))).mean(1))


def plain_attention(q, k, v):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v


NETS = {
    "softmax": lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 3)),
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Tanh(), nn.Linear(5, 3)),
    "cnn": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 6)),
        nn.Conv2d(1, 3, 3),
        nn.GroupNorm(1, 3),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(18, 3),
    ),
    "rnn": lambda: Recurrent(nn.RNN),
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "transformer": Attention,
}


def problem(name):
    """A network in float64 and its closure."""
    torch.manual_seed(0)
    net = NETS[name]().double()
    x, y = torch.randn(12, 6, 8, dtype=torch.float64), torch.randint(3, (12,))
    return net, lambda: F.cross_entropy(net(x), y), x, y
