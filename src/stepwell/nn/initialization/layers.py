"""The start of a whole model, layer by layer, each by its kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from stepwell.errors import UserError
from stepwell.nn.initialization.lsuv import scale_to_unit_variance
from stepwell.nn.initialization.schemes import Scheme, scheme_named

Values = Iterator[tuple[str, Tensor]]  # a parameter's name in its module, and what to put there
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
SETTLING = 15  # power iterations of a spectral norm on its new weight, as torch's at its start


def initialize(
    model: nn.Module,
    scheme: str = "he",
    *,
    gain: float | None = None,
    batch: Any = None,
    generator: Generator | None = None,
) -> list[str]:
    """Starts all layers of any model anew by a scheme, in place; returns the names of what it left alone.

    scheme: "xavier-uniform" (or "xavier"), "xavier-normal", "he-uniform", "he-normal" (or "he"),
    "orthogonal", "lsuv"; and the bad ones "zeros", "small-normal", "large-normal". gain: of the layers
    that an activation follows; default √2 for He (ReLU), else 1. batch: what the model is called with,
    for lsuv alone; a tuple is several arguments. generator: on the CPU, where all numbers are drawn, so
    that a seed gives the same weights on every device.

    | layer | weights | the rest |
    |---|---|---|
    | Linear, Bilinear, Conv | the scheme, each group of channels by itself | bias 0 |
    | ConvTranspose | the same · √(∏ stride), since only 1/∏ stride of the window reaches an output | bias 0 |
    | Embedding | N(0, 1), uniform U(−√3, √3): an output is one row, fans play no part | padding 0 |
    | RNN, LSTM, GRU and their cells | from the input the scheme, gate by gate; from the state orthogonal |
      bias 0, the LSTM's forget gate 1 (Jozefowicz et al. 2015) |
    | MultiheadAttention | query, key, value and output each a matrix of its own | bias 0 |
    | normalization | 1 | 0 |

    The gain is 1 where no ReLU can follow: in gates (but of an RNN with ReLU), in attention, and in the
    last layer of the model. What follows any other layer is not looked at: with "he" each counts as
    followed by a ReLU. The bad schemes fill embeddings and recurrent weights too.

    Left alone: frozen weights, and parameters of modules that are none of these. A weight that several
    layers share is drawn once; as a layer's, if it is an embedding's too. Parametrized weights (weight norm,
    spectral norm) are assigned through their parametrization.

    >>> net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> initialize(net, "he", generator=torch.Generator().manual_seed(0))
    []

    Raises UserError for a weight that cannot be set, before anything is changed; one that a parametrization
    turns into NaN is seen only then. Differs from applying
    torch.nn.init to each layer in the grouped and transposed convolutions, whose fans torch mistakes.
    """
    name, chosen = scheme_named(scheme)
    if (name == "lsuv") != (batch is not None):
        have = "needs a batch of inputs to measure on" if batch is None else "has no use for a batch"
        raise UserError(
            f"the scheme {name} {have}: initialize(model, {name!r}{', batch=x' * (batch is None)})"
        )
    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, KINDS_OF_LAYERS)]
    for path, module in layers:
        _require_settable(path, module)
    last = next((m for _, m in reversed(layers) if isinstance(m, MATRICES)), None)
    done: set[int] = set()
    with torch.no_grad():
        # Embeddings last: a matrix that is also a layer's must suit the layer, or logits would explode.
        for path, module in sorted(layers, key=lambda layer: isinstance(layer[1], EMBEDDINGS)):
            own = chosen.gain if gain is None else gain
            draw = Draw(chosen, name.endswith("uniform"), 1.0 if module is last else own, generator)
            _fill(path, module, draw, done)
    if name == "lsuv":
        scale_to_unit_variance(model, batch)
    return [n for n, p in model.named_parameters() if id(p) not in done]


@dataclass(frozen=True)
class Draw:
    """Draws weights of one scheme. gain: of a layer that an activation follows."""

    scheme: Scheme
    uniform: bool
    gain: float
    generator: Generator | None

    def matrix(self, like: Tensor, gain: float | None = None) -> Tensor:
        """A new weight of this shape, units × inputs × window."""
        return self.scheme.fill(_empty(like), self.gain if gain is None else gain, self.generator)

    def stack(self, like: Tensor, count: int, gain: float | None = None) -> Tensor:
        """`count` matrices on top of each other: gates, or groups of channels."""
        return torch.cat([self.matrix(part, gain) for part in like.chunk(count)])

    def recurrent(self, like: Tensor, gates: int) -> Tensor:
        """Weights from the state: orthogonal keeps its length over many steps (Saxe et al. 2014)."""
        if self.scheme.bad:
            return self.stack(like, gates)
        parts = like.chunk(gates)
        return torch.cat([nn.init.orthogonal_(_empty(p), generator=self.generator) for p in parts])

    def rows(self, like: Tensor) -> Tensor:
        """Rows of an embedding, of variance 1."""
        if self.scheme.bad:
            return self.matrix(like)
        if self.uniform:
            return _empty(like).uniform_(-math.sqrt(3.0), math.sqrt(3.0), generator=self.generator)
        return _empty(like).normal_(generator=self.generator)


def _linear(module: Any, draw: Draw) -> Values:
    yield "weight", draw.matrix(module.weight)


def _convolution(module: Any, draw: Draw) -> Values:
    yield "weight", draw.stack(module.weight, module.groups)


def _transposed(module: Any, draw: Draw) -> Values:
    gain = draw.gain * math.sqrt(math.prod(module.stride))
    # torch keeps (inputs, units per group, window): each group is turned to units first, and back.
    parts = [draw.matrix(part.transpose(0, 1), gain) for part in module.weight.chunk(module.groups)]
    yield "weight", torch.cat([part.transpose(0, 1) for part in parts])


def _embedding(module: Any, draw: Draw) -> Values:
    rows = draw.rows(module.weight)
    if module.padding_idx is not None:
        rows[module.padding_idx] = 0.0
    yield "weight", rows


def _recurrent(module: Any, draw: Draw) -> Values:
    gates = module.weight_hh.shape[0] if isinstance(module, nn.RNNCellBase) else module.weight_hh_l0.shape[0]
    gates //= module.hidden_size
    # Gates end in sigmoid and tanh.
    gain = (
        draw.gain
        if getattr(module, "nonlinearity", getattr(module, "mode", "")).lower().endswith("relu")
        else 1.0
    )
    for name, weight in module.named_parameters(recurse=False):
        if name.startswith("weight_ih"):
            yield name, draw.stack(weight, gates, gain)
        elif name.startswith("weight_hh"):
            yield name, draw.recurrent(weight, gates)
        elif name.startswith("weight_hr"):  # an LSTM's projection of its state
            yield name, draw.matrix(weight, 1.0)
        else:
            bias = torch.zeros_like(weight)
            # torch adds two biases, of which one gets it; the gates are input, forget, cell, output.
            if gates == 4 and name.startswith("bias_ih"):
                bias[module.hidden_size : 2 * module.hidden_size] = 1.0
            yield name, bias


def _attention(module: Any, draw: Draw) -> Values:
    if module.in_proj_weight is not None:
        yield "in_proj_weight", draw.stack(module.in_proj_weight, 3, 1.0)
    else:
        for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
            yield name, draw.matrix(getattr(module, name), 1.0)
    yield "out_proj.weight", draw.matrix(module.out_proj.weight, 1.0)
    for name in ("in_proj_bias", "bias_k", "bias_v"):
        if getattr(module, name) is not None:
            yield name, torch.zeros_like(getattr(module, name))


def _norm(module: Any, draw: Draw) -> Values:
    if module.weight is not None:
        yield "weight", torch.ones_like(module.weight)


# What a layer of a kind starts with; the first kind that fits. Its own `bias`, if any, starts at 0.
KINDS: list[tuple[Any, Callable[[Any, Draw], Values]]] = [
    ((nn.Linear, nn.Bilinear), _linear),
    (_ConvTransposeNd, _transposed),
    (_ConvNd, _convolution),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    (RECURRENT, _recurrent),
    (nn.MultiheadAttention, _attention),
    (NORMS, _norm),
]
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
MATRICES = (nn.Linear, nn.Bilinear, _ConvNd)
KINDS_OF_LAYERS = tuple(k for kinds, _ in KINDS for k in (kinds if isinstance(kinds, tuple) else (kinds,)))


def _fill(path: str, module: nn.Module, draw: Draw, done: set[int]) -> None:
    """Draws and writes a layer's weights, but for those that are frozen or have been written."""
    values = next(values for kinds, values in KINDS if isinstance(module, kinds))
    if not _owed(module, done):
        return
    for name, value in values(module, draw):
        owner = module.get_submodule(name.rpartition(".")[0])
        _write(path, owner, name.rpartition(".")[2], value, done)
    bias = getattr(module, "bias", None)
    if isinstance(bias, Tensor):
        _write(path, module, "bias", torch.zeros_like(bias), done)


