"""Stochastic gradient descent."""

from torch import Tensor

from stepwell.rules.rule import Rule


def sgd(w: Tensor, g: Tensor, *, t: int, lr: float) -> tuple[Tensor]:
    """w ← w − η g

    Source: Robbins & Monro 1951. The same as `torch.optim.SGD` without momentum.
    """
    return (w - lr * g,)


SGD = Rule("sgd", sgd, defaults={"lr": 1e-2})
