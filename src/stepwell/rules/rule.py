"""What an update rule is: a pure function, and what an engine must know to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class State:
    """What a rule keeps for a parameter from one update to the next.

    name: torch's name where torch has the rule. start: the value before the first update: a number,
        the name of a hyperparameter that gives it, or a function of the weight that makes the tensor.
    scalar: one number a parameter (a 0-d tensor), not one an element.
    """

    name: str
    start: float | str | Callable[[Tensor], Tensor] = 0.0
    scalar: bool = False


@dataclass(frozen=True)
class Rule:
    """An update rule: one formula, and what an engine must know to run it.

    update: (w, g, *state, t, **hyperparameters) → (w⁺, *state⁺). It is pure: it reads tensors and
        returns new ones, and never changes its arguments. t counts from 1. It, the hyperparameters and
        the scalars of the state are numbers, tensors that broadcast against w (a population), or the
        symbols of a trace (the fused engine): so no `if` on them, but `select` (see `words`).
    state: what is kept, in the order of the arguments.
    defaults: the hyperparameters and their default values.
    elementwise: an element's new value depends on that element (and on scalars) alone, so that any
        engine may cut, join and lay out tensors as it likes. The others get whole tensors.
    matrices: it multiplies or decomposes matrices, which rounds otherwise when many are done at once (and
        chooses other eigenvectors of equal eigenvalues): of a population, one member after the other.
    sums: (w, g, *state, t, **hyperparameters) → tensors of w's shape, for a rule that looks at all
        parameters at once. Their elements are added up over all parameters of the optimizer before the
        update, which gets the totals as `sums`.
    text: the function that reads as the formula, where `update` only calls it.
    """

    name: str
    update: Callable[..., tuple[Tensor, ...]]
    state: tuple[State, ...] = ()
    defaults: Mapping[str, float] = field(default_factory=dict)
    elementwise: bool = True
    matrices: bool = False
    sums: Callable[..., tuple[Tensor, ...]] | None = None
    text: Callable[..., tuple[Tensor, ...]] | None = None

    @property
    def function(self) -> Callable[..., tuple[Tensor, ...]]:
        """The function whose docstring is the formula and whose body is the same as code."""
        return self.text or getattr(self.update, "func", self.update)