def _owed(module: nn.Module, done: set[int]) -> bool:
    """Whether any weight of the layer is still to be drawn: what is shared must not be drawn twice."""
    return any(id(p) not in done and p.requires_grad for p in module.parameters())


def _write(path: str, module: nn.Module, name: str, value: Tensor, done: set[int]) -> None:
    if parametrize.is_parametrized(module, name):
        _assign(path, module, name, value, done)
        return
    weight = module._parameters[name]
    if weight is not None and weight.requires_grad and id(weight) not in done:
        weight.copy_(value)
        done.add(id(weight))


def _assign(path: str, module: nn.Module, name: str, value: Tensor, done: set[int]) -> None:
    """Sets a parametrized weight, whose parts its parametrization knows how to find."""
    parametrization: Any = module.parametrizations[name]  # type: ignore[index]
    parts = list(parametrization.parameters())
    if not all(p.requires_grad and id(p) not in done for p in parts):
        return
    was, kept = parametrization.training, getattr(module, name).clone()
    setattr(module, name, value.to(parts[0]))
    parametrization.train()
    for _ in range(SETTLING if any(True for _ in parametrization.buffers()) else 1):
        found = getattr(module, name)
    parametrization.train(was)
    if not bool(found.isfinite().all()):
        setattr(module, name, kept)
        kind = type(parametrization[0]).__name__
        raise UserError(f"{path}.{name} cannot start at these values with {kind}: choose another scheme")
    done.update(map(id, parts))


