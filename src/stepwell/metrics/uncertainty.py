"""What several models that answer the same question say of how sure the answer is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

Array = NDArray[np.float64]


class Uncertainty(NamedTuple):
    """Each (N,), in nats: total = expected + mutual."""

    total: Array
    expected: Array
    mutual: Array


def of_classes(p: ArrayLike) -> Uncertainty:
    """Splits the entropy of the mean prediction; p: (M, N, C) probabilities of M models.

    total H(p̄) = −Σ_c p̄_c ln p̄_c, p̄ = 1/M Σ p_m: all that is uncertain
    expected 1/M Σ H(p_m): what each model takes for chance (aleatoric)
    mutual H(p̄) − 1/M Σ H(p_m) ≥ 0: where they contradict each other, what more data could settle (epistemic)

    mutual is the mean Kullback–Leibler divergence of the p_m from p̄, and at most ln M.
    Source: Houlsby et al. 2011 (BALD), eq. 2; Depeweg et al. 2018, eq. 3; for ensembles Lakshminarayanan et
    al. 2017, §2.4. The trap: the split is only as good as the members are different.
    """
    p = np.asarray(p, np.float64)
    total, expected = entr(p.mean(0)).sum(-1), entr(p).sum(-1).mean(0)
    return Uncertainty(total, expected, np.maximum(total - expected, 0.0))  # below 0 is rounding


def of_values(values: ArrayLike) -> Array:
    """σ = (1/(M−1) Σ (y_m − ȳ)²)^½ over M ≥ 2 models: (M, N, O) → (N, O).

    It is the disagreement alone; the noise of the targets is not in it.
    """
    return np.asarray(values, np.float64).std(0, ddof=1)
