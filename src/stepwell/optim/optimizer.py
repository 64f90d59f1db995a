"""A torch.optim optimizer made from a rule."""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from stepwell.engine.eager import Eager, total_norm
from stepwell.errors import UserError
from stepwell.rules import Rule


class RuleOptimizer(torch.optim.Optimizer):
    """Runs a rule as a `torch.optim.Optimizer`: parameter groups, hooks and `state_dict` are torch's.

    A subclass names its `rules`, from the one with the least state to the one with the most, and
    `rule_of` says which of them a group's hyperparameters ask for now.

    `gradient_norm` is the norm of all gradients at the last step, a tensor on their device, so that
    reading it is the caller's choice of when to wait. `state[p]` holds `step` and the rule's state
    once p had an update, as in torch: the state's tensors are the engine's own, `step` is for reading.

    Stepped by a `torch.amp.GradScaler`, it does not wait for the device to say whether gradients
    overflowed; `skipped` is that answer, a truth value on the device (None without a scaler).
    """

    _step_supports_amp_scaling = True  # a GradScaler then sets `found_inf` and `grad_scale` around `step`

    rules: ClassVar[tuple[Rule, ...]]

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any], unknown: dict[str, Any]) -> None:
        for name in unknown:
            raise UserError(_no_argument(type(self).__name__, name, ["params", *defaults]))
        self.gradient_norm: Tensor | None = None
        self.skipped: Tensor | None = None
        self._forget()
        super().__init__(params, defaults)

    def rule_of(self, group: dict[str, Any]) -> Rule:
        """The rule of a parameter group at today's values of its hyperparameters."""
        return self.rules[0]

    def _forget(self) -> None:
        """Drops what is made anew from the groups and the state when first needed."""
        self._engines: dict[int, Eager] = {}
        self._shown: dict[int, list[int]] = {}  # the steps of each engine that `state` last told
        # The values that were last found right, a dict a group.
        self._checked: defaultdict[int, dict[str, Any]] = defaultdict(dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.gradient_norm = self.skipped = None
        self._forget()
        super().__setstate__(state)

    @property
    def state(self) -> defaultdict[Tensor, dict[str, Any]]:  # type: ignore[override]
        """Each parameter's `step` and state, told when asked, so that an update need not write it."""
        told = self.__dict__["state"]
        for number, engine in self._engines.items():
            if self._shown.get(number) != engine.steps:
                self._shown[number] = list(engine.steps)
                for p, step, values in zip(engine.parameters, engine.steps, engine.state, strict=True):
                    if step:
                        # What another rule of this optimizer left stays, as in torch.
                        told[p] = {**told.get(p, {}), "step": torch.tensor(float(step)), **values}
                    else:
                        told.pop(p, None)  # no update, no state, as in torch
        return told

    @state.setter
    def state(self, value: defaultdict[Tensor, dict[str, Any]]) -> None:
        self._forget()
        self.__dict__["state"] = value

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if isinstance(param_group, dict):
            _check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)
        if any(p.is_complex() for p in self.param_groups[-1]["params"]):
            raise UserError("a parameter is complex, which these rules are not written for: use torch.optim")

    def hyperparameters(self, group: int = 0) -> dict[str, float]:
        """Today's values of a group's hyperparameters, by their names in the rule's formula."""
        values = self.param_groups[group]
        rule = self.rule_of(values)
        if "betas" in values:
            values = {**values, "beta1": values["betas"][0], "beta2": values["betas"][1]}
        return {name: values[name] for name in rule.defaults}

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
        self._check_changes()
        self._shown.clear()
        self.skipped = self._unscale() if hasattr(self, "found_inf") else None
        norms = []
        for number, group in enumerate(self.param_groups):
            engine = self._engine(number)
            l2, decay = group["weight_decay"], group["decay"]
            if group.get("decoupled_weight_decay"):  # torch's word for AdamW
                l2, decay = 0.0, l2 + decay
            try:
                norms.append(engine.step(self.hyperparameters(number), l2, decay, self.skipped))
            except (NotImplementedError, RuntimeError) as error:
                if any(p.grad is not None and p.grad.is_sparse for p in group["params"]):
                    raise UserError("a gradient is sparse: build the layer with sparse=False") from error
                raise
        self.gradient_norm = total_norm(norms)

    def _unscale(self) -> Tensor:
        """Takes the GradScaler's factor off the gradients, unless it has; returns whether to skip them."""
        scaler: Any = vars(self)  # what a GradScaler sets before the step and deletes after it
        if scaler["grad_scale"] is not None:
            gradients = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
            torch._foreach_div_(gradients, scaler["grad_scale"])  # pyright: ignore[reportPrivateImportUsage]
        return scaler["found_inf"] > 0

    def _check_changes(self) -> None:
        """Checks the hyperparameters that are not those of the last update, before any weight is changed."""
        for number, group in enumerate(self.param_groups):
            right = self._checked[number]
            for name, value in group.items():
                if right.get(name, right) is not value and name in CHECKED:
                    _check(name, value)
                    if type(value) is not list:  # a list can be changed in place, and is checked each time
                        right[name] = value

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's, without its profiler's record."""
        if not set_to_none:
            return super().zero_grad(set_to_none)
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def _engine(self, number: int) -> Eager:
        """The engine of a parameter group: made when first needed, since groups can be added later, and
        anew when the group's rule changes."""
        group = self.param_groups[number]
        rule, engine = self.rule_of(group), self._engines.get(number)
        if engine is None or engine.rule is not rule:
            told = self.state
            engine = Eager(rule, group["params"])
            for i, p in enumerate(engine.parameters):
                values = {name: v for name, v in told.get(p, {}).items() if v is not None}
                if values:
                    self._check_names(values.keys() - {"step"}, rule)
                    # torch's momentum counts no steps: that there is state says that there was one.
                    engine.steps[i] = int(values.get("step", 1))
                    for name, value in engine.state[i].items():
                        if name in values:  # else momentum starts now, from 0
                            value.copy_(values[name])
            self._engines[number] = engine
            self._shown.pop(number, None)
        return engine

    def _check_names(self, names: set[str], rule: Rule) -> None:
        """Refuses state that is not that of one of the rules."""
        if not set(self.rules[0].state) <= names <= set(self.rules[-1].state):
            raise UserError(
                f"this state has {', '.join(sorted(names)) or 'only step'}, which is not that of "
                f"{rule.name}: load the state of the same optimizer"
            )

    def engines(self) -> list[Eager]:
        """The engines, one a parameter group, with each parameter's state tensors."""
        return [self._engine(number) for number in range(len(self.param_groups))]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for group in state_dict["param_groups"]:
            _check_group(group)
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for key, value in self.defaults.items():
                group.setdefault(key, value)


