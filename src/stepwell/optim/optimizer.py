"""A torch.optim optimizer made from a rule."""

from __future__ import annotations

import math
import operator
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks as GLOBAL_AFTER
from torch.optim.optimizer import _global_optimizer_pre_hooks as GLOBAL_BEFORE

from stepwell.engine.choose import ENGINES, engine_for
from stepwell.engine.eager import total_norm
from stepwell.engine.fused import Fused, Looked
from stepwell.engine.rows import Rows
from stepwell.engine.state import AVERAGE, Unsupported
from stepwell.engine.text import Folded
from stepwell.errors import UserError
from stepwell.optim.checked import CheckedOptimizer
from stepwell.optim.clipping import clipped_by_unit
from stepwell.optim.extras import GROUP_EXTRAS, WHOLE_EXTRAS
from stepwell.optim.hyperparameters import check_names, check_near, number
from stepwell.optim.max_norm import shorten
from stepwell.rules import Rule


class RuleOptimizer(CheckedOptimizer):
    """Runs a rule as a `torch.optim.Optimizer`: parameter groups, hooks and `state_dict` are torch's.

    A subclass names its `rules`, from the one with the least state to the one with the most, and
    `rule_of` says which of them a group's hyperparameters ask for now. `spread` names the parts of a
    hyperparameter that is a tuple in torch, `betas` say. `lazy` names the rules that take sparse
    gradients, by the rows that these have; with the others a sparse gradient is refused.

    `gradient_norm` is the norm of all gradients at the last step, before clip_norm and clip_value, a
    tensor on their device, so that reading it is the caller's choice of when to wait. `state[p]` holds
    `step` and the rule's state once p had an update, as in torch: the state's tensors are the engine's
    own, `step` is for reading.

    Stepped by a `torch.amp.GradScaler`, it does not wait for the device to say whether gradients
    overflowed; `skipped` is that answer, a truth value on the device (None without a scaler).
    """

    _step_supports_amp_scaling = True  # a GradScaler then sets `found_inf` and `grad_scale` around `step`

    rules: ClassVar[tuple[Rule, ...]]
    spread: ClassVar[Mapping[str, tuple[str, ...]]] = {"betas": ("beta1", "beta2")}
    lazy: ClassVar[tuple[Rule, ...]] = ()

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any], extras: Mapping[str, Any]) -> None:
        known = GROUP_EXTRAS | WHOLE_EXTRAS
        check_names(type(self).__name__, extras, ["params", *defaults, *known])
        defaults = {**GROUP_EXTRAS, **defaults}
        defaults |= {name: value for name, value in extras.items() if name in GROUP_EXTRAS}
        defaults.setdefault("weight_decay", 0.0)
        whole = WHOLE_EXTRAS | {name: value for name, value in extras.items() if name in WHOLE_EXTRAS}
        self._engine_name, self._kind = whole["engine"], whole["state_dtype"]
        self._stochastic = whole["stochastic_rounding"]
        if not isinstance(self._stochastic, bool):
            raise UserError(f"stochastic_rounding={self._stochastic!r} cannot be used: give True or False")
        if self._kind is not None and not getattr(self._kind, "is_floating_point", False):
            raise UserError(f"state_dtype={self._kind!r} cannot be used: give torch.float32, say, or None")
        if self._engine_name not in ENGINES:
            raise UserError(f"engine={self._engine_name!r} does not exist: give one of {', '.join(ENGINES)}")
        self._norm: Any = None  # of the gradients: a number, a tensor, or None
        self.skipped: Tensor | None = None
        self._averaging = False
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if isinstance(param_group, dict):
            for name in WHOLE_EXTRAS.keys() & param_group.keys():
                raise UserError(
                    f"{name} is of the whole optimizer, not of a group: give it to the constructor"
                )
            check_near(type(self).__name__, param_group, self.defaults)
            if isinstance(ema := param_group.get("ema", self.defaults["ema"]), (int, float)) and ema == 1:
                raise UserError("ema=1 never moves the average: give a number below 1, or a schedule")
        super().add_param_group(param_group)

    def rule_of(self, group: dict[str, Any]) -> Rule:
        """The rule of a parameter group at today's values of its hyperparameters."""
        return self.rules[0]

    def _forget(self) -> None:
        """Drops what is made anew from the groups and the state when first needed."""
        super()._forget()
        self._engines: dict[int, Any] = {}
        self._averages: dict[int, bool] = {}  # whether each keeps an average of the weights
        self._shown: dict[int, list[int]] = {}  # the steps of each engine that `state` last told
        self._read: dict[int, tuple[list[Any], dict[str, float], tuple[Any, ...]]] = {}  # see `today`

    def __getstate__(self) -> dict[str, Any]:
        own = ("_engine_name", "_kind", "_stochastic")
        return {**super().__getstate__(), **{name: self.__dict__[name] for name in own}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._norm = self.skipped = None
        self._averaging = False
        super().__setstate__(state)

    def _named(self, values: dict[str, Any]) -> dict[str, Any]:
        for name, parts in self.spread.items():
            if name in values:
                values = {**values, **dict(zip(parts, values[name], strict=True))}
        return {name: values[name] for name in self.rule_of(values).defaults}

    # -- the update -------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Makes one update; returns the closure's loss, if there is one."""
        hooks = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        if hooks or GLOBAL_BEFORE or GLOBAL_AFTER or torch.autograd._profiler_enabled():  # pyright: ignore[reportPrivateImportUsage]
            return self._hooked(closure)
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # torch is not to wrap it: that takes 18 µs an update

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if "torch._dynamo" in sys.modules:
            if not _untraced:
                _untraced["update"] = torch.compiler.disable(_update)  # type: ignore[assignment]
            _untraced["update"](self)  # pyright: ignore[reportArgumentType]
        else:
            self.update()
        return loss

    _hooked = torch.optim.Optimizer.profile_hook_step(_step)  # with torch's hooks and a profiler's record

    def update(self) -> None:
        """`step` without a closure and without hooks."""
        if self._averaging:
            raise UserError("the weights are their averages here: step after the block of `averaged`")
        self.check_changes()
        self.follow_schedules()
        self._take_told()
        self.skipped, unscale = self._scaler()
        engines = [self._engine(index) for index in range(len(self.param_groups))]
        while len(self._engines) > len(engines):  # of groups taken away: what others took over goes on there
            del self._engines[max(self._engines)]
        self._shown.clear()  # what a new engine asked for is out of date after this update
        gradients = [[p.grad for p in group["params"]] for group in self.param_groups]
        for index, group in enumerate(self.param_groups):
            if group["clip_adaptive"]:
                enlarged = 1.0 if unscale is None else 1.0 / unscale  # by a GradScaler
                share = number(group["clip_adaptive"]) * enlarged
                gradients[index] = clipped_by_unit(group["params"], gradients[index], share)
        if len(gradients) > 1:
            self._check_gradients(gradients)
        try:
            looked = [
                engine.look(own) if isinstance(engine, Fused) else own
                for engine, own in zip(engines, gradients, strict=True)
            ]
            norm = None
            if any(group["clip_norm"] is not None for group in self.param_groups):
                norm = _total([_norm(e, own) for e, own in zip(engines, looked, strict=True)])
            norms = self._run(engines, looked, norm, unscale)
            self._shorten(engines)
        except (NotImplementedError, RuntimeError) as error:
            if any(g is not None and g.is_sparse for own in gradients for g in own):
                raise UserError("a gradient is sparse: build the layer with sparse=False") from error
            raise
        norm = _total(norms)
        self._norm = norm if norm is None or unscale is None else norm * unscale

    @property
    def gradient_norm(self) -> Tensor | None:
        norm = self._norm
        if norm is not None and not isinstance(norm, Tensor):
            # Made for who asks: on a small model that takes as long as the rest of the norm.
            self._norm = norm = torch.scalar_tensor(norm, dtype=torch.float64)
        return norm

    def _run(self, engines: list[Any], gradients: list[Any], norm: Any, unscale: Any) -> list[Any]:
        """Updates group by group; returns the norm of each one's gradients."""
        today = [self.today(index) for index in range(len(self.param_groups))]
        h = [own for own, _ in today]
        folded = [
            Folded(self._scale(group, norm, unscale), *around)
            for group, (_, around) in zip(self.param_groups, today, strict=True)
        ]
        work = list(zip(engines, gradients, h, folded, strict=True))
        if engines and engines[0].rule.sums is not None:
            parts = [e.sums(g, own, f) for e, g, own, f in work]
            totals = tuple(sum(column) for column in zip(*filter(None, parts), strict=True))
            work = [(e, g, {**own, "sums": totals}, f) for e, g, own, f in work]
        return [_step(e, g, own, f, self.skipped) for e, g, own, f in work]

    def _shorten(self, engines: list[Any]) -> None:
        """Holds the units of each group to its `max_norm`; a skipped update's are so already."""
        for group, engine in zip(self.param_groups, engines, strict=True):
            if group["max_norm"] is not None:
                averages = [state.get(AVERAGE) for state in engine.state]
                share = 0.0 if group["ema"] is None else 1 - number(group["ema"])
                shorten(group["params"], number(group["max_norm"]), averages, share)

    def today(self, index: int) -> tuple[dict[str, float], tuple[Any, ...]]:
        """A group's hyperparameters by their names in the formula, and what `_around` says of it."""
        checked = self._checked.get(index)  # it is the same list while no value of the group is another
        read = self._read.get(index)
        if read is not None and read[0] is checked:
            return read[1], read[2]
        group = self.param_groups[index]
        h, around = self.hyperparameters(index), self._around(group)
        if checked is not None:
            self._read[index] = checked, h, around
        return h, around

    def _around(self, group: dict[str, Any]) -> tuple[Any, ...]:
        """The parts of `Folded` but the scale, in their order."""
        l2, decay = number(group["weight_decay"]), number(group["decay"])
        if group.get("decoupled_weight_decay") or group["decoupled"]:
            l2, decay = 0.0, l2 + decay
        limit, ema = group["clip_value"], group["ema"]
        limit = math.inf if limit is None else number(limit)
        return limit, l2, decay, number(group["l1"]), None if ema is None else number(ema)

    def _scale(self, group: dict[str, Any], norm: float | Tensor | None, unscale: Any) -> Any:
        """What a group's gradients are multiplied with."""
        scale: Any = 1.0 if unscale is None else unscale
        if group["clip_norm"] is not None and norm is not None:
            now = (norm if isinstance(norm, Tensor) and not norm.is_cpu else float(norm)) * scale
            # As torch's clip_grad_norm_: the small number keeps a norm of 0 from dividing.
            share = number(group["clip_norm"]) / (now + 1e-6)
            scale = scale * (share.clamp(max=1.0) if isinstance(share, Tensor) else min(share, 1.0))
        return -scale if group.get("maximize") else scale

    def _scaler(self) -> tuple[Tensor | None, Tensor | None]:
        """Whether to skip this update, and what unscales the gradients, by a GradScaler that steps this."""
        if not hasattr(self, "found_inf"):
            return None, None
        scaler: Any = vars(self)  # what a GradScaler sets before the step and deletes after it
        scale = scaler["grad_scale"]
        return scaler["found_inf"] > 0, None if scale is None else scale.double().reciprocal()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's, without its profiler's record."""
        if not set_to_none:
            return super().zero_grad(set_to_none)
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    # -- engines and state ------------------------------------------------------------------------------

    def engines(self) -> list[Any]:
        """The engines, one a parameter group, with each parameter's state tensors."""
        return [self._engine(number) for number in range(len(self.param_groups))]

    def _engine(self, index: int) -> Any:
        """The engine of a parameter group: made when first needed, since groups can be added later, and
        anew when the group's rule changes or its parameters moved to where the engine cannot follow."""
        group = self.param_groups[index]
        rule, engine = self.rule_of(group), self._engines.get(index)
        rows = rule in self.lazy and any(p.grad is not None and p.grad.is_sparse for p in group["params"])
        if rows:
            _check_rows(group)
        average = group["ema"] is not None
        same = engine is not None and engine.rule is rule and self._averages[index] is average
        same = same and (not rows or isinstance(engine, Rows))
        # A program may have put other parameters into the group.
        if (
            engine
            and same
            and len(engine.parameters) == len(group["params"])
            and all(map(operator.is_, engine.parameters, group["params"]))
        ):
            try:
                if torch.is_inference_mode_enabled():
                    with torch.inference_mode(False):
                        engine.follow()
                else:
                    engine.follow()
                return engine
            except Unsupported:
                pass
        told = self.state
        h = {name: number(value) for name, value in self._named(group).items()}
        name = "rows" if rows else self._engine_name
        with torch.inference_mode(False):  # the state is to outlive a first step inside that mode
            engine = engine_for(rule, group["params"], h, average, self._kind, self._stochastic, name)
        for i, p in enumerate(engine.parameters):
            values = {name: v for name, v in told.get(p, {}).items() if v is not None}
            if values:
                self._check_state(values.keys() - {"step", AVERAGE}, rule)
                if not engine.state[i] or values.keys() & engine.state[i].keys():
                    # torch's momentum counts no steps: that there is state says that there was one.
                    engine.steps[i] = _step_of(values)  # else this rule begins now
                for key, value in engine.state[i].items():
                    if key in values:
                        if isinstance(values[key], Tensor) and values[key].shape != value.shape:
                            raise UserError(
                                f"the state's {key} of parameter {i} has shape {tuple(values[key].shape)}, "
                                f"not {tuple(value.shape)}: load the state of the same model"
                            )
                        value.copy_(values[key])
        self._engines[index], self._averages[index] = engine, average
        self._shown.pop(index, None)
        return engine

    @property
    def state(self) -> defaultdict[Tensor, dict[str, Any]]:  # type: ignore[override]
        """Each parameter's `step` and state, told when asked, so that an update need not write it."""
        told = self.__dict__["state"]
        for number_, engine in self._engines.items():
            if self._shown.get(number_) != engine.steps:
                self._shown[number_] = list(engine.steps)
                for p, step, values in zip(engine.parameters, engine.steps, engine.state, strict=True):
                    if step:
                        # What another rule of this optimizer left stays, as in torch.
                        told[p] = {**told.get(p, {}), "step": self._told_step(step), **values}
                    else:
                        told.pop(p, None)  # no update, no state, as in torch
        return told

    def _check_gradients(self, gradients: list[list[Tensor | None]]) -> None:
        """Refuses what an engine would, before the first of several has changed anything."""
        for group, own in zip(self.param_groups, gradients, strict=True):
            for p, g in zip(group["params"], own, strict=True):
                if g is not None and g.is_sparse and self.rule_of(group) not in self.lazy:
                    raise UserError("a gradient is sparse: build the layer with sparse=False")
                if g is not None and g.shape != p.shape:
                    raise UserError(
                        f"a gradient has shape {tuple(g.shape)} and its parameter {tuple(p.shape)}"
                    )

    def _take_told(self) -> None:
        """Drops the engines whose state the user has replaced since it was told: the new one counts."""
        told = self.__dict__["state"]
        for index, steps in self._shown.items():
            engine = self._engines[index]
            for p, step, values in zip(engine.parameters, steps, engine.state, strict=True):
                own = told.get(p, {})
                replaced = any(own.get(name, value) is not value for name, value in values.items())
                if step and (replaced or "step" not in own or int(own["step"]) != step):
                    del self._engines[index]
                    break
        self._shown.clear()

    def _told_step(self, step: int) -> Any:
        return torch.tensor(float(step))

    @state.setter
    def state(self, value: defaultdict[Tensor, dict[str, Any]]) -> None:
        self._forget()
        self.__dict__["state"] = value

    def _check_state(self, names: set[str], rule: Rule) -> None:
        """Refuses state that is not that of one of the rules."""
        least, most = ({s.name for s in r.state} for r in (self.rules[0], self.rules[-1]))
        if not least <= names <= most:
            raise UserError(
                f"this state has {', '.join(sorted(names)) or 'only step'}, which is not that of "
                f"{rule.name}: load the state of the same optimizer"
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for group in state_dict["param_groups"]:
            rule = self.rule_of({**self.defaults, **group})
            for i in group["params"]:
                names = {n for n, v in state_dict["state"].get(i, {}).items() if v is not None}
                if names:
                    self._check_state(names - {"step", AVERAGE}, rule)
        super().load_state_dict(state_dict)
        # torch rounded the state to the weights' type; what is kept finer than them comes back as it was.
        finer = {s.name for rule in self.rules for s in rule.state if s.scalar}
        saved = [state_dict["state"].get(i, {}) for g in state_dict["param_groups"] for i in g["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for p, values in zip(params, saved, strict=True):
            told = self.state.get(p, {})
            for name, value in values.items():
                if isinstance(value, Tensor) and (name in finer or value.dtype is self._kind):
                    rounded = told.get(name)  # a hook may have put another in its place
                    if isinstance(rounded, Tensor) and torch.equal(rounded, value.to(rounded)):
                        told[name] = value.detach().to(rounded.device, copy=True)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside this block the weights are their averages (`ema`); afterwards what they were.

        >>> with optimizer.averaged():  # doctest: +SKIP
        ...     accuracy = evaluate(model)
        """
        pairs = [
            (p, state[AVERAGE])
            for engine in self.engines()
            for p, state in zip(engine.parameters, engine.state, strict=True)
            if AVERAGE in state
        ]
        if self._averaging:
            raise UserError("the weights are their averages already: `averaged` is not to be nested")
        if not pairs:
            raise UserError(
                "there is no average of the weights: give the optimizer ema=0.999, say (a loaded state "
                "brings its own ema)"
            )
        before = [p.detach().clone() for p, _ in pairs]
        with torch.no_grad():
            for p, average in pairs:
                p.copy_(average)
        self._averaging = True
        try:
            yield
        finally:
            self._averaging = False
            with torch.no_grad():
                for (p, _), value in zip(pairs, before, strict=True):
                    p.copy_(value)


def _norm(engine: Any, gradients: Any) -> float | Tensor | None:
    """The norm of a group's gradients."""
    if not isinstance(gradients, Looked):
        return engine.norm(gradients)
    engine.measure(gradients)
    return gradients.norm


def _step(engine: Any, gradients: Any, h: Any, folded: Folded, skip: Tensor | None) -> float | Tensor | None:
    """Updates a group; returns the norm of its gradients."""
    if not isinstance(gradients, Looked):
        return engine.step(gradients, h, folded, skip)
    engine.update(gradients, h, folded, skip)
    return gradients.norm


def _total(norms: list[float | Tensor | None]) -> float | Tensor | None:
    """The norm of all from those of the groups."""
    parts = [norm for norm in norms if norm is not None]
    if len(parts) < 2:
        return parts[0] if parts else None
    if any(isinstance(norm, Tensor) for norm in parts):
        return total_norm([torch.as_tensor(norm, dtype=torch.float64) for norm in parts])
    return math.sqrt(sum(float(norm) * float(norm) for norm in parts))


def _update(optimizer: RuleOptimizer) -> None:
    optimizer.update()  # the class's own


# It, kept from torch.compile, which cannot look into kernels that are called by their address.
_untraced: dict[str, Callable[[RuleOptimizer], None]] = {}


def _check_rows(group: Mapping[str, Any]) -> None:
    """Refuses what would change all rows of a weight where only some have a gradient."""
    for name in ("weight_decay", "decay", "l1", "clip_adaptive", "max_norm"):
        if group[name]:
            raise UserError(
                f"{name}={group[name]!r} changes every row of a weight, and its gradient is sparse: leave "
                f"{name} out, or build the layer with sparse=False"
            )


def _step_of(values: dict[str, Any]) -> int:
    step = float(values.get("step", 1))
    if not (math.isfinite(step) and step >= 0):
        raise UserError(f"the state's step is {step:g}, and must be a number of at least 0")
    return int(step)
