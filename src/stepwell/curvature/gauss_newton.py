"""Gauss–Newton-vector products."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from stepwell.curvature.products import Curvature, derivatives, gradients


class GaussNewton(Curvature):
    """The Hessian without the curvature of the network, G: positive semi-definite where the loss is convex.

        G v = Jᵀ (∂²L/∂z²) J v, with the outputs z = outputs(), J = ∂z/∂w and the loss L(z)

    J v is the derivative of Jᵀu by u, so three backward passes make a product. Everything else is as in
    Curvature. For softmax with cross-entropy, and for squared errors, G is the Fisher matrix (up to the
    loss's constant factor).
    Source: Schraudolph 2002, "Fast curvature matrix-vector products".
    """

    def __init__(
        self,
        outputs: Callable[[], Tensor],
        loss: Callable[[Tensor], Any],
        parameters: Iterable[Tensor],
    ) -> None:
        self._outputs: list[Tensor] = []

        def closure() -> Any:
            self._outputs = [outputs()]
            return loss(self._outputs[0])

        super().__init__(closure, parameters)
        with torch.enable_grad():
            self._z = [z.detach().requires_grad_() for z in self._outputs]
            self._slopes = gradients(loss(*self._z), self._z)
            self._u = [torch.zeros_like(z).requires_grad_() for z in self._z]
            self._pulled = derivatives(self._outputs, self.parameters, self._u, create_graph=True)

    def _times(self, v: list[Tensor], together: bool = False) -> Sequence[Tensor | None]:
        pushed = derivatives(self._pulled, self._u, v, together=together)  # J v
        bent = derivatives(self._slopes, self._z, pushed, together=together)  # ∂²L/∂z² J v
        return derivatives(self._outputs, self.parameters, bent, together=together)  # Jᵀ ∂²L/∂z² J v