def _require_settable(path: str, module: nn.Module) -> None:
    """UserError where a layer's weight is not a plain parameter, nor set through a parametrization."""
    where = path or type(module).__name__
    if any(isinstance(p, UninitializedParameter) for p in module.parameters()):
        raise UserError(f"{where} has no shape yet: call the model with a batch before it is initialized")
    for name in [n for n, _ in module.named_parameters(recurse=False)]:
        for ending in ("_orig", "_g"):
            plain = name.removesuffix(ending)
            if plain != name and hasattr(module, plain):
                raise UserError(
                    f"{where}.{plain} is computed from {name}, as weight norm or pruning with hooks do: "
                    "initialize the model before that is put on it, or use torch.nn.utils.parametrizations"
                )
    for name, parts in getattr(module, "parametrizations", {}).items():
        missing = next((part for part in parts if not hasattr(part, "right_inverse")), None)
        if missing is not None:
            raise UserError(
                f"{where}.{name} is parametrized by {type(missing).__name__}, which has no right_inverse to "
                "set it by: give it one, or initialize the model before it is parametrized"
            )


def _empty(like: Tensor) -> Tensor:
    """Where to draw: on the CPU, and in at least 32 bits, in which torch can draw and decompose."""
    wide = torch.promote_types(like.dtype, torch.float32)
    return torch.empty(like.shape, dtype=wide, device="cpu")
