"""Hessian-vector products of a closure's loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stepwell.errors import UserError

LIMIT = 2000  # parameters up to which the whole matrix is made; in float64 it takes 32 MB
TOGETHER = 64  # columns of the whole matrix that are computed at once

# What torch differentiates only once, by a word of its error or of a node in the graph, and what to do.
REFUSED = {
    "second time": "the closure called backward: let it only return the loss, derivatives are taken here",
    "Sparse": "a gradient is sparse: build the layer with sparse=False",
    "CuDNN RNN": "cuDNN's recurrent layers cannot be differentiated twice: let the closure run them inside "
    "torch.backends.cudnn.flags(enabled=False)",
    "inplace operation": "a weight or a result was changed in place after the closure ran: make the "
    "curvature anew after each change",
    "CompiledFunction": "a compiled module cannot be differentiated twice: let the closure call the module "
    "itself",
    "autograd::Error": "the loss cannot be differentiated twice: a torch.autograd.Function in it is marked "
    "as once_differentiable",
}


class Curvature:
    """Loss, gradient g and Hessian H of a closure at today's weights; H by its products with vectors.

        H v = ∂(gᵀ v)/∂w, a second backward pass, through the graph of g

    closure: returns the loss, one number, and does not call backward. It runs once, here: all products
        belong to the same batch, dropout mask and weights.
    parameters: those that H is about, floating-point tensors on one device. A vector has one element for
        each of theirs, in this order and in the widest of their types, at least float32.
    loss, gradient: without a graph, so that they can be kept. products: how many were made so far.

    A product costs about two gradients and is exact; at a kink (ReLU) it is that of the piece which the
    forward pass took. Parameters without influence on the loss get zeros.
    Source: Pearlmutter 1994, "Fast exact multiplication by the Hessian".
    Trap: torch's fused attention has no second derivative, so the closure runs with the plain one. A
    torch.autograd.Function that computes its derivative outside of the graph lacks the second one unseen.
    """

    def __init__(self, closure: Callable[[], Any], parameters: Iterable[Tensor]) -> None:
        self.parameters = _usable(parameters)
        self.dtype = torch.float32
        for p in self.parameters:
            self.dtype = torch.promote_types(self.dtype, p.dtype)
        loss = evaluate(closure)
        if not loss.isfinite():
            raise UserError(f"the loss is {loss.item()}: lower lr, or look for a root, log or division by 0")
        if not loss.requires_grad:
            raise UserError("the loss does not depend on the parameters: is there a detach, item or no_grad?")
        _refuse([loss])
        found = gradients(loss, self.parameters)
        _refuse(found)
        if all(g is None for g in found):
            raise UserError("the loss does not depend on these parameters: give those of its own model")
        if any(g is not None and g.is_sparse for g in found):
            raise UserError("a gradient is sparse: build the layer with sparse=False")
        self._gradients = self._filled(found)
        self.loss = loss.detach()
        self.gradient = self.flat(self._gradients).detach()
        if not self.gradient.isfinite().all():
            raise UserError("the gradient is not finite: is there a root or a norm of 0 in the loss?")
        self.products = 0

    def product(self, v: Tensor) -> Tensor:
        """H v for v of shape (n,); for (k, n) H times each row, all in one pass where torch can."""
        n = self.gradient.numel()
        if v.dim() not in (1, 2) or v.shape[-1] != n:
            raise UserError(f"a vector has shape {tuple(v.shape)}: give ({n},), or (k, {n}) for k of them")
        if v.dim() == 2:
            try:
                product = self._times(self.parts(v), together=True)
            except UserError:  # an operation that torch cannot batch
                return torch.stack([self.product(row) for row in v])
            self.products += len(v)
            return self.flat(self._filled(product, len(v)))
        self.products += 1
        return self.flat(self._filled(self._times(self.parts(v))))

    def _times(self, v: list[Tensor], together: bool = False) -> Sequence[Tensor | None]:
        return derivatives(self._gradients, self.parameters, v, together=together)

    def matrix(self) -> Tensor:
        """H itself, (n, n), column by column; refused above 2,000 parameters."""
        n = self.gradient.numel()
        if n > LIMIT:
            raise UserError(
                f"the whole Hessian of {n:,} parameters has {n * n:,} elements; it is made for at most "
                f"{LIMIT:,} parameters: use products with vectors"
            )
        unit = torch.eye(n, dtype=self.dtype, device=self.gradient.device)
        whole = torch.cat([self.product(rows) for rows in unit.split(TOGETHER)])
        if not whole.isfinite().all():
            raise UserError("the Hessian is not finite: is there a root or a norm of 0 in the loss?")
        return (whole + whole.T) / 2  # rounding apart it is symmetric already

    def flat(self, parts: Sequence[Tensor]) -> Tensor:
        """Tensors shaped as the parameters (or with a dimension before) as one vector (…, n)."""
        sizes = [p.numel() for p in self.parameters]
        pairs = zip(parts, self.parameters, sizes, strict=True)
        return torch.cat(
            [u.reshape(*u.shape[: u.dim() - p.dim()], n).to(self.dtype) for u, p, n in pairs], -1
        )

    def parts(self, vector: Tensor) -> list[Tensor]:
        """The pieces of a vector (…, n), shaped as the parameters and of their types."""
        pieces = vector.split([p.numel() for p in self.parameters], dim=-1)
        pairs = zip(pieces, self.parameters, strict=True)
        return [u.reshape(u.shape[:-1] + p.shape).to(p.dtype) for u, p in pairs]

    def _filled(self, found: Sequence[Tensor | None], *rows: int) -> list[Tensor]:
        pairs = zip(found, self.parameters, strict=True)
        return [p.new_zeros(*rows, *p.shape) if d is None else d for d, p in pairs]


def evaluate(closure: Callable[[], Any]) -> Tensor:
    """The closure's loss, with a graph that can be differentiated twice."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        loss = closure()
        if isinstance(loss, Tensor) and loss.numel() == 1 and not loss.is_complex():
            return loss.reshape(())
    what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
    raise UserError(f"the closure returned {what}: let it return the loss, a tensor of one real number")


