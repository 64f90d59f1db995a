"""How large signals and gradients are in each layer of a model, on one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stepwell.nn.activations import Activation, Activations
from stepwell.nn.initialization.layers import MATRICES, RECURRENT
from stepwell.nn.measuring import measuring
from stepwell.nn.signal_verdict import Course, verdict

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
PRODUCTS = (*MATRICES, *RECURRENT, nn.MultiheadAttention)
WIDTH = 110  # of the printed table


@dataclass
class Layer:
    """What one layer made of the batch.

    mean, sd: of all numbers of its output (sd divides by n). gradient_sd: of the loss's gradient at its
    output; gradient_norm: that gradient's length. weight_gradient: length of the gradient in its weights,
    biases left out. dead: share of units that are zero for every sample, of ReLU-like functions.
    saturated: share of outputs of tanh or sigmoid in the flat region, where the slope is below a twentieth
    of the steepest. None where there is no such thing.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    mean: float
    sd: float
    gradient_sd: float | None = None
    gradient_norm: float | None = None
    weight_gradient: float | None = None
    dead: float | None = None
    saturated: float | None = None
    product: bool = field(default=False, repr=False)  # has a matrix, so that the verdict counts it as a layer


@dataclass
class Signals:
    """The layers in order of execution; prints as a table with the verdict below."""

    layers: list[Layer]

    @property
    def verdict(self) -> str:
        """Whether signals or gradients grow or shrink with depth, in a sentence with the numbers."""
        return verdict(self.forward, self.backward, self.layers)

    @property
    def forward(self) -> Course:
        """The outputs' standard deviation along the layers that have a matrix."""
        return Course([layer.sd for layer in self.layers if layer.product])

    @property
    def backward(self) -> Course:
        """The gradient's length at their outputs, from the model's output back."""
        return Course(
            [g for layer in reversed(self.layers) if layer.product and (g := layer.gradient_norm) is not None]
        )

    def as_json(self) -> dict[str, Any]:
        """Numbers only; None for what is not finite."""
        rows = [{k: _json(v) for k, v in asdict(layer).items()} for layer in self.layers]
        return {
            "layers": rows,
            "forward": self.forward.as_json(),
            "backward": self.backward.as_json(),
            "verdict": self.verdict,
        }

    def __str__(self) -> str:
        return "\n".join([*self.lines(), "", self.verdict])

    def lines(self) -> list[str]:
        """The table, at most 110 columns wide."""
        head = ["layer", "kind", "output", "params", "mean", "sd", "grad. sd", "‖∇w‖", "dead", "flat"]
        rows = [head, *(_cells(layer) for layer in self.layers)]
        widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
        widths[1], widths[2] = min(widths[1], 18), min(widths[2], 17)
        widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1))
        return [
            "  ".join(
                _fitted(cell, w, k) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]


def signals(model: nn.Module, x: Any, loss: Callable[[Any], Tensor] | None = None) -> Signals:
    """Sends a batch through a model and measures signals, and with a loss gradients, in every layer.

    x: what the model is called with; a tuple is several arguments. loss: of the model's output, a single
    number; without it nothing is known of gradients.

    >>> found = signals(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.ones(2, 4), lambda y: y.sum())
    >>> [layer.name for layer in found.layers]
    ['0', '1']

    The model computes as in training, with the batch's statistics in batch norm, but without dropout.
    Nothing stays: no hook, no gradient; buffers, mode and random state are as before, also after an error.
    Layers are the modules that do something of their own (containers, and what returns its input, are left
    out), and the activation functions that a forward calls itself, as "blocks.0:relu".
    """

    def closure() -> Tensor | None:
        y = model(*x) if isinstance(x, tuple) else model(x)
        return None if loss is None else loss(y)

    return measure(model, closure)


def measure(model: nn.Module, closure: Callable[[], Tensor | None]) -> Signals:
    """`signals` of whatever `closure` calls the model with; it returns the loss, or None."""
    recorder = _Recorder(model)
    with measuring(model), torch.enable_grad():
        with recorder.recording():
            loss = closure()
        if loss is not None and loss.requires_grad:
            recorder.backward(loss)
    return Signals(recorder.layers)


class _Recorder:
    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layers: list[Layer] = []
        self._weights: list[list[nn.Parameter]] = []  # of each layer, biases left out
        self._found: dict[str, Activation] = {}
        self._last: Tensor | None = None  # output of the layer before
        self._hooks = ExitStack()  # on outputs, for their gradients

    def recording(self) -> ExitStack:
        """Hooks on every module, inside `with`."""
        stack = ExitStack()
        for path, module in self.model.named_modules():
            # What computes a normalized weight is a part of its layer, whose output is what counts.
            if type(module) in CONTAINERS or ".parametrizations." in f".{path}.":
                continue
            with suppress(RuntimeError, AttributeError):  # scripted modules take no hooks
                stack.callback(module.register_forward_hook(self._hook(path)).remove)
        stack.enter_context(Activations(self.model, self._activation))
        return stack

    def backward(self, loss: Tensor) -> None:
        weights = [w for own in self._weights for w in own if w.requires_grad]
        distinct = list({id(w): w for w in weights}.values())
        with self._hooks:
            gradients = torch.autograd.grad(loss, distinct, allow_unused=True) if distinct else ()
        norms = {
            id(w): 0.0 if g is None else float(g.double().norm())
            for w, g in zip(distinct, gradients, strict=True)
        }
        for layer, own in zip(self.layers, self._weights, strict=True):
            found = [norms[id(w)] for w in own if id(w) in norms]
            layer.weight_gradient = math.hypot(*found) if found else None

    def _hook(self, path: str) -> Callable[..., None]:
        def seen(module: nn.Module, args: Any, output: Any) -> None:
            y = next(_tensors(output), None)
            activation = self._found.pop(path, None)
            if y is None or not y.is_floating_point() or not y.numel():
                return
            if y is self._last and activation is None:
                return  # what a module inside it returned; an activation may work in place
            own = list(_own(module))
            given = next(_tensors(args), None)
            passed_on = given is not None and given.data_ptr() == y.data_ptr() and given.numel() == y.numel()
            if passed_on and not own and activation is None:
                return  # Flatten, Identity, dropout that drops nothing
            count = sum(p.numel() for _, p in own)
            kind = type(module).__name__.removeprefix("Parametrized")
            self._add(_shown(path) or kind, kind, y, count, activation)
            self.layers[-1].product = isinstance(module, PRODUCTS)
            self._weights[-1] = [p for name, p in own if "bias" not in name]

        return seen

    def _activation(self, activation: Activation) -> None:
        if ":" in activation.place:
            self._add(_shown(activation.place), activation.function, activation.output, 0, activation)
        else:
            self._found[activation.place] = activation  # its module's hook follows

    def _add(self, name: str, kind: str, y: Tensor, count: int, activation: Activation | None) -> None:
        variance, mean = torch.var_mean(y.detach().double(), correction=0)
        layer = Layer(name, kind, tuple(y.shape), count, float(mean), math.sqrt(float(variance)))
        if activation is not None and activation.limit == "dead":
            layer.dead = 1 - float(activation.alive().double().mean())
        elif activation is not None and activation.limit == "saturated":
            layer.saturated = float(activation.flat())
        if y.requires_grad:
            self._hooks.callback(y.register_hook(_note(layer)).remove)
        self.layers.append(layer)
        self._weights.append([])
        self._last = y


def _shown(path: str) -> str:
    """A path without the wrapper that torch.compile puts around a module."""
    return path.replace("_orig_mod.", "").replace("_orig_mod", "")


def _note(layer: Layer) -> Callable[[Tensor], None]:
    def note(gradient: Tensor) -> None:
        g = gradient.detach().double()
        layer.gradient_sd, layer.gradient_norm = float(g.std(correction=0)), float(g.norm())

    return note


def _own(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A module's own parameters, with those behind its parametrized weights."""
    yield from module.named_parameters(recurse=False)
    if hasattr(module, "parametrizations"):
        yield from module.parametrizations.named_parameters()  # type: ignore[union-attr,operator]
    if isinstance(module, nn.MultiheadAttention):  # which never calls this child
        yield from module.out_proj.named_parameters()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cells(layer: Layer) -> list[str]:
    shape = "×".join(map(str, layer.shape))
    numbers = [layer.sd, layer.gradient_sd, layer.weight_gradient]
    shares = [layer.dead, layer.saturated]
    return [
        layer.name,
        layer.kind,
        shape,
        f"{layer.parameters:,}" if layer.parameters else "",
        _short(layer.mean),
        *("" if v is None else _short(v) for v in numbers),
        *("" if v is None else f"{v:.0%}" for v in shares),
    ]


def _short(value: float) -> str:
    """Three digits, and never wider than a column: 1.23e-05, 0.0123, 123."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    return (
        f"{value:.2e}"
        if not 1e-3 <= abs(value) < 1e5
        else f"{value:.3g}"
        if abs(value) < 1e3
        else f"{value:.0f}"
    )


def _fitted(text: str, width: int, column: int) -> str:
    if len(text) > width:
        left = (width - 1) // 3
        text = f"{text[:left]}…{text[len(text) - (width - 1 - left) :]}"
    return f"{text:<{width}}" if column < 3 else f"{text:>{width}}"
