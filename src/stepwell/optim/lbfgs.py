"""L-BFGS: the Newton direction from the last few steps and changes of the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from stepwell.errors import UserError
from stepwell.optim.checked import CheckedOptimizer, Number
from stepwell.optim.extras import GROUP_EXTRAS, WHOLE_EXTRAS
from stepwell.optim.hyperparameters import check_names, number
from stepwell.optim.line_search import Point, strong_wolfe

NARROW = 1e-9  # a bracket that moves no weight by more than this is not searched further


def newton_direction(
    g: Tensor, steps: Sequence[Tensor], changes: Sequence[Tensor], rhos: Sequence[Any], scale: Any
) -> Tensor:
    """−H g, with H the inverse of the Hessian that pairs s (steps) and y (changes of g) tell, oldest first.

    q ← −g;  newest to oldest: α = ρ sᵀq, q ← q − α y;  r ← scale · q;  oldest to newest:
    r ← r + (α − ρ yᵀr) s, with ρ = 1 / yᵀs of each pair (`rhos`).

    Source: Nocedal & Wright 2006, Algorithm 7.4.
    """
    pairs = list(zip(steps, changes, rhos, strict=True))
    q, shares = -g, []
    for s, y, rho in reversed(pairs):
        shares.append(s.dot(q) * rho)
        q = q - shares[-1] * y
    r = scale * q
    for (s, y, rho), share in zip(pairs, reversed(shares), strict=True):
        r = r + (share - y.dot(r) * rho) * s
    return r


class LBFGS(CheckedOptimizer):
    """w ← w + t d with d = −H g, H the inverse of the Hessian as the last steps tell it (`newton_direction`).

    It needs the whole loss, the same at each call: `step(closure)` calls a function that clears the
    gradients, computes the loss, calls backward and returns the loss. All parameters are one group.

    lr: t without a line search, and the first t to try with one, ≥ 0; at the very first it is multiplied by
    min(1, 1/‖g‖₁). max_iter: iterations a step. max_eval: calls of the closure a step, default 1.25 ·
    max_iter. tolerance_grad: ends where no |g| is larger. tolerance_change: ends where no weight, or the
    loss, moves by more. history_size: how many pairs are kept, each twice the weights' memory.
    line_search_fn: None or "strong_wolfe". As `torch.optim.LBFGS`, its arguments in its order. What other
    optimizers fold in (clipping, decay, an average) is refused: it belongs into the closure.

    `gradient_norm` is the gradients' norm at the start of the last step, a tensor.

    Source: Nocedal & Wright 2006, Algorithm 7.5 with H₀ of eq. 7.20; differs from torch where a loss of the
    line search is not finite.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
        **extras: Any,
    ) -> None:
        if callable(max_iter):
            raise UserError("max_iter cannot be a schedule: give a whole number of at least 1")
        if max_eval is None and isinstance(max_iter, (int, float)):
            max_eval = max_iter * 5 // 4
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        for name in extras:
            if name in GROUP_EXTRAS | WHOLE_EXTRAS:
                raise UserError(
                    f"LBFGS does not take {name}: its steps follow from the closure's loss and gradients"
                )
        check_names("LBFGS", extras, ["params", *defaults])
        self.gradient_norm: Tensor | None = None
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.gradient_norm = None
        super().__setstate__(state)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self.param_groups:
            raise UserError("LBFGS doesn't support parameter groups: give it all parameters as one")
        super().add_param_group(param_group)

    def check_together(self, group: dict[str, Any]) -> None:
        search = group["line_search_fn"]
        if search not in (None, "strong_wolfe"):
            raise UserError(f"line_search_fn={search!r} does not exist: give 'strong_wolfe' or None")

    def _named(self, values: dict[str, Any]) -> dict[str, Any]:
        return {name: values[name] for name in self.defaults if name != "line_search_fn"}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Makes up to max_iter iterations; returns the closure's loss before them."""
        if not callable(closure):
            raise UserError("LBFGS needs step(closure), a function that calls backward and returns the loss")
        self.follow_schedules()
        self.check_changes()
        group = self.param_groups[0]
        parameters, lr = group["params"], number(group["lr"])
        memory = self.state[parameters[0]]  # where torch has it; its names are torch's
        memory.setdefault("func_evals", 0)
        memory.setdefault("n_iter", 0)

        def look() -> tuple[Any, Tensor]:
            memory["func_evals"] += 1
            with torch.enable_grad():
                result = closure()
            return result, _flat(parameters)

        calls = memory["func_evals"]
        first, g = look()
        loss = float(first)
        self.gradient_norm = torch.linalg.vector_norm(g)
        if float(g.abs().max()) <= group["tolerance_grad"]:
            return first
        for iteration in range(1, int(group["max_iter"]) + 1):
            memory["n_iter"] += 1
            if memory["n_iter"] == 1:
                memory |= {"d": -g, "old_dirs": [], "old_stps": [], "ro": [], "H_diag": 1.0}
                t = lr * min(1.0, 1.0 / float(g.abs().sum()))
            else:
                _remember(memory, g, int(group["history_size"]))
                t = lr
            d, loss_before = memory["d"], loss
            memory |= {"t": t, "prev_flat_grad": g, "prev_loss": loss}
            slope = float(g.dot(d))
            if slope > -group["tolerance_change"]:
                break
            if group["line_search_fn"] is not None:
                at = _along(parameters, d, look)
                most = group["max_eval"] - (memory["func_evals"] - calls)
                narrow = NARROW / max(float(d.abs().max()), 1e-300)
                found, _ = strong_wolfe(at, Point(0.0, loss, slope, g), t, most, narrow)
                memory["t"], loss, g = found.step, found.loss, found.gradient
            _move(parameters, memory["t"], d)
            if iteration == group["max_iter"]:
                break
            if group["line_search_fn"] is None:
                result, g = look()
                loss = float(result)
            if (
                memory["func_evals"] - calls >= group["max_eval"]
                or float(g.abs().max()) <= group["tolerance_grad"]
                or float((memory["t"] * d).abs().max()) <= group["tolerance_change"]
                or abs(loss - loss_before) < group["tolerance_change"]
            ):
                break
        return first


