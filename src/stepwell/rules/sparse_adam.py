"""Adam in the form that SparseAdam applies to the rows with a gradient."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import mean_square, moment, sqrt


def sparse_adam(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, *, t: int, lr: float, beta1: float, beta2: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """m ← β1 m + (1−β1) g;  v ← β2 v + (1−β2) g²;  w ← w − η √(1−β2ᵗ) / (1−β1ᵗ) · m / (√v + ε)

    Adam with its corrections taken into the rate. So ε is added to the root before it is corrected: it
    acts as ε / √(1−β2ᵗ) does in `adam`, which at first is much more. As torch.optim.SparseAdam; t counts
    the updates of the whole weight, not of a row.

    Source: Kingma & Ba 2015, the last lines of §2.
    """
    m = moment(m, g, beta1)
    v = mean_square(v, g, beta2)
    return w - lr * sqrt(1 - beta2**t) / (1 - beta1**t) * m / (sqrt(v) + eps), m, v


SPARSE_ADAM = Rule(
    "sparse-adam",
    sparse_adam,
    (State("exp_avg"), State("exp_avg_sq")),
    {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
)
