"""What all optimizers share: checked hyperparameters, and schedules in their place."""

from __future__ import annotations

import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from stepwell.errors import UserError
from stepwell.optim.hyperparameters import check_group, number, take_schedules

Number = float | Tensor | Callable[[float], float]


class CheckedOptimizer(torch.optim.Optimizer):
    """A `torch.optim.Optimizer` that refuses a wrong hyperparameter wherever and whenever it is set.

    Any hyperparameter can be a schedule, a function from the number of updates made to the value; the
    group then holds today's value, and state_dict the number. A subclass calls `follow_schedules` and
    `check_changes` at the start of an update; `ranges` are those of hyperparameters that mean something
    else in it than in `RANGES`.
    """

    ranges: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self._schedules: list[dict[str, Any]] = []
        self._forget()
        super().__init__(params, defaults)

    def _forget(self) -> None:
        # The names, and the values, of each group that were last checked; none of a group of which one can
        # be changed in place, a list or a tensor: those are looked at each time.
        self._checked: dict[int, list[Any]] = {}
        self._scheduled: list[dict[str, Any]] = []  # the values that schedules last gave, a dict a group

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_schedules": self._schedules}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._forget()
        super().__setstate__(state)

    def check_together(self, group: dict[str, Any]) -> None:
        """Refuses values that are right each by itself but do not go together; see SGD."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        schedules: dict[str, Any] = {}
        if isinstance(param_group, dict):
            whole, schedules = take_schedules({**self.defaults, **param_group})
            check_group(whole, self.ranges)
            self.check_together(whole)
            param_group = {**param_group, **{name: whole[name] for name in schedules}}
            if schedules:
                param_group.setdefault("updates", 0)
        _add_param_group(self, param_group)
        try:
            self._check_parameters(self.param_groups[-1]["params"])
        except UserError:
            self.param_groups.pop()
            raise
        self._schedules.append(schedules)

    def _check_parameters(self, params: list[Tensor]) -> None:
        for p in params:
            if p.is_complex():
                raise _ComplexError(
                    f"{type(self).__name__} does not support complex parameters: use torch.optim"
                )
            if p.is_sparse:
                raise UserError(
                    f"{type(self).__name__} requires dense parameter tensors: give it p.to_dense()"
                )

    def hyperparameters(self, group: int = 0) -> dict[str, float]:
        """Today's values of a group's hyperparameters, by their names in the formula."""
        return {name: number(value) for name, value in self._named(self.param_groups[group]).items()}

    def _named(self, values: dict[str, Any]) -> dict[str, Any]:
        """A group's hyperparameters by their names in the formula."""
        raise NotImplementedError

    def follow_schedules(self) -> None:
        """Puts the scheduled values of this update into the groups."""
        if not any(self._schedules):
            return
        values: list[dict[str, Any]] = []
        for group, schedules in zip(self.param_groups, self._schedules, strict=True):
            made = group.get("updates", 0)
            values.append({name: _value_at(schedule, made) for name, schedule in schedules.items()})
        for own in values:  # all are right, or none is taken
            check_group(own, self.ranges)
        for group, last in zip(self.param_groups, self._scheduled, strict=False):
            for name, value in last.items():
                if group.get(name, value) is not value:
                    _say_once(
                        f"{name} is a schedule of the optimizer's, which replaces the {name}={group[name]!r} "
                        "that was put into a parameter group: give the optimizer a number, or leave out what "
                        "sets it, a scheduler say"
                    )
        self._scheduled = values
        for group, own in zip(self.param_groups, values, strict=True):
            if own:
                group.update(own)
                group["updates"] += 1

    def check_changes(self) -> None:
        """Checks the hyperparameters that are not those of the last update, before any weight is changed."""
        for index, group in enumerate(self.param_groups):
            values, before = [list(group), *group.values()], self._checked.get(index, [()])
            if values[0] == before[0]:
                if all(map(operator.is_, values[1:], before[1:])):
                    continue
                pairs = zip(group.items(), before[1:], strict=True)
                check_group({name: value for (name, value), old in pairs if value is not old}, self.ranges)
            else:
                check_group(group, self.ranges)
            self.check_together(group)
            if any(_changes_in_place(value) for name, value in group.items() if name != "params"):
                self._checked.pop(index, None)
            else:
                self._checked[index] = values

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for group in state_dict["param_groups"]:
            check_group(group, self.ranges)
        super().load_state_dict(state_dict)
        for group, schedules in zip(self.param_groups, self._schedules, strict=True):
            for key, value in self.defaults.items():
                group.setdefault(key, number(value(0)) if callable(value) else value)
            if schedules:  # torch does not count a group's updates, nor those made after it got the count
                steps = [int(self.state[p].get("step", 0)) for p in group["params"] if p in self.state]
                group["updates"] = max([group.get("updates", 0), *steps])


def _add_param_group(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> None:
    """torch's own, which keeps its compiler out of it; and for that loads the compiler, a second's work.

    As long as nobody has loaded that, nobody compiles.
    """
    add = torch.optim.Optimizer.add_param_group
    if "torch._dynamo" not in sys.modules:
        add = getattr(add, "__wrapped__", add)
    add(optimizer, group)


_said: set[str] = set()


def _say_once(message: str) -> None:
    name = message.partition("=")[0]
    if name not in _said:
        _said.add(name)
        warnings.warn(message, RuntimeWarning, stacklevel=5)


def _changes_in_place(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return any(isinstance(part, (list, Tensor)) for part in parts)


class _ComplexError(UserError, RuntimeError):
    """torch raises a RuntimeError here, or a ValueError."""


def _value_at(schedule: Any, made: int) -> Any:
    """The value after so many updates; of a tuple, with what is a schedule in it replaced."""
    if isinstance(schedule, tuple):
        return tuple(s(made) if callable(s) else s for s in schedule)
    return schedule(made)
