"""Recurrent network: LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al. 2014)."""

from __future__ import annotations

from torch import Tensor, nn

from stepwell.data.dataset import Kind
from stepwell.nn.configs import RNNModel
from stepwell.nn.kinds import accept


class RNN(nn.Module):
    """Reads x₁ … x_T and answers from its state.

    sequence (B, T, D): y = W h_T + b, (B, outputs).
    image (B, C, H, W): the H rows are the sequence, each of C·W numbers; (B, outputs).
    text (B, T) int64: yₜ = W hₜ + b at every position, (B, T, outputs); the embedding is `width` wide.
    """

    def __init__(self, config: RNNModel, kind: Kind, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "text":
            self.embedding = nn.Embedding(outputs, config.width)
            size = config.width
        else:
            size = input_shape[1] if kind == "sequence" else input_shape[0] * input_shape[2]
        between = config.dropout if config.layers > 1 else 0.0  # torch warns of dropout in one layer alone
        recurrent = nn.LSTM if config.cell == "lstm" else nn.GRU
        self.recurrent = recurrent(size, config.width, config.layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(config.width, outputs)
        self._initialize(config)

    def _initialize(self, config: RNNModel) -> None:
        for name, weight in self.recurrent.named_parameters():
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(weight)
            elif name.startswith("weight_hh"):
                for gate in weight.detach().split(config.width):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.zeros_(weight)
            # An LSTM that forgets nothing at first learns longer dependencies (Jozefowicz et al. 2015);
            # torch adds two biases, so one of them is set. Gates are stored as input, forget, cell, output.
            if config.cell == "lstm" and name.startswith("bias_ih"):
                nn.init.ones_(weight.detach()[config.width : 2 * config.width])
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "text":
            states = self.recurrent(self.embedding(x))[0]  # (B, T, width)
            return self.linear(self.dropout(states))
        if self.kind == "image":
            x = x.movedim(1, 2).flatten(2)  # (B, C, H, W) → (B, H, C·W)
        states = self.recurrent(x)[0]
        return self.linear(self.dropout(states[:, -1]))


def build(config: RNNModel, input_shape: tuple[int, ...], outputs: int, kind: Kind | None = None) -> RNN:
    """An LSTM or GRU of `layers` layers and a linear layer on its state; shapes as in `RNN`.

    Weights from the input start as Xavier's uniform, those from the state orthogonal gate by gate,
    biases at zero but the LSTM's forget gate at one.
    """
    kind = accept(config.name, ("sequence", "image", "text"), kind, input_shape)
    return RNN(config, kind, input_shape, outputs)
