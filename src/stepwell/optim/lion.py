"""Lion."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.lion import LION


class Lion(RuleOptimizer):
    """w ← w − η sign(β1 m + (1−β1) g); m ← β2 m + (1−β2) g.

    lr: η ≥ 0, 3 to 10 times smaller than Adam's. betas: β1, β2 in [0, 1). weight_decay: decoupled, as in
    the paper, and as much larger than AdamW's; decoupled=False adds it to the gradient. maximize: climbs.
    See `Extras`. torch.optim does not have it. Source: Chen et al. 2023, with the defaults of the authors'
    code.
    """

    rules = (LION,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-4,
        betas: tuple[Number, Number] = (0.9, 0.99),
        weight_decay: Number = 0.0,
        *,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "decoupled": True,
            "maximize": maximize,
        }
        super().__init__(params, defaults, extras)
