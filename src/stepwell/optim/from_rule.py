"""An optimizer class from a formula of one's own."""

from __future__ import annotations

import difflib
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stepwell.engine.eager import Eager
from stepwell.engine.program import FOLDED, Untraceable, trace
from stepwell.engine.state import new_state
from stepwell.engine.sums import add_up
from stepwell.engine.text import Folded
from stepwell.errors import UserError
from stepwell.optim.extras import GROUP_EXTRAS, WHOLE_EXTRAS, Number
from stepwell.optim.hyperparameters import ANY, LENGTHS, NOT_HERE
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules import Rule, State

# Names that mean something in every group, in a rule's call or in the state.
TAKEN = {"params", "updates", "weight_decay", "maximize", "t", "sums", "step"}
TAKEN |= {*GROUP_EXTRAS, *WHOLE_EXTRAS, *NOT_HERE, *LENGTHS, *FOLDED, "w", "g", "average"}
SHAPE = (3, 4)  # of the weight that a formula is tried on


def from_rule(rule: Rule | Callable[..., tuple[Tensor, ...]], **defaults: float) -> type[OwnRule]:
    """Makes an optimizer class of a `Rule`, or of a function that is an update's formula.

    rule: a pure function `(w, g, *state, *, t, **hyperparameters) → (w⁺, *state⁺)`. What stands between g
        and the star is state that starts at 0, t counts the updates from 1, what follows t are
        hyperparameters; lr is one of them. See `Rule` for state that starts elsewhere, and `rules.words`
        for what a formula may say to run on every engine.
    defaults: of the hyperparameters, as numbers; those of a `Rule` or in the function may be left out.

    Returns a class that is called with the parameters, hyperparameters by keyword, weight_decay (coupled),
    maximize, and `Extras`. The formula is tried once on random numbers, and refused if it changes its
    arguments or returns what does not fit. It runs fused where it can be traced and gives the eager engine's
    numbers; else on the eager engine, on whole tensors, and a warning says why.

    >>> def sign_momentum(w, g, m, *, t, lr, beta):
    ...     m = beta * m + (1 - beta) * g
    ...     return w - lr * m.sign(), m
    >>> SignMomentum = from_rule(sign_momentum, lr=1e-3, beta=0.9)
    >>> optimizer = SignMomentum([torch.zeros(3, requires_grad=True)], lr=0.01, clip_norm=1.0)
    >>> optimizer.hyperparameters()
    {'lr': 0.01, 'beta': 0.9}
    """
    made = _with_defaults(rule, defaults) if isinstance(rule, Rule) else _from_function(rule, defaults)
    _check_names(made)
    _try(made)
    if made.elementwise and (reason := _not_fused(made)):
        made = replace(made, elementwise=False)
        warnings.warn(f"{made.name} runs on the eager engine alone: {reason}", RuntimeWarning, stacklevel=2)
    return _class_of(made)


# -- from what is given to a Rule -----------------------------------------------------------------------


def _with_defaults(rule: Rule, defaults: Mapping[str, float]) -> Rule:
    _check_known(rule.name, defaults, list(rule.defaults))
    return replace(rule, defaults={**rule.defaults, **defaults})


def _from_function(function: Callable[..., Any], defaults: Mapping[str, float]) -> Rule:
    """The rule whose state and hyperparameters are the function's arguments."""
    if not callable(function):
        raise UserError(f"{function!r} is no rule: give a Rule, or a function such as {_form('my_rule')}")
    name = getattr(function, "__name__", type(function).__name__)
    name = name if name.isidentifier() else "own_rule"  # a lambda
    try:
        arguments = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} tells no arguments: wrap it as {_form(name)}") from error
    for a in arguments:
        if a.kind in (a.VAR_POSITIONAL, a.VAR_KEYWORD):
            raise UserError(f"{name} takes {a}: name each argument, as in {_form(name)}")
    tensors = [a for a in arguments if a.kind is not a.KEYWORD_ONLY]
    numbers = {a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY}
    for a in tensors:
        if a.name == "t" or a.name in defaults:
            raise UserError(f"{name} takes {a.name} before the star: put it after, as in {_form(name)}")
        if a.default is not a.empty:
            raise UserError(f"{name} gives {a} a default, but state starts at 0: write {a.name} alone")
    if len(tensors) < 2:
        raise UserError(f"{name} takes no weight and gradient: write it as {_form(name)}")
    if "t" not in numbers:
        raise UserError(f"{name} takes no t, the number of the update: write it as {_form(name)}")
    del numbers["t"]
    _check_known(name, defaults, list(numbers))
    numbers |= defaults
    if missing := [n for n, value in numbers.items() if value is inspect.Parameter.empty]:
        given = ", ".join(f"{n}=…" for n in missing)
        raise UserError(f"{name} has no default for {', '.join(missing)}: write from_rule({name}, {given})")
    return Rule(name, function, tuple(State(a.name) for a in tensors[2:]), numbers)


def _form(name: str) -> str:
    return f"def {name}(w, g, m, *, t, lr)"


