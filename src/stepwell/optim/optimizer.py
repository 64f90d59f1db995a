"""A torch.optim optimizer made from a rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from stepwell.engine.eager import Eager, total_norm
from stepwell.errors import UserError
from stepwell.rules import Rule


class RuleOptimizer(torch.optim.Optimizer):
    """Runs a rule as a `torch.optim.Optimizer`: parameter groups, hooks and `state_dict` are torch's.

    `gradient_norm` is the norm of all gradients at the last step, a tensor on their device, so that
    reading it is the caller's choice of when to wait. `state[p]` holds `step` and the rule's state.
    """

    def __init__(self, rule: Rule, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.rule = rule
        self.gradient_norm: Tensor | None = None
        self._engines: dict[int, Eager] = {}
        super().__init__(params, {**self.torch_arguments, **defaults})

    # torch's further arguments at the values that mean "plain": carried in the groups so that torch
    # can load our state, and refused at any other value when torch's state is loaded here.
    torch_arguments: ClassVar[dict[str, Any]] = {}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        for key, value in self.param_groups[-1].items():
            if key in RANGES:
                _check(key, value)

    def hyperparameters(self, group: int = 0) -> dict[str, float]:
        """Today's values of a group's hyperparameters, by their names in the rule's formula."""
        values = dict(self.param_groups[group])
        if "betas" in values:
            values["beta1"], values["beta2"] = values["betas"]
        return {name: values[name] for name in self.rule.defaults}

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Makes one update; returns the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.update()
        return loss

    def update(self) -> None:
        """`step` without what torch wraps around it (its hooks and a profiler's record): 20 µs less."""
        norms = []
        for number, group in enumerate(self.param_groups):
            engine = self._engines.get(number) or self._engine(number)
            norms.append(engine.step(self.hyperparameters(number), group["weight_decay"], group["decay"]))
        self.gradient_norm = total_norm(norms)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's, without its profiler's record."""
        if not set_to_none:
            return super().zero_grad(set_to_none)
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def _engine(self, number: int) -> Eager:
        """The engine of a parameter group, made when first needed, since groups can be added later."""
        if number not in self._engines:
            engine = Eager(self.rule, self.param_groups[number]["params"])
            for i, p in enumerate(engine.parameters):
                for name, value in self.state.get(p, {}).items():
                    if name == "step":
                        engine.steps[i] = int(value)
                    else:
                        engine.state[i][name].copy_(value)
                self.state[p] = {}
            self._engines[number] = engine
        return self._engines[number]

    def engines(self) -> list[Eager]:
        """The engines, one a parameter group, with each parameter's state tensors."""
        return [self._engine(number) for number in range(len(self.param_groups))]

    def state_dict(self) -> dict[str, Any]:
        for engine in self.engines():
            for i, p in enumerate(engine.parameters):
                # A parameter that had no update has no state in torch either.
                step = {"step": torch.tensor(float(engine.steps[i]))}
                self.state[p] = {**step, **engine.state[i]} if engine.steps[i] else {}
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for group in state_dict["param_groups"]:
            for key, plain in self.torch_arguments.items():
                if key in CHANGES_THE_RULE and group.get(key, plain) != plain:
                    raise UserError(f"this state was made with {key}={group[key]!r}, which is another rule")
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for key, value in self.defaults.items():
                group.setdefault(key, value)
        self._engines.clear()


def _check(name: str, value: Any) -> None:
    """Refuses a hyperparameter that would spoil the weights without a word."""
    values = value if name == "betas" and isinstance(value, (tuple, list)) else (value,)
    low, high = RANGES[name]
    right = len(values) == (2 if name == "betas" else 1) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) and low <= v < high
        for v in values
    )
    if not right:
        what = "two numbers" if name == "betas" else "a number"
        bound = f"of at least {low:g}" + (f" and below {high:g}" if high < math.inf else "")
        raise UserError(f"{name}={value!r} cannot be used: give {what} {bound}")


# Those of torch's arguments that change the formula (the others choose an implementation).
CHANGES_THE_RULE = {"dampening", "nesterov", "maximize", "amsgrad", "decoupled_weight_decay"}

# The range of each hyperparameter: low ≤ value < high.
RANGES: dict[str, tuple[float, float]] = {
    "lr": (0.0, math.inf),
    "betas": (0.0, 1.0),
    "eps": (0.0, math.inf),
    "momentum": (0.0, 1.0),
    "weight_decay": (0.0, math.inf),
    "decay": (0.0, math.inf),
}
