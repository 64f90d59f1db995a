"""A rule's text traced to a list of operations, which engines print or run.

The text is run once on symbols. A symbol is *uniform* if it is one number for a whole tensor (the step,
a hyperparameter, a scalar of the state, and what is computed from these alone) and has a value for each
element otherwise. Engines compute uniform operations once a tensor, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from stepwell.engine.text import PLAIN, Folded, gradient, whole_update
from stepwell.rules import Rule

FOLDED = ("scale", "clip_value", "l2", "decay", "l1", "ema")


class Untraceable(Exception):
    """A rule's text does what has no symbol: it runs on the eager engine."""


@dataclass(frozen=True)
class Operation:
    """One operation. Inputs are places of earlier operations; `value` is a constant's or an input's name."""

    name: str
    inputs: tuple[int, ...] = ()
    value: Any = None
    uniform: bool = True


@dataclass(frozen=True)
class Program:
    """A traced update.

    operations: in an order in which each uses only earlier ones. elements: names of the inputs with a
    value for each element, `scalars`: of the uniform ones. results: the place of each new value, by the
    name of the input that it replaces. plain: the same for updates that are `is_plain`, which have less
    to compute; from the same inputs in the same order. totals: places of what is added up over all
    elements; if there is none, Σ g² is.
    """

    operations: tuple[Operation, ...]
    elements: tuple[str, ...]
    scalars: tuple[str, ...]
    results: dict[str, int]
    plain: Program | None = None
    totals: tuple[int, ...] = ()


SQUARES = Program((Operation("input", (), "g", False),), ("g",), (), {})  # changes nothing: for Σ g²


def trace(rule: Rule, average: bool = False) -> Program:
    """The program of a rule's whole update.

    Its inputs are `w`, `g`, `state.NAME`, `average` (if asked for), `t`, the hyperparameters by name,
    what is folded in (`scale`, `clip_value`, `l2`, `decay`, `l1`, `ema`) and `sums.0` ….

    Raises Untraceable if the rule needs whole tensors or its text cannot be run on symbols.
    """
    if not rule.elementwise:
        raise Untraceable("it needs whole tensors")
    return replace(_trace(rule, average), plain=_trace(rule, average, **PLAIN))


def trace_sums(rule: Rule) -> Program:
    """The program of `rule.sums`, from the same inputs but the sums: it changes nothing.

    Raises Untraceable as `trace` does.
    """
    tape = _Tape()
    w, g, state, _, t, h, folded = _inputs(tape, rule, False)
    try:
        assert rule.sums is not None
        summands = rule.sums(w, gradient(w, g, folded), *state, t=t, **h)
        totals = tuple(tape.place(x) for x in summands)
    except Exception as error:  # whatever a user's text raises on symbols
        raise Untraceable(f"its sums cannot be traced ({error})") from error
    return _program(tape, {}, totals)


def _trace(rule: Rule, average: bool, **neutral: float) -> Program:
    tape = _Tape()
    w, g, state, mean, t, h, folded = _inputs(tape, rule, average)
    folded = replace(folded, **neutral)
    try:
        if rule.sums is not None:
            h["sums"] = tuple(tape.input(f"sums.{i}") for i in range(number_of_sums(rule)))
        w, state, mean = whole_update(rule, w, g, state, mean, t, h, folded)
        results = {"w": tape.place(w)}
        results |= {f"state.{s.name}": tape.place(v) for s, v in zip(rule.state, state, strict=True)}
    except Exception as error:  # whatever a user's text raises on symbols
        raise Untraceable(f"its text cannot be traced ({error})") from error
    if mean is not None:
        results["average"] = tape.place(mean)
    for s in rule.state:
        if s.scalar and not tape.operations[results[f"state.{s.name}"]].uniform:
            raise Untraceable(f"its scalar {s.name} would get a value for each element")
    return _program(tape, results)


def _inputs(tape: _Tape, rule: Rule, average: bool) -> tuple[Any, ...]:
    """w, g, the state, its average, t, the hyperparameters and what is folded in, as symbols."""
    w, g = tape.input("w", uniform=False), tape.input("g", uniform=False)
    state = [tape.input(f"state.{s.name}", uniform=s.scalar) for s in rule.state]
    mean = tape.input("average", uniform=False) if average else None
    t = tape.input("t")
    h = {name: tape.input(name) for name in rule.defaults}
    folded = Folded(**{name: tape.input(name) for name in FOLDED if average or name != "ema"})
    return w, g, state, mean, t, h, folded


def _program(tape: _Tape, results: dict[str, int], totals: tuple[int, ...] = ()) -> Program:
    inputs = [op for op in tape.operations if op.name == "input"]
    return Program(
        tuple(tape.operations),
        tuple(op.value for op in inputs if not op.uniform),
        tuple(op.value for op in inputs if op.uniform),
        results,
        totals=totals,
    )


