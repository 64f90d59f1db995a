"""Max-norm: a bound on the length of each unit's weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from stepwell.errors import UserError
from stepwell.optim.clipping import unit_norms


def max_norm(w: Tensor, limit: float | Tensor) -> Tensor:
    """Returns the weight with no unit longer than `limit`.

    w ← w · c / max(‖w‖, c), c the limit, for each row of a matrix and each filter of a convolution: the
    weights that come into a unit (of a transposed convolution those that go out of an input). Vectors and
    scalars, such as biases, stay as they are. A unit within the limit keeps its bits. It is the nearest
    point, so a step and this are projected gradient descent.

    limit: above 0; a tensor that broadcasts to w where each member of a population has its own. As
    torch.renorm(w, 2, 0, limit), which falls short by one part in 10⁷. Source: Srebro, Rennie & Jaakkola
    2005; with dropout Srivastava et al. 2014, section 5.1 (there c is 3 to 4).
    """
    if w.dim() < 2:
        return w
    norm = unit_norms(w)
    # Not min(1, c / ‖w‖): c / c is 1 exactly, and nothing is divided by 0.
    return torch.where(norm > limit, w * (limit / norm), w).to(w.dtype)


@torch.no_grad()
def max_norm_(parameters: Tensor | Iterable[Tensor], limit: float) -> None:
    """`max_norm` of each parameter in place, for a loop of one's own: after the optimizer's step."""
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit < math.inf:
        raise UserError(f"limit={limit!r} cannot be used: give a number above 0")
    for p in [parameters] if isinstance(parameters, Tensor) else parameters:
        p.copy_(max_norm(p, limit))


@torch.no_grad()
def shorten(
    parameters: Sequence[Tensor], limit: float, averages: Sequence[Tensor | None], share: float
) -> None:
    """`max_norm_` right after an update that has taken `share` of each weight into its average.

    The average is then that of the shortened weights: a ← a + share · (w_short − w). A parameter without
    a gradient had no part in the update, and stays.
    """
    for p, average in zip(parameters, averages, strict=True):
        if p.dim() < 2 or p.grad is None:
            continue
        short = max_norm(p, limit)
        if average is not None:
            average.add_((short - p).to(average.dtype), alpha=share)
        p.copy_(short)