def _check_group(group: dict[str, Any]) -> None:
    for name in CHECKED & group.keys():
        _check(name, group[name])


def _check(name: str, value: Any) -> None:
    """Refuses a value that would spoil the weights, or be passed over, without a word."""
    if name in NOT_HERE:
        plain, advice = NOT_HERE[name]
        if not (isinstance(value, (bool, int, float)) and value == plain):
            raise UserError(f"{name}={value!r} asks for an update that is not here yet: {advice}")
        return
    low, high = RANGES[name]
    if type(value) is float and low <= value < high and name != "betas":
        return  # the common case, once an update
    values = value if name == "betas" and isinstance(value, (tuple, list)) else (value,)
    right = len(values) == (2 if name == "betas" else 1) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) and low <= v < high
        for v in values
    )
    if not right:
        what = "two numbers" if name == "betas" else "a number"
        bound = f"of at least {low:g}" + (f" and below {high:g}" if high < math.inf else "")
        raise UserError(f"{name}={value!r} cannot be used: give {what} {bound}")


def _no_argument(kind: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return f"{kind} has no argument {name}; {hint}"


# Those of torch's arguments that ask for another update: their plain value, and what to do without them.
NOT_HERE: dict[str, tuple[Any, str]] = {
    "dampening": (0, "leave it at 0, or use torch.optim.SGD"),
    "nesterov": (False, "leave it at False, or use torch.optim.SGD"),
    "maximize": (False, "leave it at False and minimize the negative of what is to grow"),
    "amsgrad": (False, "leave it at False, or use torch.optim.Adam"),
    "differentiable": (False, "leave it at False, or use torch.optim's class of the same name"),
}

# The range of each hyperparameter: low ≤ value < high.
RANGES: dict[str, tuple[float, float]] = {
    "lr": (0.0, math.inf),
    "betas": (0.0, 1.0),
    "eps": (0.0, math.inf),
    "momentum": (0.0, 1.0),
    "weight_decay": (0.0, math.inf),
    "decay": (0.0, math.inf),
}

CHECKED = RANGES.keys() | NOT_HERE.keys()
