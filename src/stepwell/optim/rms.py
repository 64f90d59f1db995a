"""Root mean square."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.rms import RMS as RULE


class RMS(RuleOptimizer):
    """w ← w − η g / σ, with σ² the mean of the squares of all gradients so far; w stays where σ = 0.

    lr: η ≥ 0. weight_decay: adds weight_decay · w to the gradient (coupled). maximize: climbs. See
    `Extras`. torch.optim does not have it: its Adagrad has the sum of the squares, and its RMSprop a mean
    that forgets.
    """

    rules = (RULE,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        weight_decay: Number = 0.0,
        *,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, extras)
