"""A torch.optim optimizer that steps by the curvature of its closure's loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from stepwell.curvature.products import Curvature
from stepwell.errors import UserError
from stepwell.optim.backtracking import halved, move
from stepwell.optim.hyperparameters import check_group, number, take_schedules

Closure = Callable[[], Any]


class SecondOrder(torch.optim.Optimizer):
    """w ← w + change(curvature): what Newton, SaddleFreeNewton and NegativeCurvature share.

    `step` needs a closure that returns the loss and does not call backward; `p.grad` is neither read nor
    written. Parameters that do not require a gradient stay. Groups differ in `lr` alone: the curvature is
    that of all parameters together. A hyperparameter in RANGES can be a schedule. A loss, gradient or
    step that is not finite is refused, and nothing is changed.

    `products` counts the Hessian-vector products so far, each about two gradients; `gradient_norm` is
    that of the last update. `state` holds both counts, `step` and `products`, at the first parameter.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self._schedules: list[dict[str, Any]] = []
        self.gradient_norm: Tensor | None = None
        super().__init__(params, defaults)

    def change(self, at: Curvature, closure: Closure) -> Tensor:
        """What is added to the weights, (n,)."""
        raise NotImplementedError

    def step(self, closure: Closure | None = None) -> Any:  # type: ignore[override]
        """Makes one update; returns the closure's loss before it."""
        if closure is None:
            raise UserError(f"{type(self).__name__} needs a closure: step(lambda: loss(model(x), y))")
        self._today()
        parameters = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        at = Curvature(closure, parameters)
        change = self.change(at, closure)
        if not change.isfinite().all():
            raise UserError("the step is not finite, so nothing was changed: raise damping or lower lr")
        move(at, change)
        self.gradient_norm = at.gradient.norm()
        first = self.state[self.param_groups[0]["params"][0]]
        first["step"], first["products"] = self.updates + 1, self.products + at.products
        return at.loss

    @property
    def updates(self) -> int:
        """The updates made so far."""
        return self.state.get(self.param_groups[0]["params"][0], {}).get("step", 0)

    @property
    def products(self) -> int:
        """The Hessian-vector products made so far."""
        return self.state.get(self.param_groups[0]["params"][0], {}).get("products", 0)

    def hyperparameters(self, group: int = 0) -> dict[str, Any]:
        """Today's values of a group's hyperparameters."""
        values = self.param_groups[group]
        return {name: values[name] for name in self.defaults if name in values}

    def along(self, direction: Tensor, at: Curvature, closure: Closure) -> Tensor:
        """η d; with `search` halved until the loss falls by 1e-4 of what its slope says, 0 if it never does.

        Uphill there is nothing to search: Newton's whole step to a saddle or a maximum is left as it is.
        Source: Nocedal & Wright 2006, algorithm 3.1.
        """
        change = self.rates(at) * direction
        slope = float(at.gradient @ change)
        if not self.param_groups[0]["search"] or not -math.inf < slope < 0:
            return change
        # Near a minimum the loss changes by less than its own rounding, which must not count as a rise.
        rounding = 10 * torch.finfo(at.loss.dtype).eps * abs(float(at.loss))
        found = halved(at, closure, change, lambda alpha: 1e-4 * alpha * slope + rounding)
        return torch.zeros_like(change) if found is None else found

    def rates(self, at: Curvature) -> Tensor:
        """η of each weight, (n,)."""
        rates = [
            torch.full((p.numel(),), number(group["lr"]), dtype=at.dtype, device=p.device)
            for group in self.param_groups
            for p in group["params"]
            if p.requires_grad
        ]
        return torch.cat(rates)

    # -- groups and state -------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        name, schedules = type(self).__name__, {}
        if isinstance(param_group, dict):
            plain, schedules = take_schedules({**self.defaults, **param_group})
            check_group(plain, {})
            self.check(plain)
            param_group = {**param_group, **{key: plain[key] for key in schedules}}
        super().add_param_group(param_group)
        if any(p.is_complex() for p in self.param_groups[-1]["params"]):
            self.param_groups.pop()
            raise UserError(f"{name} does not take complex parameters: use their real and imaginary parts")
        self._schedules.append(schedules)

    def check(self, group: dict[str, Any]) -> None:
        """Refuses values that RANGES cannot tell; a subclass adds its own."""
        if not isinstance(group.get("search", True), bool):
            raise UserError(f"search={group['search']!r} cannot be used: give True or False")

    def _today(self) -> None:
        """Puts today's values of the schedules into the groups and checks all."""
        for group, schedules in zip(self.param_groups, self._schedules, strict=True):
            group.update({name: schedule(self.updates) for name, schedule in schedules.items()})
            check_group(group, {})
            self.check(group)
            for name in self.defaults:
                if name != "lr" and group.get(name) != self.param_groups[0].get(name):
                    raise UserError(f"groups differ in {name}: only lr may differ, the curvature is of all")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for group in state_dict["param_groups"]:
            check_group(group, {})
            self.check({**self.defaults, **group})
        super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_schedules": self._schedules}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.gradient_norm = None
        super().__setstate__(state)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Refuses what is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name}={value!r} cannot be used: give a whole number of at least {least}")
