"""Which activation functions a model calls, and where, be they modules or plain functions in a forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingImports]
from torch.overrides import TorchFunctionMode

Limit = Literal["dead", "saturated"] | None  # how units of a function stop to learn, if they can

# Each function that torch and its modules call: name, and what is looked for in its outputs.
FUNCTIONS: dict[Callable[..., Any], tuple[str, Limit]] = {
    **dict.fromkeys((torch.relu, torch.relu_, F.relu, Tensor.relu, Tensor.relu_), ("relu", "dead")),
    F.relu6: ("relu6", "dead"),
    F.hardswish: ("hardswish", "dead"),
    **dict.fromkeys((torch.tanh, torch.tanh_, F.tanh, Tensor.tanh, Tensor.tanh_), ("tanh", "saturated")),
    **dict.fromkeys(
        (torch.sigmoid, torch.sigmoid_, F.sigmoid, Tensor.sigmoid, Tensor.sigmoid_), ("sigmoid", "saturated")
    ),
    F.gelu: ("gelu", None),
    F.silu: ("silu", None),
    F.mish: ("mish", None),
    F.elu: ("elu", None),
    F.selu: ("selu", None),
    F.celu: ("celu", None),
    F.softplus: ("softplus", None),
    F.leaky_relu: ("leaky_relu", None),
    F.prelu: ("prelu", None),
    F.hardtanh: ("hardtanh", None),
    F.hardsigmoid: ("hardsigmoid", None),
}

# What a product leaves its units in: the channels of an image, the last dimension of all else.
UNITS: dict[Callable[..., Any], int] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), 1),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), 1),
    **dict.fromkeys((F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__), -1),
}

# Flat is where the slope is below a twentieth of the steepest: |tanh| or |2σ − 1| above √0.95.
FLAT = 0.95


class Activation(NamedTuple):
    """A call of an activation function.

    place: the module's path, or that of the module around it and the function's name, "blocks.0:relu".
    units: the dimension of the output that counts units.
    """

    place: str
    function: str
    limit: Limit
    output: Tensor
    units: int

    def alive(self) -> Tensor:
        """Which units are above zero for any sample and place of the batch, (units,) bool."""
        y = self.output.detach()
        units = self.units % y.dim()
        rest = [d for d in range(y.dim()) if d != units]
        return (y.amax(rest) if rest else y) > 0

    def flat(self) -> Tensor:
        """The share of outputs in the flat region of tanh or sigmoid, a number on the device."""
        y = self.output.detach().float()
        return ((y if self.function == "tanh" else 2 * y - 1).square() > FLAT).float().mean()


class Activations(TorchFunctionMode):
    """Inside `with`, tells `seen` of every activation function that the model calls.

    It sees torch's calls (`torch.overrides.TorchFunctionMode`), which leaves their results as they are, and
    hooks on the model's modules say where; both are gone afterwards. What `seen` raises is kept in
    `failure` and stops the watching, not the model. Not seen: what runs inside a compiled or scripted
    module, gates of recurrent layers, and calls under torch.func's transforms.
    """

    def __init__(self, model: nn.Module, seen: Callable[[Activation], None]) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self._model, self._seen = model, seen
        self._inside: list[tuple[str, bool]] = []  # modules that are running: path, whether an activation
        self._handles: list[Any] = []
        self._calls: Counter[str] = Counter()
        self._units = -1

    def __enter__(self) -> Activations:
        self._handles.append(self._model.register_forward_pre_hook(lambda module, args: self._calls.clear()))
        for path, module in self._model.named_modules():
            kind = _kind(module)
            if kind:
                with suppress(RuntimeError, AttributeError):  # scripted modules take no hooks
                    self._handles += [
                        module.register_forward_pre_hook(self._entered(path, kind == "activation")),
                        module.register_forward_hook(self._left, always_call=True),
                    ]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._inside.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in UNITS:
            self._units = UNITS[func]
        elif func in FUNCTIONS and self.failure is None:
            try:
                self._tell(func, output)
            except Exception as error:
                self.failure = error
        return output

    def _tell(self, func: Any, output: Any) -> None:
        name, limit = FUNCTIONS[func]
        if not isinstance(output, Tensor) or not output.numel() or not output.dim():
            return
        if is_functorch_wrapped_tensor(output):
            return
        path, is_activation = self._inside[-1] if self._inside else ("", False)
        place = path
        if not is_activation:
            place = f"{path}:{name}"
            self._calls[place] += 1
            if self._calls[place] > 1:
                place += str(self._calls[place])
        with torch.no_grad():
            self._seen(Activation(place, name, limit, output, self._units))

    def _entered(self, path: str, is_activation: bool) -> Callable[..., None]:
        return lambda module, args: self._inside.append((path, is_activation))

    def _left(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._inside:
            self._inside.pop()


def _kind(module: nn.Module) -> str:
    """ "activation" for torch's own, "around" for what may call activation functions, "" for other layers."""
    home = type(module).__module__
    if home == "torch.nn.modules.activation":
        return "activation"
    return "" if home.startswith("torch.nn.") and not home.endswith(".transformer") else "around"