def _check_known(name: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for n in given:
        if n not in known:
            near = difflib.get_close_matches(n, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}"
            raise UserError(f"{name} has no hyperparameter {n}; {hint}")


def _check_names(rule: Rule) -> None:
    if "lr" not in rule.defaults:
        raise UserError(f"{rule.name} has no hyperparameter lr, the rate that decay acts with: add it")
    states = [s.name for s in rule.state]
    for n in (*rule.defaults, *states):
        if n in TAKEN and (n not in states or n in ("step", "ema")):
            raise UserError(f"{n} cannot be a name in {rule.name}: it has its own meaning, choose another")
    for n, value in rule.defaults.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            raise UserError(f"{n}={value!r} cannot be a default of {rule.name}: give a number")


# -- trying it ------------------------------------------------------------------------------------------


@torch.no_grad()
def _try(rule: Rule) -> None:
    """Two updates of one weight: the arguments stay, the results fit, and the same call gives the same."""
    w, g = _random(SHAPE, 0), _random(SHAPE, 1)
    values = [w, g, *new_state(rule, w, rule.defaults).values()]
    names = ["w", "g", *(s.name for s in rule.state)]
    for t in (1, 2):
        before = [(x.clone(), x._version) for x in values]
        results = _call(rule, values, t)
        for name, x, (old, version) in zip(names, values, before, strict=True):
            if x._version != version or not _same(x, old):
                raise UserError(
                    f"{rule.name} changes its argument {name} in place: make a new tensor, as in m = 0.9 * m"
                )
        _check_results(rule, results, [w, *values[2:]], ["w", *names[2:]])
        if not all(map(_same, map(torch.as_tensor, results), map(torch.as_tensor, _call(rule, values, t)))):
            raise UserError(
                f"{rule.name} gives two results for the same arguments: leave out what is random or kept "
                "outside of its state"
            )
        values = [torch.as_tensor(results[0]), _random(SHAPE, t + 1), *map(torch.as_tensor, results[1:])]


def _call(rule: Rule, values: Sequence[Tensor], t: int) -> tuple[Any, ...]:
    h: dict[str, Any] = dict(rule.defaults)
    try:
        if rule.sums is not None:
            h["sums"] = tuple(x.sum() for x in rule.sums(*values, t=t, **h))
        return rule.update(*values, t=t, **h)
    except Exception as error:  # whatever a user's text raises
        raise UserError(
            f"{rule.name} fails on a weight of shape {SHAPE} with its defaults at t={t}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_results(rule: Rule, results: Any, values: Sequence[Tensor], names: Sequence[str]) -> None:
    wanted = f"return ({', '.join(names)}{',' if len(names) == 1 else ''})"
    if not isinstance(results, tuple):
        raise UserError(f"{rule.name} returns a {type(results).__name__} in place of a tuple: {wanted}")
    if len(results) != len(names):
        raise UserError(f"{rule.name} returns {len(results)} values in place of {len(names)}: {wanted}")
    scalars = {s.name for s in rule.state if s.scalar}
    for name, new, old in zip(names, results, values, strict=True):
        if not isinstance(new, Tensor) and not (name in scalars and isinstance(new, (int, float))):
            raise UserError(f"{rule.name} returns a {type(new).__name__} as {name}: it must be a tensor")
        if isinstance(new, Tensor) and new.shape != old.shape:
            raise UserError(
                f"{rule.name} returns {name} of shape {tuple(new.shape)} for one of {tuple(old.shape)}: they "
                "must be the same"
            )


def _not_fused(rule: Rule) -> str | None:
    """Why the fused engine cannot run the rule, None if it can."""
    from stepwell.engine.fused import Fused  # llvmlite loads when used

    try:
        trace(rule)
    except Untraceable as reason:
        return str(reason)
    runs = []
    for engine in (Eager, Fused):
        parameters = [_random(shape, 10) for shape in (SHAPE, (5,))]
        run = engine(rule, parameters, rule.defaults)
        for t in range(5):
            gradients: list[Tensor | None] = [_random(p.shape, 20 + t) for p in parameters]
            h: dict[str, Any] = dict(rule.defaults)
            if rule.sums is not None:
                h["sums"] = tuple(add_up(rule, parameters, gradients, run.state, run.steps, h, Folded()))
            run.step(gradients, h)
        runs.append(parameters + [x for state in run.state for x in state.values()])
    pairs = zip(*runs, strict=True)
    if all(torch.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True) for a, b in pairs):
        return None
    return "traced, it gives other numbers"


def _random(shape: Sequence[int], seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal to the last bit, NaN too."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


# -- the class ------------------------------------------------------------------------------------------


class OwnRule(RuleOptimizer):
    """What `from_rule` makes subclasses of, each with one rule."""

    def __init__(
        self, params: Iterable[Any], *, weight_decay: Number = 0.0, maximize: bool = False, **values: Any
    ) -> None:
        own = {n: values.pop(n, default) for n, default in self.rules[0].defaults.items()}
        if not self.rules[0].elementwise:  # `from_rule` has said so
            values.setdefault("engine", "eager")
        super().__init__(params, {**own, "weight_decay": weight_decay, "maximize": maximize}, values)


def _class_of(rule: Rule) -> type[OwnRule]:
    words = rule.name.replace("-", "_").split("_")
    name = "".join(word[:1].upper() + word[1:] for word in words)
    first, *rest = inspect.signature(OwnRule).parameters.values()
    named = [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=default)
        for n, default in rule.defaults.items()
    ]
    return type(
        name,
        (OwnRule,),
        {
            "rules": (rule,),
            "__module__": rule.function.__module__,  # where pickle looks for it, under its own name
            "ranges": {n: ANY for n, d in rule.defaults.items() if n != "lr" and math.isfinite(d)},
            "__doc__": rule.update.__doc__ or f"An optimizer made from {rule.name}.",
            "__signature__": inspect.Signature([first, *named, *rest]),  # what help() shows
        },
    )
