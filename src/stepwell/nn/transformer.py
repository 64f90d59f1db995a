"""Causal transformer for text (Vaswani et al. 2017, in the form of GPT-2: Radford et al. 2019)."""

from __future__ import annotations

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepwell.data.dataset import Kind
from stepwell.errors import UserError
from stepwell.nn import draws, dropout, stochastic_depth
from stepwell.nn.configs import TransformerModel
from stepwell.nn.kinds import accept
from stepwell.nn.normalization import registry as norms
from stepwell.nn.stochastic_depth import StochasticDepth


class Attention(nn.Module):
    """Aₕ = dropout(softmax(Qₕ Kₕᵀ / √d + M)) Vₕ for each head h, M = −∞ above the diagonal.

    (B, T, C) → (B, T, C). Spatial dropout leaves the softmax alone, which has no channels.
    """

    def __init__(self, config: TransformerModel) -> None:
        super().__init__()
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.heads = config.heads
        spatial = config.dropout is not None and config.dropout.kind == "spatial"
        self.dropout = (
            dropout.Dropout(0.0)
            if config.dropout is None or spatial
            else dropout.Dropout(config.dropout.p, config.dropout.kind)
        )

    def forward(self, x: Tensor) -> Tensor:
        # (B, T, 3C) → three of (B, heads, T, C / heads)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-2, -3)
        drop = self.dropout
        p = drop.p if drop.training else 0.0
        # torch.vmap has no rule for the kernel, and on a CPU there is none with dropout.
        if drop.kind == "scaled" or draws.are_supplied() or (p and x.device.type == "cpu"):
            above = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
            z = (q @ k.mT / sqrt(q.shape[-1])).masked_fill(above, -torch.inf)
            y = drop(z.softmax(-1)) @ v
        else:  # torch draws by itself here, on a GPU in one kernel that does not keep the T × T weights
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        return self.out(y.transpose(-2, -3).flatten(-2))


class Block(nn.Module):
    """x ← x + attention(norm₁(x)); x ← x + W₂ gelu(W₁ norm₂(x)); the inner width is four times the outer.

    Dropout ends each branch; stochastic depth leaves out each by itself, with the block's p.
    """

    branch_ends = ("attention.out", "down")  # with weights of zero the block is y = x

    def __init__(self, config: TransformerModel, depth: StochasticDepth) -> None:
        super().__init__()
        width = config.width
        self.norm1, self.norm2 = (norms.after(config.norm, width, "text") for _ in range(2))
        self.attention = Attention(config)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout, self.depth = dropout.build(config.dropout, channel_dim=-1), depth

    def attend(self, x: Tensor) -> Tensor:
        """The first branch."""
        return self.dropout(self.attention(self.norm1(x)))

    def think(self, x: Tensor) -> Tensor:
        """The second branch, of each position by itself."""
        return self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))

    def forward(self, x: Tensor) -> Tensor:
        x = self.depth(x, self.attend, x)
        return self.depth(x, self.think, x)


class Transformer(nn.Module):
    """(B, T) int64, T ≤ context, → logits (B, T, V) of the next token at every position."""

    def __init__(self, config: TransformerModel, context: int, tokens: int) -> None:
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(tokens, config.width)
        self.position = nn.Embedding(context, config.width)
        self.dropout = dropout.build(config.dropout, channel_dim=-1)
        depths = stochastic_depth.build(config.stochastic_depth, config.layers)
        self.blocks = nn.Sequential(*(Block(config, depth) for depth in depths))
        self.norm = norms.after(config.norm, config.width, "text")
        self.linear = nn.Linear(config.width, tokens)
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weight)
            elif "norm" not in name:
                # Each block adds twice to x: the sum's variance must not grow with depth (GPT-2).
                into_sum = name.endswith(("attention.out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (sqrt(2 * config.layers) if into_sum else 1))
        norms.normalize_weights(config.norm, [m for m in self.blocks.modules() if isinstance(m, nn.Linear)])

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        if length > self.context:
            raise UserError(
                f"the transformer reads {self.context} tokens at most, but got {length}: use the last ones"
            )
        x = self.embedding(x) + self.position.weight[:length]
        return self.linear(self.norm(self.blocks(self.dropout(x))))


def build(
    config: TransformerModel, input_shape: tuple[int, ...], outputs: int, kind: Kind | None = None
) -> Transformer:
    """`layers` pre-norm blocks between an embedding and a linear layer; context = input_shape[0].

    Initialized as GPT-2: weights N(0, 0.02²), those that end a block's branch divided by
    √(2·layers), biases zero.
    """
    accept(config.name, ("text",), kind, input_shape)
    return Transformer(config, input_shape[0], outputs)
