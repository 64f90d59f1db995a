"""What the optimizers that wrap another one share."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer

from stepwell.errors import UserError

_HOOKS = [
    f"_optimizer_{moment}_{when}_hooks"
    for moment in ("step", "state_dict", "load_state_dict")
    for when in ("pre", "post")
]


class Wrapper(Optimizer):
    """An optimizer around another, `base`: its groups, defaults and state are the base's own.

    Whatever wants a torch optimizer takes it: schedulers, scalers, hooks. What only the base has, such as
    `averaged` and `hyperparameters`, is the base's. state_dict is the base's with
    what the wrapper keeps under a key of its own, so that a run can be cut anywhere and go on bit for bit.

    A subclass has `key`, that name, `kept`, the attributes that are copied with it, and tells and takes
    with `_told` and `_take` what it saves.
    """

    key: ClassVar[str]
    kept: ClassVar[tuple[str, ...]] = ()

    def __init__(self, base: Optimizer) -> None:
        if not isinstance(base, Optimizer):
            kind = type(self).__name__
            raise UserError(
                f"{kind} wraps an optimizer, not {type(base).__name__}: "
                f"give {kind}(torch.optim.SGD(model.parameters(), lr=0.1)), say"
            )
        self.base = base
        self._begin()

    def _begin(self) -> None:
        """Does what torch's constructor does, but for groups and state, which would not be the base's."""
        for name in _HOOKS:
            self.__dict__.setdefault(name, OrderedDict())
        self._patch_step_function()

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("base", *self.kept)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "base":
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        return getattr(self.base, name)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The base's groups."""
        return self.base.param_groups

    @property
    def state(self) -> defaultdict[Tensor, Any]:  # type: ignore[override]
        """The base's state."""
        return self.base.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The base's defaults."""
        return self.base.defaults

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self.base.add_param_group(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.base.zero_grad(set_to_none)

    def parameters(self) -> Iterator[Tensor]:
        """The parameters in the order in which torch numbers them in a state_dict."""
        for group in self.param_groups:
            yield from group["params"]

    def settled(self, p: Tensor) -> Tensor:
        """The weight that is p's: p itself, unless it is moved for the time being, as SAM does."""
        return self.base.settled(p) if isinstance(self.base, Wrapper) else p

    def _base_step(self, closure: Callable[[], Any] | None) -> Any:
        return self.base.step() if closure is None else self.base.step(closure)

    # -- what is saved ----------------------------------------------------------------------------------

    def _told(self) -> dict[str, Any] | None:
        """What the wrapper keeps, as numbers and tensors; None if nothing."""
        return None

    def _take(self, told: dict[str, Any]) -> None:
        """Takes what `_told` gave."""

    def _numbered(self, values: dict[Tensor, Tensor]) -> dict[int, Tensor]:
        return {i: values[p] for i, p in enumerate(self.parameters()) if p in values}

    def _by_parameter(self, values: dict[int, Tensor]) -> dict[Tensor, Tensor]:
        every = list(self.parameters())
        return {every[i]: value.to(every[i], copy=True) for i, value in values.items()}

    def state_dict(self) -> dict[str, Any]:
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        state, own = self.base.state_dict(), self._told()
        if own is not None:
            state = {**state, self.key: own}
        for hook in self._optimizer_state_dict_post_hooks.values():
            state = hook(self, state) or state
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = hook(self, state_dict) or state_dict
        own = state_dict.get(self.key)
        if own is None and self._told() is not None:
            raise UserError(
                f"this state has no {self.key!r}, so it is not that of {type(self).__name__}: "
                "load it into the optimizer that it wraps, `base`"
            )
        self.base.load_state_dict({name: value for name, value in state_dict.items() if name != self.key})
        if own is not None:
            self._take(own)
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)
