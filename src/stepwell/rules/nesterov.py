"""Nesterov's momentum, for weights that stand at the look-ahead point."""

from torch import Tensor

from stepwell.rules.rule import Rule, State


def nesterov(w: Tensor, g: Tensor, v: Tensor, *, t: int, lr: float, momentum: float) -> tuple[Tensor, Tensor]:
    """v ← ρ v + g;  w ← w − η (g + ρ v)

    ρ is `momentum`, in [0, 1). The gradient is taken at w itself, which stands where the classic form
    (`nesterov-classic`) looks ahead to: w here = w there − η ρ v. While η stays the two make the same run.

    Source: Sutskever et al. 2013, eq. 7; Bengio et al. 2013; as `torch.optim.SGD(nesterov=True)`.
    """
    v = momentum * v + g
    return w - lr * (g + momentum * v), v


NESTEROV = Rule("nesterov", nesterov, (State("momentum_buffer"),), {"lr": 1e-2, "momentum": 0.9})
