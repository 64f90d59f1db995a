"""Causal transformer for text (Vaswani et al. 2017, in the form of GPT-2: Radford et al. 2019)."""

from __future__ import annotations

from math import sqrt

import torch.nn.functional as F
from torch import Tensor, nn

from stepwell.data.dataset import Kind
from stepwell.errors import UserError
from stepwell.nn.configs import TransformerModel
from stepwell.nn.kinds import accept


class Attention(nn.Module):
    """Aₕ = softmax(Qₕ Kₕᵀ / √d + M) Vₕ for each head h, M = −∞ above the diagonal; (B, T, C) → (B, T, C)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.heads, self.dropout = heads, dropout

    def forward(self, x: Tensor) -> Tensor:
        # (B, T, 3C) → three of (B, heads, T, C / heads)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-2, -3)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        return self.out(y.transpose(-2, -3).flatten(-2))


class Block(nn.Module):
    """x ← x + attention(norm₁(x)); x ← x + W₂ gelu(W₁ norm₂(x)); the inner width is four times the outer."""

    branch_ends = ("attention.out", "down")  # for zero_init_residual

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))


class Transformer(nn.Module):
    """(B, T) int64, T ≤ context, → logits (B, T, V) of the next token at every position."""

    def __init__(self, config: TransformerModel, context: int, tokens: int) -> None:
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(tokens, config.width)
        self.position = nn.Embedding(context, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.Sequential(
            *(Block(config.width, config.heads, config.dropout) for _ in range(config.layers))
        )
        self.norm = nn.LayerNorm(config.width)
        self.linear = nn.Linear(config.width, tokens)
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weight)
            elif "norm" not in name:
                # Each block adds twice to x: the sum's variance must not grow with depth (GPT-2).
                into_sum = name.endswith(("attention.out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (sqrt(2 * config.layers) if into_sum else 1))

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
