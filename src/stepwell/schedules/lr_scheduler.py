"""Schedules for loops that expect one of torch's schedulers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch

from stepwell.errors import UserError
from stepwell.schedules.arguments import FINITE, NOT_NEGATIVE, function
from stepwell.schedules.schedule import Schedule

_Given = Schedule | Sequence[Schedule]


class LRScheduler(torch.optim.lr_scheduler.LRScheduler):
    """Sets hyperparameters of an optimizer from schedules, one step further at each `step()`.

    optimizer: torch's or ours. schedule: of "lr", or a mapping from names to schedules, such as
    `{"lr": one_cycle(…), "momentum": one_cycle_momentum(…)}`, with "beta1", "beta2" for the entries of
    `betas`; each is one schedule for all groups, or a list with one for each group. relative: the schedules
    are factors of each group's own first value, as in torch's LambdaLR. last_epoch: the last step that was
    made, −1 at the start, as in torch.

    One schedule that is not relative, for groups with different values, is refused: it would make them alike.
    `state_dict` holds the step and the state of each Plateau. The values follow from them, and are set when
    it is loaded; torch's schedulers leave that to the optimizer's own state.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: _Given | Mapping[str, _Given],
        *,
        relative: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UserError(f"LRScheduler: optimizer={optimizer!r} cannot be used: give a torch optimizer")
        given = schedule if isinstance(schedule, Mapping) else {"lr": schedule}
        self._relative = relative
        self._schedules = {
            name: _checked(name, each, optimizer.param_groups, relative, last_epoch)
            for name, each in given.items()
        }
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """The rates of this step. As in torch's schedulers of rate and momentum, sets what is not a rate."""
        groups = self.optimizer.param_groups
        for name in self._schedules.keys() - {"lr"}:
            for group, value in zip(groups, self._values(name), strict=True):
                _write(group, name, value)
        return self._values("lr") if "lr" in self._schedules else [_copy(group["lr"]) for group in groups]

    def _values(self, name: str) -> list[float]:
        """Each group's value at this step."""
        groups, each = self.optimizer.param_groups, self._schedules[name]
        if not isinstance(each, list):
            each = [each] * len(groups)
        if len(each) != len(groups):  # a group was added
            raise UserError(_one_for_each(name, len(each), len(groups)))
        where = f"LRScheduler at step {self.last_epoch}"
        values = [FINITE(where, name, schedule(self.last_epoch)) for schedule in each]
        if not self._relative:
            return values
        return [value * float(_first(group, name)) for value, group in zip(values, groups, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """The step, and the states of schedules that have one: numbers, which any format can keep."""
        return {
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "_last_lr": [float(lr) for lr in self._last_lr],
            "schedules": [schedule.state_dict() for schedule in self._stateful()],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes to a saved step, also one that a scheduler of torch's saved, and sets the values of it."""
        if not isinstance(state_dict, Mapping) or "last_epoch" not in state_dict:
            raise UserError("this is not the state of a scheduler, which has last_epoch")
        states, stateful = state_dict.get("schedules", []), self._stateful()
        if len(states) != len(stateful):
            raise UserError(f"the state is of a scheduler with {len(states)} Plateau, not {len(stateful)}")
        for schedule, state in zip(stateful, states, strict=True):
            schedule.load_state_dict(state)
        self.last_epoch = int(NOT_NEGATIVE("state of LRScheduler", "last_epoch", state_dict["last_epoch"]))
        self._step_count = state_dict.get("_step_count", self.last_epoch + 1)
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            _write(group, "lr", lr)
        self._last_lr = [_copy(group["lr"]) for group in self.optimizer.param_groups]

    def _stateful(self) -> list[Any]:
        each = chain.from_iterable(s if isinstance(s, list) else [s] for s in self._schedules.values())
        return [s for s in dict.fromkeys(each) if hasattr(s, "load_state_dict")]


def _checked(
    name: str, given: Any, groups: list[dict[str, Any]], relative: bool, last_epoch: int
) -> Schedule | list[Schedule]:
    """The schedule or schedules of one hyperparameter, which every group must have."""
    if last_epoch != -1 and any(f"initial_{name}" not in group for group in groups):
        raise UserError(
            f"LRScheduler: last_epoch={last_epoch} goes on with a run, but a parameter group has no "
            f"initial_{name}: load the optimizer's state first, or leave last_epoch out"
        )
    first = [float(_first(group, name)) for group in groups]
    if isinstance(given, (list, tuple)):
        if len(given) != len(groups):
            raise UserError(_one_for_each(name, len(given), len(groups)))
        return [function("LRScheduler", f"{name}[{k}]", schedule) for k, schedule in enumerate(given)]
    if not relative and len(set(first)) > 1:
        raise UserError(
            f"LRScheduler: one schedule of {name} would make groups alike that have "
            f"{', '.join(f'{value:g}' for value in first)}: give a list with one for each, or factors with "
            "relative=True"
        )
    return function("LRScheduler", name, given)


def _one_for_each(name: str, given: int, groups: int) -> str:
    return f"LRScheduler: {given} schedules of {name} for {groups} parameter groups: give one for each"


def _first(group: dict[str, Any], name: str) -> Any:
    """A group's first value, which stays in the group as torch's `initial_lr` does, and so in its state."""
    return group.setdefault(f"initial_{name}", _copy(_read(group, name)))


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _beta(group: dict[str, Any], name: str) -> int | None:
    """Where beta1, beta2, … stand in the group's `betas`; None for a name of the group's own."""
    found = re.fullmatch(r"beta([1-9])", name)
    inside = found is not None and name not in group and int(found[1]) <= len(group.get("betas", ()))
    return int(found[1]) - 1 if found is not None and inside else None


def _read(group: dict[str, Any], name: str) -> Any:
    place = _beta(group, name)
    value = group.get(name) if place is None else group["betas"][place]
    if isinstance(value, bool) or not isinstance(value, (int, float, torch.Tensor)):
        known = [k for k, v in group.items() if isinstance(v, (int, float)) and not isinstance(v, bool)]
        known += [f"beta{k + 1}" for k in range(len(group.get("betas", ())))]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise UserError(f"LRScheduler: a parameter group has no number called {name}; {hint}")
    return value


def _write(group: dict[str, Any], name: str, value: Any) -> None:
    place = _beta(group, name)
    if place is not None and isinstance(group["betas"][place], torch.Tensor):
        group["betas"][place].fill_(value)
    elif place is not None:
        group["betas"] = tuple(value if k == place else beta for k, beta in enumerate(group["betas"]))
    elif isinstance(group[name], torch.Tensor):
        group[name].fill_(value)  # a tensor stands for a value that a compiled or captured step reads
    else:
        group[name] = value
