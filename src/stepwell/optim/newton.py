"""Newton's method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor

from stepwell.curvature.conjugate_gradients import newton_direction
from stepwell.curvature.products import LIMIT, Curvature
from stepwell.curvature.spectrum import through_spectrum
from stepwell.errors import UserError
from stepwell.optim.checked import Number
from stepwell.optim.second_order import Closure, SecondOrder, check_count

SOLVERS = ("auto", "direct", "cg")


class Newton(SecondOrder):
    """w ← w − η (H + λI)⁻¹ g, with the Hessian H of the closure's loss.

    lr: η ≥ 0, default 1: the whole step to where the quadratic model's gradient is 0. damping: λ ≥ 0,
    default 0. solver: "direct" takes the whole H, up to 2,000 parameters; "cg" solves by conjugate
    gradients on Hessian-vector products; "auto", the default, is direct where it can be. iterations: the
    most products of "cg" in an update, default 50. tolerance: where "cg" stops, the residual's share of
    ‖g‖; None, the default, is min(½, √‖g‖). search: True, the default, halves a downhill step until the
    loss falls by 1e-4 of what its slope promises; False is the formula as it stands.

    Cost of an update: a gradient, n products ("direct", with n³ operations) or at most `iterations`, and
    with `search` a loss or more.
    Source: Nocedal & Wright 2006, section 3.3 and algorithm 7.1.
    Trap: "direct" goes to any critical point, a saddle or a maximum as well; "cg" stops where it meets
    negative curvature and goes downhill. "direct" leaves directions with λᵢ + λ = 0 (within rounding) alone.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1.0,
        damping: Number = 0.0,
        *,
        solver: Literal["auto", "direct", "cg"] = "auto",
        iterations: int = 50,
        tolerance: float | None = None,
        search: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "damping": damping,
            "solver": solver,
            "iterations": iterations,
            "tolerance": tolerance,
            "search": search,
        }
        super().__init__(params, defaults)

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        if group["solver"] not in SOLVERS:
            raise UserError(f"solver={group['solver']!r} does not exist: give one of {', '.join(SOLVERS)}")
        check_count("iterations", group["iterations"])

    def change(self, at: Curvature, closure: Closure) -> Tensor:
        group, g = self.param_groups[0], at.gradient
        damping = float(group["damping"])
        if group["solver"] == "direct" or (group["solver"] == "auto" and g.numel() <= LIMIT):
            d = -through_spectrum(at.matrix(), g, lambda values: values + damping)
        else:
            d = newton_direction(
                lambda v: at.product(v) + damping * v, g, group["iterations"], group["tolerance"]
            )
        return self.along(d, at, closure)
