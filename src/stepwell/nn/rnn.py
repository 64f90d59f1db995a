"""Recurrent network: LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al. 2014)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from torch import Tensor, nn

from stepwell.data.dataset import Kind
from stepwell.errors import UserError
from stepwell.nn import dropout
from stepwell.nn.configs import RNNModel
from stepwell.nn.kinds import accept
from stepwell.nn.normalization import registry as norms
from stepwell.nn.recurrence import GRU, LSTM

Build = Callable[[], nn.Module]


class Stack(nn.Module):
    """Recurrent layers on top of each other, a norm after each, dropout between them.

    (B, T, D) → ((B, T, width), None). torch's own stack, whose numbers it has without norm and dropout,
    has no place for a norm, and draws its dropout by itself. Each dropout is a module of its own, so that
    one can be off, where its layer is frozen, while the others are on.
    """

    def __init__(
        self, layer: type[nn.LSTM] | type[nn.GRU], sizes: list[int], norm: Build, drop: Build
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(size, width, batch_first=True) for size, width in pairwise(sizes))
        self.norms = nn.ModuleList(norm() for _ in self.layers)
        self.dropouts = nn.ModuleList(drop() for _ in sizes[2:])

    def in_order(self) -> Iterator[nn.Module]:
        """Yields the modules in the order in which they act, which is not that of their names."""
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            yield from [*self.dropouts[number - 1 : number], layer, norm]

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        for module in self.in_order():
            found = module(x)
            x = found[0] if isinstance(module, nn.RNNBase) else found
        return x, None


class RNN(nn.Module):
    """Reads x₁ … x_T and answers from its state.

    sequence (B, T, D): y = W h_T + b, (B, outputs).
    image (B, C, H, W): the H rows are the sequence, each of C·W numbers; (B, outputs).
    text (B, T) int64: yₜ = W hₜ + b at every position, (B, T, outputs); the embedding is `width` wide.

    With a norm, h are the normalized states; dropout is between layers and before W.
    """

    def __init__(self, config: RNNModel, kind: Kind, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "text":
            self.embedding = nn.Embedding(outputs, config.width)
            size = config.width
        else:
            size = input_shape[1] if kind == "sequence" else input_shape[0] * input_shape[2]
        layer = LSTM if config.cell == "lstm" else GRU
        if config.norm.kind == "none" and (config.dropout is None or config.layers == 1):
            self.recurrent: nn.Module = layer(size, config.width, config.layers, batch_first=True)
        else:
            order = "text" if kind == "text" else "sequence"
            steps = input_shape[1] if kind == "image" else input_shape[0]
            sizes = [size] + [config.width] * config.layers
            self.recurrent = Stack(
                layer,
                sizes,
                lambda: norms.after(config.norm, config.width, order, steps),
                lambda: dropout.build(config.dropout, channel_dim=-1),
            )
        self.dropout = dropout.build(config.dropout, channel_dim=-1)  # where it acts: it is the head's
        self.linear = nn.Linear(config.width, outputs)
        self._initialize(config)

    def _initialize(self, config: RNNModel) -> None:
        for module in self.recurrent.modules():
            if isinstance(module, nn.RNNBase):
                _initialize(module, config)
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


def _initialize(recurrent: nn.RNNBase, config: RNNModel) -> None:
    for name, weight in recurrent.named_parameters():
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


def build(config: RNNModel, input_shape: tuple[int, ...], outputs: int, kind: Kind | None = None) -> RNN:
    """An LSTM or GRU of `layers` layers and a linear layer on its state; shapes as in `RNN`.

    Weights from the input start as Xavier's uniform, those from the state orthogonal gate by gate,
    biases at zero but the LSTM's forget gate at one.
    """
    kind = accept(config.name, ("sequence", "image", "text"), kind, input_shape)
    if config.dropout is not None and config.dropout.kind == "spatial" and kind != "text":
        raise UserError(
            "model.dropout.kind=spatial is of a whole channel over time, and this rnn answers from its last "
            "state: use inverted"
        )
    return RNN(config, kind, input_shape, outputs)
