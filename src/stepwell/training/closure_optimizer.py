"""Optimizers that ask for the loss again, L-BFGS and second order, in the place of the others in the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stepwell.engine.eager import total_norm
from stepwell.optim import LBFGS


class ClosureOptimizer:
    """Gives an optimizer whose `step` takes a closure what the loop asks of one.

    backward: (): computes the gradients of the present batch and returns its loss. loss: (): that loss
    alone, for products with the Hessian. Both are on the batch of the update under way, with fresh
    dropout, so that each look at the loss is another draw where there is any.
    """

    skipped = None

    def __init__(
        self, inner: torch.optim.Optimizer, backward: Callable[[], Tensor], loss: Callable[[], Tensor]
    ) -> None:
        self.inner, self.gradient_norm = inner, None
        self._backward, self._loss = backward, loss

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.inner.param_groups

    def update(self) -> None:
        """One step on the present batch; none where its gradients, which are there, are not finite."""
        gradients = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        self.gradient_norm = total_norm(torch._foreach_norm(gradients))  # pyright: ignore[reportPrivateImportUsage]
        if self.gradient_norm is not None and not bool(self.gradient_norm.isfinite()):
            return  # the loop rolls back
        self.inner.step(self._again if isinstance(self.inner, LBFGS) else self._loss)  # type: ignore[arg-type]

    def _again(self) -> Tensor:
        self.zero_grad()
        return self._backward()

    def zero_grad(self) -> None:
        self.inner.zero_grad()

    def hyperparameters(self, group: int = 0) -> dict[str, Any]:
        """Today's values of a group's hyperparameters, those that are numbers."""
        values = self.inner.hyperparameters(group)  # type: ignore[attr-defined]
        return {name: v for name, v in values.items() if type(v) in (int, float)}

    def engines(self) -> list[Any]:
        """None: the state is in `state_dict`."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state."""
        return self.inner.state_dict()["state"]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes such a state back."""
        self.inner.load_state_dict({"state": state, "param_groups": self.inner.state_dict()["param_groups"]})


def flattened(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """A nested state as JSON; its tensors go into `tensors` under names below `name`."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[k, flattened(v, tensors, f"{name}.{k}")] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [flattened(v, tensors, f"{name}.{i}") for i, v in enumerate(value)]}
    return {"value": value}


def restored(about: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """What `flattened` made flat."""
    ((kind, value),) = about.items()
    if kind == "tensor":
        return tensors[value].clone()
    if kind == "dict":
        return {k: restored(v, tensors) for k, v in value}
    return [restored(v, tensors) for v in value] if kind == "list" else value