def number_of_sums(rule: Rule) -> int:
    """How many numbers a rule adds up over all parameters."""
    if rule.sums is None:
        return 0
    one = torch.ones(1, dtype=torch.float64)
    state = [one.reshape(()) if s.scalar else one for s in rule.state]
    return len(rule.sums(one, one, *state, t=1, **rule.defaults))


class _Tape:
    """Writes down operations; the same operation on the same inputs is written once."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._places: dict[Operation, int] = {}

    def input(self, name: str, uniform: bool = True) -> Symbol:
        return Symbol(self, self._write(Operation("input", (), name, uniform)))

    def apply(self, name: str, *arguments: Any) -> Symbol:
        inputs = tuple(self.place(a) for a in arguments)
        uniform = all(self.operations[i].uniform for i in inputs)
        return Symbol(self, self._write(Operation(name, inputs, None, uniform)))

    def place(self, value: Any) -> int:
        """Where a symbol's operation, or a number's, is."""
        if isinstance(value, Symbol):
            return value.place
        if isinstance(value, (bool, int, float)):
            return self._write(Operation("constant", (), float(value)))
        raise TypeError(f"{type(value).__name__} is no number and no tensor of the update")

    def _write(self, operation: Operation) -> int:
        if operation not in self._places:
            self._places[operation] = len(self.operations)
            self.operations.append(operation)
        return self._places[operation]


class Symbol:
    """Stands for a tensor or number while a rule's text is traced."""

    def __init__(self, tape: _Tape, place: int) -> None:
        self.tape, self.place = tape, place

    def __bool__(self) -> bool:
        raise TypeError("an `if` on a tensor or hyperparameter; write select(condition, a, b)")

    def __float__(self) -> float:
        raise TypeError(
            "a tensor, hyperparameter or t turned into a Python number; use sqrt, exp, log … of "
            "stepwell.rules.words"
        )

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(function, "__name__", str(function))
        if name not in METHODS:
            raise TypeError(f"torch.{name} is not among the operations of the fused engine")
        first = next(a for a in args if isinstance(a, Symbol))
        return METHODS[name](first.tape.apply, *args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in METHODS:
            raise AttributeError(f"{name} is not among the operations of the fused engine")
        return lambda *args, **kwargs: METHODS[name](self.tape.apply, self, *args, **kwargs)


def _lerp(do: Callable[..., Symbol], a: Any, b: Any, weight: Any) -> Any:
    return do("add", a, do("mul", weight, do("sub", b, a)))


def _clamp(do: Callable[..., Symbol], x: Any, min: Any = None, max: Any = None) -> Any:
    x = x if min is None else do("max", x, min)
    return x if max is None else do("min", x, max)


def _sum_with(operation: str) -> Callable[..., Any]:
    def run(do: Callable[..., Symbol], x: Any, a: Any, b: Any, *, value: Any = 1.0) -> Any:
        return do("add", x, do("mul", value, do(operation, a, b)))

    return run


def _plain(name: str) -> Callable[..., Any]:
    return lambda do, *arguments: do(name, *arguments)


BINARY = {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "pow": "pow"}
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
UNARY = ("neg", "abs", "sqrt", "sign", "exp", "log", "tanh")

# torch's functions and methods by name → how they are written down.
METHODS: dict[str, Callable[..., Any]] = {
    **{name: _plain(name) for name in (*BINARY.values(), *COMPARISONS, *UNARY)},
    "subtract": _plain("sub"),
    "multiply": _plain("mul"),
    "divide": _plain("div"),
    "where": _plain("where"),
    "maximum": _plain("max"),
    "minimum": _plain("min"),
    "logical_and": _plain("and"),
    "logical_or": _plain("or"),
    "square": lambda do, x: do("mul", x, x),
    "rsqrt": lambda do, x: do("div", 1.0, do("sqrt", x)),
    "reciprocal": lambda do, x: do("div", 1.0, x),
    "lerp": _lerp,
    "clamp": _clamp,
    "clip": _clamp,
    "addcmul": _sum_with("mul"),
    "addcdiv": _sum_with("div"),
}


def _operator(name: str, reflected: bool) -> Callable[..., Any]:
    def run(self: Symbol, other: Any) -> Any:
        pair = (other, self) if reflected else (self, other)
        if name == "pow" and isinstance(pair[1], (int, float)) and pair[1] == 2:
            return self.tape.apply("mul", self, self)
        return self.tape.apply(name, *pair)

    return run


for _python, _name in BINARY.items():
    setattr(Symbol, f"__{_python}__", _operator(_name, False))
    setattr(Symbol, f"__r{_python}__", _operator(_name, True))
for _name in COMPARISONS:
    setattr(Symbol, f"__{_name}__", _operator(_name, False))
Symbol.__hash__ = object.__hash__  # type: ignore[method-assign]
Symbol.__and__ = _operator("and", False)  # type: ignore[attr-defined]
Symbol.__or__ = _operator("or", False)  # type: ignore[attr-defined]
Symbol.__neg__ = lambda self: self.tape.apply("neg", self)  # type: ignore[attr-defined]
Symbol.__abs__ = lambda self: self.tape.apply("abs", self)  # type: ignore[attr-defined]