def _remember(memory: dict[str, Any], g: Tensor, most: int) -> None:
    """Takes the last step and change of the gradient into the memory, and from it the next direction."""
    y, s = g - memory["prev_flat_grad"], memory["d"] * memory["t"]
    ys = y.dot(s)
    if ys > 1e-10:  # else the loss curves down along s, and the pair would spoil H
        for name, value in (("old_dirs", y), ("old_stps", s), ("ro", 1.0 / ys)):
            memory[name] = [*memory[name][-(most - 1) :], value] if most > 1 else [value]
        memory["H_diag"] = ys / y.dot(y)
    memory["d"] = newton_direction(g, memory["old_stps"], memory["old_dirs"], memory["ro"], memory["H_diag"])


def _flat(parameters: list[Tensor]) -> Tensor:
    """The gradients as one vector; 0 where there is none."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return torch.cat([(g.to_dense() if g.is_sparse else g).reshape(-1) for g in parts])


def _along(
    parameters: list[Tensor], d: Tensor, look: Callable[[], tuple[Any, Tensor]]
) -> Callable[[float], Point]:
    """What is at a step along d from here, where the weights stay."""
    start = [p.clone() for p in parameters]

    def at(t: float) -> Point:
        _move(parameters, t, d)
        try:
            loss, g = look()
        finally:
            for p, value in zip(parameters, start, strict=True):
                p.copy_(value)
        return Point(t, float(loss), float(g.dot(d)), g)

    return at


def _move(parameters: list[Tensor], t: float, d: Tensor) -> None:
    for p, part in zip(parameters, d.split([p.numel() for p in parameters]), strict=True):
        p.add_(part.view(p.shape), alpha=t)