def gradients(loss: Tensor, inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """∂L/∂w with a graph; None stands for 0."""
    # Only with a seed that requires a gradient does once_differentiable leave its mark in the graph.
    return derivatives([loss], inputs, [torch.ones_like(loss, requires_grad=True)], create_graph=True)


def derivatives(
    outputs: Sequence[Tensor | None],
    inputs: Sequence[Tensor],
    vectors: Sequence[Tensor | None],
    *,
    create_graph: bool = False,
    together: bool = False,
) -> Sequence[Tensor | None]:
    """Σ vᵢᵀ ∂yᵢ/∂w for each input w; None stands for 0. The graph is kept.

    together: the vectors are several, in a dimension before the output's own.
    """
    pairs = zip(outputs, vectors, strict=True)
    # What has no graph is the same at all weights.
    live = [(y, v) for y, v in pairs if y is not None and v is not None and y.requires_grad]
    if not live:
        return [None] * len(inputs)
    y, v = zip(*live, strict=True)
    try:
        return torch.autograd.grad(
            y,
            inputs,
            v,
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
            is_grads_batched=together,
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        for word, sentence in REFUSED.items():
            if word in reason:
                raise UserError(sentence) from error
        raise UserError(
            f"the loss cannot be differentiated twice; replace the operation that torch names: {reason}"
        ) from error


def _refuse(outputs: Sequence[Tensor | None]) -> None:
    """Looks through the graph for what torch would pass over in silence, as if its derivative were 0."""
    waiting = [y.grad_fn for y in outputs if y is not None and y.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        for word, sentence in REFUSED.items():
            if word in node.name():
                raise UserError(sentence)
        new = {before for before, _ in node.next_functions if before is not None} - seen
        seen |= new
        waiting += new


def _usable(parameters: Iterable[Tensor]) -> list[Tensor]:
    found = list(parameters)
    if not found:
        raise UserError("there are no parameters: give model.parameters()")
    for p in found:
        if not isinstance(p, Tensor) or not p.is_floating_point():
            kind = p.dtype if isinstance(p, Tensor) else type(p).__name__
            raise UserError(f"a parameter is {kind}: give real floating-point tensors")
        if hasattr(p, "device_mesh"):
            raise UserError("a parameter is sharded: second derivatives are taken of whole parameters")
        if not p.requires_grad:
            raise UserError("a parameter does not require a gradient: leave out what is frozen")
        if p.device != found[0].device:
            raise UserError(f"parameters are on {found[0].device} and {p.device}: bring them to one device")
    return found
