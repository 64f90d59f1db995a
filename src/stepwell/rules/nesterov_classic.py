"""Nesterov's momentum as the lectures have it, for parameters that hold the look-ahead point."""

from torch import Tensor

from stepwell.rules.rule import Rule, State


def nesterov_classic(
    w: Tensor, g: Tensor, v: Tensor, *, t: int, lr: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """v⁺ = ρ v − η g;  ŵ ← ŵ + v⁺ + ρ (v⁺ − v)

    ρ is `momentum`, in [0, 1). The parameter holds ŵ = w + ρ v, the point where the classic form

        v ← ρ v − η ∇f(w + ρ v);  w ← w + v

    takes its gradient, so that the two are one run at any rates (ρ must stay); w itself is ŵ − ρ v.
    `nesterov`, torch's, is the same run only while η stays: here the steps already under way keep the rate
    they were made with.

    Source: Sutskever et al. 2013, eq. 3–4; in ŵ: Bengio et al. 2013, eq. 6–7.
    """
    new = momentum * v - lr * g
    return w + new + momentum * (new - v), new


NESTEROV_CLASSIC = Rule(
    "nesterov-classic", nesterov_classic, (State("velocity"),), {"lr": 1e-2, "momentum": 0.9}
)
