"""The layers of a body in their order from the input; the last one is the head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from stepwell.errors import UserError
from stepwell.nn.rnn import Stack
from stepwell.optim.groups import NAMED_SO, NORMALIZATIONS


@dataclass
class Layer:
    """A layer or block that is frozen, or has its rate, as a whole.

    modules: those that act in it, to be put into evaluation mode while it is frozen.
    """

    parameters: list[nn.Parameter] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)


def head_of(body: nn.Module, outputs: int) -> str:
    """Returns the path of the head: the last nn.Linear of the body whose out_features are the outputs.

    It is the last layer of each of our models. Last is by registration, which in a model of one's own
    should be the order in which the layers act. UserError where there is none.
    """
    linear = ((path, module) for path, module in body.named_modules() if isinstance(module, nn.Linear))
    fitting = [path for path, module in linear if module.out_features == outputs]
    if not fitting:
        raise UserError(
            "this model has no head to tell from its body: its last layer must be an nn.Linear with "
            f"out_features={outputs}, the number of outputs"
        )
    return fitting[-1]


def layers_of(body: nn.Module, head: str) -> list[Layer]:
    """Returns the body's layers in their order from the input; the last one is the head alone.

    head: its path, from `head_of`. A Sequential, a ModuleList and whatever contains the head are opened;
    any other module with weights is one layer: a convolution, a residual block, a transformer's block; of
    a recurrent module of several layers each one. Embeddings beside each other are one layer. A
    normalization belongs to the layer before it; what has no weights (dropout, activation) to the layer
    after it, so that dropout before the head is the head's. A shared parameter belongs to its last layer.
    """
    top = body.get_submodule(head)
    layers, last = [Layer()], Layer()
    waiting: list[nn.Module] = []  # without weights: of the layer to come
    previous: nn.Module | None = None
    for module, parameters in _units(body, top):
        if module is top:
            last = Layer(parameters, [*waiting, module])
            waiting = []
            continue
        if not parameters and next(module.buffers(), None) is None:
            waiting.append(module)
            continue
        embeddings = isinstance(previous, nn.Embedding) and isinstance(module, nn.Embedding)
        norm = isinstance(module, NORMALIZATIONS) or NAMED_SO.search(type(module).__name__)
        if not (norm or embeddings):
            layers.append(Layer())
        if isinstance(module, nn.RNNBase):
            each = len(parameters) // module.num_layers
            for start in range(0, len(parameters) - each, each):
                layers[-1].parameters += parameters[start : start + each]
                layers.append(Layer())
            parameters = parameters[-each:]
        layers[-1].parameters += parameters
        layers[-1].modules += [*waiting, module]
        waiting, previous = [], module
    layers.append(last)
    owner = {p: number for number, layer in enumerate(layers) for p in layer.parameters}
    for number, layer in enumerate(layers):
        layer.parameters = [p for p in dict.fromkeys(layer.parameters) if owner[p] == number]
    return [layer for layer in layers[:-1] if layer.parameters] + layers[-1:]


def _units(module: nn.Module, top: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Parameter]]]:
    """Yields the modules that are not to be opened, in order, each with its parameters.

    What a container holds itself, a vector of positions say, comes first, in a module of its own.
    """
    if module is top or not (
        isinstance(module, (nn.Sequential, nn.ModuleList, Stack))
        or any(inner is top for inner in module.modules())
    ):
        yield module, list(module.parameters())
        return
    if isinstance(module, Stack):
        for child in module.in_order():
            yield from _units(child, top)
        return
    own = list(module.parameters(recurse=False))
    if own:
        yield nn.Module(), own
    for child in module.children():
        yield from _units(child, top)
