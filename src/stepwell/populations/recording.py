"""A computation as the list of torch's operations that it made: recorded once, done again without Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from stepwell.populations.tidy import tidy

# Their answers depend on types alone.
TYPES = (torch.ops.aten.promote_types.default, torch.ops.aten.result_type.Tensor)


class NotRecordable(Exception):
    """The computation asks for a value, so that another one might go another way."""


class Program:
    """The operations that `function(*inputs)` makes for inputs of these shapes, without what led to them.

    torch.vmap, autograd and modules decide by shapes alone which operations to launch; a program launches
    the same ones on other inputs of the same shapes and types, in the same order, with the same bits but for
    what `tidy` says. Random operations draw anew. It is faster than what it records, because nothing is
    decided again, and there is nothing to compile.

    Recording leaves the inputs, and torch's generator, as they were. peak: the most bytes of its own that a
    run holds at once. Raises NotRecordable where
    the function looks at a value.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor | None]], inputs: Sequence[Tensor]) -> None:
        copies = [value.clone() for value in inputs]
        recorder = _Recorder(copies)
        devices = {value.device for value in inputs if value.device.type == "cuda"}
        with torch.random.fork_rng(list(devices)), recorder:
            outputs = function(*copies)
        module = recorder.graph(outputs)
        self.peak = _peak(module.graph)
        self._run = tidy(module)

    def __call__(self, *inputs: Tensor) -> list[Tensor | None]:
        """The outputs for other inputs."""
        with torch.no_grad():
            return self._run(*inputs)


class _Recorder(TorchDispatchMode):
    """Writes each operation, below vmap and autograd, into a graph."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True loads torch's compiler, a second's work, only to be left alone by it

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._graph, self._constants = fx.Graph(), {}
        # By identity; the tensors are held, so that no other one gets an identity again.
        self._nodes: dict[int, tuple[Tensor, fx.Node]] = {}
        for number, value in enumerate(inputs):
            self._note(value, self._graph.placeholder(f"input{number}"))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        outputs = list(found) if isinstance(found, (tuple, list)) else [found]
        looked = any(isinstance(value, (bool, int, float, complex)) for value in outputs)
        if looked and func not in TYPES:
            raise NotRecordable(f"{func.name().removeprefix('aten::')} asks for the value of a number")
        node = self._graph.call_function(func, *tree_map(self._node, (args, kwargs)))
        if not any(isinstance(value, Tensor) for value in outputs):
            pass  # a type, say
        elif isinstance(found, (tuple, list)):
            for place, value in enumerate(outputs):
                if value is not None:
                    part = self._graph.call_function(_item, (node, place))
                    self._note(value, part)
        else:
            self._note(found, node)
        return found

    def _note(self, value: Tensor, node: fx.Node) -> None:
        node.meta["val"] = value.detach() if value.requires_grad else value
        self._nodes[id(value)] = value, node

    def _node(self, value: Any) -> Any:
        """The node of a tensor; one from nowhere, such as a table of the model's, is a constant."""
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._nodes:
            name = f"constant{len(self._constants)}"
            self._constants[name] = value
            self._note(value, self._graph.create_node("get_attr", name))
        return self._nodes[id(value)][1]

    def graph(self, outputs: Sequence[Tensor | None]) -> fx.GraphModule:
        """What was recorded, as a module that returns the outputs."""
        self._graph.output([self._node(value) for value in outputs])
        root = torch.nn.Module()
        for name, value in self._constants.items():
            root.register_buffer(name, value.detach(), persistent=False)
        return fx.GraphModule(root, self._graph)


def _item(values: Any, place: int) -> Any:
    return values[place]


def _peak(graph: fx.Graph) -> int:
    """The most bytes that the graph's own tensors take at once: each from its making to its last use."""
    given: set[int] = set()
    last: dict[int, int] = {}
    made: dict[int, int] = {}
    size: dict[int, int] = {}
    for place, node in enumerate(graph.nodes):
        for other in (node, *node.all_input_nodes):
            if isinstance(value := other.meta.get("val"), Tensor):
                last[value.untyped_storage()._cdata] = place
        if not isinstance(value := node.meta.get("val"), Tensor):
            continue
        storage = value.untyped_storage()
        if node.op != "call_function":
            given.add(storage._cdata)
        elif storage._cdata not in given:
            made.setdefault(storage._cdata, place)
            size[storage._cdata] = storage.nbytes()
    change = [0] * (len(graph.nodes) + 1)
    for storage, place in made.items():
        change[place] += size[storage]
        change[last[storage] + 1] -= size[storage]
    held = most = 0
    for step in change:
        held += step
        most = max(most, held)
    return most
