"""A recorded program without what does nothing, and with faster forms of what does the same."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

ATEN = torch.ops.aten
SHORT = 64  # numbers in a row: below, torch's log_softmax on a CPU takes several times as long as its parts


def tidy(module: fx.GraphModule) -> fx.GraphModule:
    """Changes the module's graph in place.

    1. Views of the same shape, detachments, products with 1 and what nobody uses are left out.
    2. (Aᵀ B)ᵀ becomes Bᵀ A: a linear layer's gradient then lies as its weight does, and its product is the
       faster one of the two.
    3. b + A B becomes one product that begins at b.
    4. log_softmax over few classes, and its gradient, become their elementwise parts on a CPU; in float32
       what is too small for a normal number becomes 0, since a processor takes ten times as long for those.
    5. What does not depend on the inputs is computed once.

    2 to 4 round otherwise in the last bit.
    """
    graph = module.graph
    changes = [_without_effect, _transposed_products, _begun_products, _log_softmax]
    if not any(_mutates(node) for node in graph.nodes):
        changes = [_without_copies, *changes, _without_copies]
    for change in changes:
        for node in list(graph.nodes):
            if node.op != "call_function":
                continue
            with graph.inserting_before(node):
                new = change(graph, node)
            if new is not None:
                new.meta.setdefault("val", node.meta["val"])
                node.replace_all_uses_with(new)
        graph.eliminate_dead_code()
    if not any(_mutates(node) for node in graph.nodes):
        _fold_constants(module)
    for node in graph.nodes:
        node.meta.clear()  # the tensors of the recording
    module.recompile()
    return module


def _is(node: Any, *targets: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def _without_effect(graph: fx.Graph, node: Any) -> Any:
    """What the node only passes on."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or "val" not in node.meta or "val" not in source.meta:
        return None
    if _is(node, ATEN.detach.default, ATEN.alias.default):
        return source
    same = node.meta["val"].shape == source.meta["val"].shape
    if same and _is(node, ATEN.expand.default, ATEN.view.default, ATEN._unsafe_view.default):
        return source
    # A bias under vmap; a type cannot change by it.
    if _is(node, ATEN.mul.Scalar) and node.args[1] == 1:
        return source
    return None


def _mutates(node: Any) -> bool:
    """Whether an operation changes a tensor in place, so that an alias is not as good as a copy."""
    return node.op == "call_function" and getattr(getattr(node.target, "_schema", None), "is_mutable", False)


def _without_copies(graph: fx.Graph, node: Any) -> Any:
    """A copy of what lies as the copy would."""
    if not _is(node, ATEN.clone.default):
        return None
    source = node.args[0]
    wants = node.kwargs.get("memory_format", torch.preserve_format)
    ours = source.meta["val"]
    return source if wants == torch.preserve_format or ours.is_contiguous(memory_format=wants) else None


def _fold_constants(module: fx.GraphModule) -> None:
    """Computes what depends on no input, such as the gradient that a mean begins with."""
    graph, known = module.graph, {}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            known[node] = getattr(module, node.target)
        if node.op != "call_function" or "val" not in node.meta or not hasattr(node.target, "tags"):
            continue
        like = node.target in (ATEN.ones_like.default, ATEN.zeros_like.default)
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            continue
        if like or (node.all_input_nodes and all(other in known for other in node.all_input_nodes)):
            args, kwargs = fx.map_arg(
                (node.args, node.kwargs), lambda other: known.get(other, other.meta["val"])
            )
            known[node] = node.target(*args, **kwargs)
    for number, (node, value) in enumerate(known.items()):
        if node.op == "call_function" and any(user not in known for user in node.users):
            module.register_buffer(name := f"folded{number}", value, persistent=False)
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.create_node("get_attr", name))
    graph.eliminate_dead_code()


def _swaps(node: Any) -> bool:
    """Whether the node is the transposition of each matrix of a batch."""
    return _is(node, ATEN.transpose.int) and {d % 3 for d in node.args[1:]} == {1, 2} and _dims(node) == 3


def _dims(node: Any) -> int:
    return node.meta["val"].dim()


def _transposed_products(graph: fx.Graph, node: Any) -> Any:
    if not _swaps(node):
        return None
    product = node.args[0]
    if _swaps(product):
        return product.args[0]
    if not (_is(product, ATEN.bmm.default) and len(product.users) == 1):
        return None
    left, right = product.args
    if not _swaps(left):
        return None
    flipped = graph.call_function(ATEN.transpose.int, (right, 1, 2))
    flipped.meta["val"] = right.meta["val"].transpose(1, 2)
    product = graph.call_function(ATEN.bmm.default, (flipped, left.args[0]))
    product.meta["val"] = torch.empty_like(node.meta["val"], memory_format=torch.contiguous_format)
    return product


def _begun_products(graph: fx.Graph, node: Any) -> Any:
    if not (_is(node, ATEN.add.Tensor) and not node.kwargs and len(node.args) == 2):
        return None
    first, second = node.args
    for begin, product in ((first, second), (second, first)):
        if not (_is(product, ATEN.bmm.default) and len(product.users) == 1):
            continue
        if isinstance(begin, fx.Node) and not _is(begin, ATEN.bmm.default) and _fits(begin, product):
            return graph.call_function(ATEN.baddbmm.default, (begin, *product.args))
    return None


def _fits(begin: Any, product: Any) -> bool:
    """Whether a bias, (K, 1, N), is what the product can begin at."""
    ours, its = begin.meta["val"], product.meta["val"]
    return ours.dtype == its.dtype and ours.shape == (its.shape[0], 1, its.shape[2])


def _log_softmax(graph: fx.Graph, node: Any) -> Any:
    """log p = z − max z − log Σ exp(z − max z); its gradient is g − p Σ g."""
    call = graph.call_function
    if _is(node, ATEN._log_softmax.default) and _is_short(node, node.args[1]):
        z, dim = node.args[0], [node.args[1]]
        shifted = call(ATEN.sub.Tensor, (z, call(ATEN.amax.default, (z, dim, True))))
        kind = node.meta["val"].dtype
        if kind == torch.float64:
            powers = call(ATEN.exp.default, (shifted,))
        else:
            tiny = torch.finfo(kind).tiny
            powers = call(ATEN.exp.default, (call(ATEN.clamp_min.default, (shifted, math.log(tiny))),))
            powers = call(ATEN.threshold.default, (powers, 1.001 * tiny, 0.0))
        total = call(ATEN.sum.dim_IntList, (powers, dim, True))
        logs = call(ATEN.sub.Tensor, (shifted, call(ATEN.log.default, (total,))))
        logs.meta["softmax"] = powers, total
        return logs
    if _is(node, ATEN._log_softmax_backward_data.default) and "softmax" in node.args[1].meta:
        g, dim = node.args[0], [node.args[2]]
        total = call(ATEN.sum.dim_IntList, (g, dim, True))
        p = call(ATEN.div.Tensor, node.args[1].meta["softmax"])
        return call(ATEN.addcmul.default, (g, p, total), {"value": -1})
    return None


def _is_short(node: Any, dim: Any) -> bool:
    value = node.meta["val"]
    return value.device.type == "cpu" and value.dim() > 0 and value.shape[dim] <= SHORT
